"""TensorProto <-> NumPy, by TensorFlow's own rules: short value lists repeat their last value, none means zeros."""

from __future__ import annotations

from typing import Any

import numpy as np

from services.serving.model_server.errors import UNIMPLEMENTED, ServeError, invalid

MAX_BYTES = 256 * 1024 * 1024  # a shape alone may not make us allocate more
STRING, HALF, BFLOAT16 = 7, 19, 14

# DataType number -> (NumPy type, typed field)
FIELDS: dict[int, tuple[Any, str]] = {
    1: (np.float32, "float_val"), 2: (np.float64, "double_val"), 3: (np.int32, "int_val"), 4: (np.uint8, "int_val"),
    5: (np.int16, "int_val"), 6: (np.int8, "int_val"), 8: (np.complex64, "scomplex_val"), 9: (np.int64, "int64_val"),
    10: (np.bool_, "bool_val"), 17: (np.uint16, "int_val"), 18: (np.complex128, "dcomplex_val"), 19: (np.float16, "half_val"),
    22: (np.uint32, "uint32_val"), 23: (np.uint64, "uint64_val"),
}  # fmt: skip
try:  # comes with TensorFlow; not needed elsewhere
    import ml_dtypes

    FIELDS[BFLOAT16] = (ml_dtypes.bfloat16, "half_val")
except ImportError:
    pass


def _shape(proto: Any, itemsize: int) -> tuple[int, ...]:
    if proto.tensor_shape.unknown_rank:
        raise invalid("tensor parsing error: the shape has an unknown rank")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if any(size < 0 for size in shape) or len(shape) > 254:
        raise invalid(f"tensor parsing error: invalid shape {list(shape)[:16]}")
    count = 1
    for size in shape:
        count *= size
    if count * itemsize > MAX_BYTES:
        raise invalid(f"tensor parsing error: shape {list(shape)[:16]} exceeds {MAX_BYTES} bytes")
    return shape


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _padded(values: Any, count: int, dtype: Any) -> Any:
    flat = np.asarray(values[:count], dtype=dtype)
    if len(flat) == count:
        return flat
    full = np.zeros(count, dtype=dtype)
    full[: len(flat)] = flat
    if len(flat):
        full[len(flat) :] = flat[-1]
    return full


def _string_list(content: bytes, count: int) -> list[bytes]:
    """TensorFlow's packed strings: varint lengths, then the bytes."""
    lengths, position = [], 0
    for _ in range(count):
        length = shift = 0
        while True:
            if position >= len(content) or shift > 56:
                raise invalid("tensor parsing error: truncated string tensor_content")
            byte = content[position]
            position += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(length)
    if position + sum(lengths) != len(content):
        raise invalid("tensor parsing error: string tensor_content has the wrong length")
    strings = []
    for length in lengths:
        strings.append(content[position : position + length])
        position += length
    return strings


def to_array(proto: Any) -> Any:
    """The NumPy array of a TensorProto; strings become object arrays of bytes."""
    if proto.dtype == STRING:
        shape = _shape(proto, 8)
        count = _count(shape)
        values = _string_list(proto.tensor_content, count) if proto.tensor_content else list(proto.string_val[:count])
        values += [values[-1] if values else b""] * (count - len(values))
        array = np.empty(count, dtype=object)
        array[:] = values
        return array.reshape(shape)
    if proto.dtype not in FIELDS:
        raise ServeError(UNIMPLEMENTED, f"tensor parsing error: data type {proto.dtype} is not served")
    dtype, field = FIELDS[proto.dtype]
    itemsize = np.dtype(dtype).itemsize
    shape = _shape(proto, itemsize)
    count = _count(shape)
    if proto.tensor_content:
        if len(proto.tensor_content) != count * itemsize:
            raise invalid(f"tensor parsing error: tensor_content has {len(proto.tensor_content)} bytes, shape needs {count * itemsize}")
        return np.frombuffer(proto.tensor_content, dtype=dtype).reshape(shape)
    values = getattr(proto, field)
    if field == "half_val":
        return (_padded(values, count, np.int64) & 0xFFFF).astype(np.uint16).view(dtype).reshape(shape)
    if np.dtype(dtype).kind == "c":
        part = np.float32 if dtype is np.complex64 else np.float64
        pairs = np.asarray(values[: 2 * count], dtype=part)
        return _padded(pairs[: len(pairs) // 2 * 2].view(dtype), count, dtype).reshape(shape)
    if field == "int_val":  # C++ casts; NumPy 2 would raise on values out of range
        return _padded(values, count, np.int32).astype(dtype).reshape(shape)
    return _padded(values, count, dtype).reshape(shape)


def fill(proto: Any, dtype: int, array: Any) -> None:
    """Writes an array into a TensorProto's typed field, as TensorFlow Serving answers by default."""
    proto.dtype = dtype
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    if dtype == STRING:
        proto.string_val.extend(item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist())
        return
    if dtype not in FIELDS:
        raise ServeError(UNIMPLEMENTED, f"output of data type {dtype} is not served")
    field = getattr(proto, FIELDS[dtype][1])
    flat = np.ascontiguousarray(array).reshape(-1)
    if dtype in (HALF, BFLOAT16):
        flat = flat.view(np.uint16)
    elif flat.dtype.kind == "c":
        flat = flat.view(flat.real.dtype)
    field.extend(flat.tolist())
