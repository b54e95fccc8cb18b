"""Lists over gRPC in answers that any client takes: as much as fits, and where to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from google.protobuf.message import Message

from services.chassis.grpc_server import Code, refuse

# gRPC's clients take 4 MB where nobody has told them otherwise.
PAGE_BYTES = 3 << 20
T = TypeVar("T", bound=Message)


def page(items: Iterable[T], token_of: Callable[[T], str]) -> tuple[list[T], str]:
    """The first of them, at least one where there is any, and the token of the last one; "" where none follows."""
    found: list[T] = []
    room = PAGE_BYTES
    for item in items:
        room -= item.ByteSize()
        if found and room < 0:
            return found, token_of(found[-1])
        found.append(item)
    return found, ""


def number_of(token: str) -> int:
    """Raises Refused for what is no token of this service."""
    if not token.isascii() or not token.isdecimal() or len(token) > 20:
        what = f"{token[:100]!r} is no page token of this list. Give next_page_token as it came, or none."
        raise refuse(Code.INVALID_ARGUMENT, "UserError", what, "page_token")
    return int(token)
