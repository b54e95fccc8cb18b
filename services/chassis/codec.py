"""State as documents: frozen dataclasses, protobuf messages inside them included, to readable JSON and back."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any, TypeVar

from cattrs.preconf.json import make_converter
from google.protobuf.message import Message

T = TypeVar("T")


def _is_message(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Message)


_converter = make_converter()
_converter.register_unstructure_hook_func(_is_message, lambda message: b64encode(message.SerializeToString(deterministic=True)).decode())
_converter.register_structure_hook_func(_is_message, lambda text, kind: kind.FromString(b64decode(text)))


def dumps(state: Any) -> bytes:
    return _converter.dumps(state, ensure_ascii=False).encode()


def loads(content: bytes, kind: type[T]) -> T:
    """Fields that the content lacks take their defaults; fields that the class lacks are dropped: versions differ by a deploy."""
    return _converter.loads(content, kind)
