"""How many parts a protobuf message has, counted before it is parsed: two bytes on the wire may become a hundred in memory."""

from __future__ import annotations

from collections.abc import Mapping

Parts = Mapping[int, str]
"""Of a message: field number -> the kind of message there; "" for a text."""


def has_more_than(most: int, content: bytes, kinds: Mapping[str, Parts], kind: str) -> bool:
    """Counts fields of the kinds that are known, down to `most`. Garbage ends the count: the parser says what it is."""
    count = 0
    waiting = [(0, len(content), kind)]
    while waiting:
        at, end, name = waiting.pop()
        parts = kinds.get(name, {})
        while at < end:
            tag, at = _varint(content, at, end)
            number, wire = tag >> 3, tag & 7
            if wire == 2:
                size, at = _varint(content, at, end)
                inner = parts.get(number)
                if inner is not None:
                    count += 1
                    if count > most:
                        return True
                    if inner and at + size <= end:
                        waiting.append((at, at + size, inner))
                at += size
            elif wire == 0:
                _, at = _varint(content, at, end)
            elif wire in (1, 5):
                at += 8 if wire == 1 else 4
            else:
                break
    return False


def _varint(content: bytes, at: int, end: int) -> tuple[int, int]:
    """(number, where it ends); past the end where it is broken off."""
    value = shift = 0
    while at < end and shift < 70:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return 0, end + 1
