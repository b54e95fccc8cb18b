"""Tensors of answers as plain values, whatever the library: numbers, texts and bytes in one list."""

from __future__ import annotations

import struct
from math import prod
from typing import Any

# TensorFlow's DataType -> struct's letter; 14 is bfloat16, 8 and 18 are pairs.
_BY_NUMBER = {1: "f", 2: "d", 3: "i", 4: "B", 5: "h", 6: "b", 8: "f", 9: "q", 10: "?", 14: "H", 17: "H", 18: "d", 19: "e", 22: "I", 23: "Q"}
_FIELDS = ("float_val", "double_val", "int_val", "string_val", "scomplex_val", "int64_val", "bool_val", "dcomplex_val", "uint32_val", "uint64_val")  # fmt: skip
_BY_NAME = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "FP16": "e", "FP32": "f", "FP64": "d", "BF16": "H",
}  # fmt: skip
_MOST_REPEATED = 1 << 22
_BFLOAT16, _PAIRS = 14, (8, 18)


def of_tensorflow(tensor: Any) -> dict[str, Any]:
    """dtype, shape and values of a TensorProto. Raises ValueError where they do not fit each other."""
    shape = [int(it.size) for it in tensor.tensor_shape.dim]
    count = prod(shape) * (2 if tensor.dtype in _PAIRS else 1)
    if tensor.tensor_content:
        values = _numbers(tensor.tensor_content, _BY_NUMBER.get(tensor.dtype, ""), tensor.dtype == _BFLOAT16)
    elif tensor.half_val:
        packed = b"".join((it & 0xFFFF).to_bytes(2, "little") for it in tensor.half_val)
        values = _numbers(packed, _BY_NUMBER.get(tensor.dtype, ""), tensor.dtype == _BFLOAT16)
    else:
        values = next((list(getattr(tensor, field)) for field in _FIELDS if len(getattr(tensor, field))), [])
    if values and tensor.dtype not in _PAIRS and len(values) < count <= _MOST_REPEATED:
        values += [values[-1]] * (count - len(values))  # what repeats itself at the end is sent once
    return {"dtype": int(tensor.dtype), "shape": shape, "values": values}


def of_raw(datatype: str, content: bytes) -> list[Any]:
    """Values of the Open Inference Protocol's raw form. Raises ValueError for bytes that are none."""
    if datatype != "BYTES":
        return _numbers(content, _BY_NAME.get(datatype, ""), datatype == "BF16")
    found, at = [], 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "little")
        if at + 4 + size > len(content):
            raise ValueError("an element of BYTES is cut short")
        found.append(content[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def flattened(data: Any) -> list[Any]:
    """Nested lists as one; a value alone as a list of it."""
    if not isinstance(data, list):
        return [data]
    found: list[Any] = []
    waiting = [iter(data)]
    while waiting:
        for item in waiting[-1]:
            if isinstance(item, list):
                waiting.append(iter(item))
                break
            found.append(item)
        else:
            waiting.pop()
    return found


def _numbers(content: bytes, letter: str, is_bfloat16: bool) -> list[Any]:
    """Of a type that is none of ours the bytes themselves."""
    if not letter:
        return [content]
    size = struct.calcsize(f"<{letter}")
    if len(content) % size:
        raise ValueError(f"{len(content)} bytes are no whole number of elements")
    values = struct.unpack(f"<{len(content) // size}{letter}", content)
    return [struct.unpack("<f", (it << 16).to_bytes(4, "little"))[0] for it in values] if is_bfloat16 else list(values)
