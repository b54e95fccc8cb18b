"""TensorProto <-> NumPy, by TensorFlow's own rules: short value lists repeat their last value, none means zeros."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from services.serving.model_server.errors import UNIMPLEMENTED, ServeError, invalid

MAX_BYTES = 256 * 1024 * 1024  # a shape alone may not make us allocate more
MAX_DIMENSIONS = 32  # NumPy 1 has no more
STRING, HALF, BFLOAT16 = 7, 19, 14


class Type(NamedTuple):
    """How a DataType is called in TensorFlow's C++, what carries it in NumPy, and the typed field of a TensorProto."""

    name: str
    array: Any
    field: str


# By DataType number: the types that are served.
TYPES: dict[int, Type] = {
    1: Type("float", np.float32, "float_val"),
    2: Type("double", np.float64, "double_val"),
    3: Type("int32", np.int32, "int_val"),
    4: Type("uint8", np.uint8, "int_val"),
    5: Type("int16", np.int16, "int_val"),
    6: Type("int8", np.int8, "int_val"),
    STRING: Type("string", object, "string_val"),
    8: Type("complex64", np.complex64, "scomplex_val"),
    9: Type("int64", np.int64, "int64_val"),
    10: Type("bool", np.bool_, "bool_val"),
    17: Type("uint16", np.uint16, "int_val"),
    18: Type("complex128", np.complex128, "dcomplex_val"),
    HALF: Type("half", np.float16, "half_val"),
    22: Type("uint32", np.uint32, "uint32_val"),
    23: Type("uint64", np.uint64, "uint64_val"),
}
try:  # TensorFlow brings it; whoever imports this module without TensorFlow has no such tensors
    import ml_dtypes
except ImportError:
    pass
else:
    TYPES[BFLOAT16] = Type("bfloat16", ml_dtypes.bfloat16, "half_val")
_NAMES = {np.dtype(it.array): it.name for it in TYPES.values()}


def type_name(array: Any) -> str:
    """What TensorFlow calls the type of an array's elements."""
    return _NAMES.get(array.dtype, str(array.dtype))


def to_array(proto: Any, alias: str) -> Any:
    """The NumPy array of a TensorProto; strings become object arrays of bytes. `alias` is for the text of a ServeError."""
    try:
        return _strings(proto) if proto.dtype == STRING else _numbers(proto)
    except ValueError as error:
        raise invalid(f"tensor parsing error: {alias}: {error}") from error


def _strings(proto: Any) -> Any:
    shape = _shape(proto, 8)
    count = prod(shape)
    values = _packed_strings(proto.tensor_content, count) if proto.tensor_content else list(proto.string_val[:count])
    values += [values[-1] if values else b""] * (count - len(values))
    return strings(values, shape)


def strings(values: list[bytes], shape: tuple[int, ...]) -> Any:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)


def _numbers(proto: Any) -> Any:
    if proto.dtype not in TYPES:
        raise ServeError(UNIMPLEMENTED, f"tensor parsing error: data type {proto.dtype} is not served")
    _, dtype, field = TYPES[proto.dtype]
    itemsize = np.dtype(dtype).itemsize
    shape = _shape(proto, itemsize)
    count = prod(shape)
    if proto.tensor_content:
        if len(proto.tensor_content) != count * itemsize:
            raise ValueError(f"tensor_content has {len(proto.tensor_content)} bytes, the shape {list(shape)} needs {count * itemsize}")
        return np.frombuffer(proto.tensor_content, dtype=dtype).reshape(shape)
    values = getattr(proto, field)
    if field == "half_val":
        return _padded(values, count, np.int32).astype(np.uint16).view(dtype).reshape(shape)
    if np.dtype(dtype).kind == "c":
        pairs = np.asarray(values[: 2 * count], dtype=dtype(0).real.dtype)
        return _padded(pairs[: len(pairs) // 2 * 2].view(dtype), count, dtype).reshape(shape)
    if field == "int_val":  # cast as C++ does: NumPy 2 would raise on values out of range
        return _padded(values, count, np.int32).astype(dtype).reshape(shape)
    return _padded(values, count, dtype).reshape(shape)


def _shape(proto: Any, itemsize: int) -> tuple[int, ...]:
    if proto.tensor_shape.unknown_rank:
        raise ValueError("the shape has an unknown rank")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if len(shape) > MAX_DIMENSIONS or any(size < 0 for size in shape):
        raise ValueError(f"invalid shape {list(shape[: MAX_DIMENSIONS + 1])}")
    if prod(shape) * itemsize > MAX_BYTES:
        raise ValueError(f"the shape {list(shape)} takes more than {MAX_BYTES} bytes")
    return shape


def _padded(values: Any, count: int, dtype: Any) -> Any:
    # A slice of a message's field is a list of Python's: a hundred times as slow.
    flat = np.asarray(values if len(values) <= count else values[:count], dtype=dtype)
    if len(flat) == count:
        return flat
    full = np.zeros(count, dtype=dtype)
    full[: len(flat)] = flat
    if len(flat):
        full[len(flat) :] = flat[-1]
    return full


def _packed_strings(content: bytes, count: int) -> list[bytes]:
    """TensorFlow's form of strings in tensor_content: the lengths as varints, then the bytes."""
    lengths, position = [], 0
    for _ in range(count):
        length = shift = 0
        while True:
            if position >= len(content) or shift > 56:
                raise ValueError("the tensor_content of strings is cut short")
            byte = content[position]
            position += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(length)
    if position + sum(lengths) != len(content):
        raise ValueError("the tensor_content of strings has another length than they have together")
    found = []
    for length in lengths:
        found.append(content[position : position + length])
        position += length
    return found


def fill(proto: Any, dtype: int, array: Any) -> None:
    """Writes an array into a TensorProto's typed field, as TensorFlow Serving answers by default."""
    proto.dtype = dtype
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    if dtype == STRING:
        proto.string_val.extend(item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist())
        return
    flat = np.ascontiguousarray(array).reshape(-1)
    if dtype in (HALF, BFLOAT16):
        flat = flat.view(np.uint16)
    elif flat.dtype.kind == "c":
        flat = flat.view(flat.real.dtype)
    getattr(proto, TYPES[dtype].field).extend(flat.tolist())


def fill_content(proto: Any, dtype: int, array: Any) -> None:
    """Writes an array into a TensorProto's tensor_content, which holds no strings."""
    if dtype == STRING:
        fill(proto, dtype, array)
        return
    proto.dtype = dtype
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    proto.tensor_content = np.ascontiguousarray(array).tobytes()
