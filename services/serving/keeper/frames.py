"""What passes between a keeper and its service: JSON objects, each with its length before it.

The service says `hello` first, and is told the protocol and the children; these two keep their form whatever becomes of the others. Then:

    start   seq, id, key, digest, words, cwd, env, listen: [host, port, owner] or null -> seq, pid, port; or seq, error, taken
    signal  id, number     to its process group, unless it has ended
    note    id, note       kept for the next service
    leave                  whatever is left when the connection ends is ended then

and from the keeper `output` (id, stream, data in base64), `over` (id, stream: it writes no more) and `exit` (id, code).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

PROTOCOL = 1
MOST_BYTES = 16 << 20
_LENGTH = struct.Struct("!I")

Message = dict[str, Any]


class Garbled(Exception):
    """That is no frame: what follows it cannot be read either."""


def framed(message: Mapping[str, Any]) -> bytes:
    """Raises Garbled for what is too long to be read."""
    body = json.dumps(message).encode()
    if len(body) > MOST_BYTES:
        raise Garbled(f"a message of {len(body)} bytes; {MOST_BYTES} are the most")
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Bytes in, whole messages out."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Raises Garbled."""
        self._rest += data
        found = []
        while len(self._rest) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._rest)
            if size > MOST_BYTES:
                raise Garbled(f"a message of {size} bytes; {MOST_BYTES} are the most")
            end = _LENGTH.size + size
            if len(self._rest) < end:
                break
            found.append(_message(bytes(self._rest[_LENGTH.size : end])))
            del self._rest[:end]
        return found


def _message(body: bytes) -> Message:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Garbled(f"no JSON: {error}") from error
    if not isinstance(message, dict):
        raise Garbled(f"no object: {type(message).__name__}")
    return message
