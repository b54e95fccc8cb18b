"""Datatypes of the Open Inference Protocol: their names, their raw form, and the field of typed contents that carries them."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from math import prod
from typing import Any, NamedTuple

import numpy as np

from services.serving.model_server.errors import UNIMPLEMENTED, ServeError, invalid
from services.serving.model_server.signatures import Tensor
from services.serving.model_server.tensors import BFLOAT16, HALF, MAX_BYTES, MAX_DIMENSIONS, STRING, TYPES, strings

_LENGTH = struct.Struct("<I")


class Datatype(NamedTuple):
    """How the protocol calls an element type, its DataType number in TensorFlow, and the field of InferTensorContents ("": raw only)."""

    name: str
    number: int
    field: str

    @property
    def array(self) -> Any:
        return TYPES[self.number].array

    @property
    def config_name(self) -> str:
        """What Triton's model configuration calls it."""
        return "TYPE_STRING" if self.number == STRING else f"TYPE_{self.name}"


_ALL = (
    Datatype("BOOL", 10, "bool_contents"),
    Datatype("UINT8", 4, "uint_contents"),
    Datatype("UINT16", 17, "uint_contents"),
    Datatype("UINT32", 22, "uint_contents"),
    Datatype("UINT64", 23, "uint64_contents"),
    Datatype("INT8", 6, "int_contents"),
    Datatype("INT16", 5, "int_contents"),
    Datatype("INT32", 3, "int_contents"),
    Datatype("INT64", 9, "int64_contents"),
    Datatype("FP16", HALF, ""),
    Datatype("FP32", 1, "fp32_contents"),
    Datatype("FP64", 2, "fp64_contents"),
    Datatype("BYTES", STRING, "bytes_contents"),
    Datatype("BF16", BFLOAT16, ""),
)
BY_NAME = {it.name: it for it in _ALL if it.number in TYPES}
_BY_NUMBER = {it.number: it for it in BY_NAME.values()}
_DTYPES = {it.number: np.dtype(it.array) for it in BY_NAME.values()}


def of(tensor: Tensor, alias: str) -> Datatype:
    found = _BY_NUMBER.get(tensor.dtype)
    if found is None:
        raise ServeError(
            UNIMPLEMENTED,
            f"tensor '{alias}' is of type {tensor.type_name}, for which the Open Inference Protocol has no datatype; "
            "use the TensorFlow Serving API",
        )
    return found


def count(shape: tuple[int, ...], datatype: Datatype, name: str) -> int:
    """How many elements a tensor of a request has; a shape that cannot be is refused."""
    if len(shape) > MAX_DIMENSIONS or any(not 0 <= size < 1 << 63 for size in shape):
        raise invalid(f"unexpected shape for input '{name}': {shown(shape[: MAX_DIMENSIONS + 1])}")
    found = prod(shape)
    if found * _DTYPES[datatype.number].itemsize > MAX_BYTES:
        raise invalid(f"input '{name}' of shape {shown(shape)} takes more than {MAX_BYTES} bytes")
    return found


def shown(shape: Iterable[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def shaped(flat: Any, shape: tuple[int, ...], name: str) -> Any:
    try:
        return flat.reshape(shape)
    except ValueError as error:  # no element, and sizes that together are beyond what NumPy counts
        raise invalid(f"unexpected shape for input '{name}': {shown(shape)}") from error


# -- the raw form


def from_raw(data: bytes, datatype: Datatype, size: int, name: str) -> Any:
    """A flat array of so many elements."""
    if datatype.number == STRING:
        return _bytes_from_raw(data, size, name)
    dtype = _DTYPES[datatype.number]
    if len(data) != size * dtype.itemsize:
        raise invalid(f"input '{name}' got unexpected byte size {len(data)}, expected {size * dtype.itemsize}")
    if datatype.name == "BOOL":  # any byte but 0 is true, and stands as 1
        return np.frombuffer(data, np.uint8) != 0
    return np.frombuffer(data, dtype)


def _bytes_from_raw(data: bytes, size: int, name: str) -> Any:
    found: list[bytes] = []
    position = 0
    while position < len(data) and len(found) <= size:
        start = position + _LENGTH.size
        if start > len(data):
            raise invalid(f"incomplete string length indicator for inference input '{name}', expecting {_LENGTH.size} bytes")
        position = start + _LENGTH.unpack_from(data, position)[0]
        if position > len(data):
            raise invalid(f"incomplete string data for inference input '{name}', expecting {position - len(data)} bytes more")
        found.append(data[start:position])
    if len(found) != size:
        seen = f"more than {size}" if len(found) > size else len(found)
        raise invalid(f"input '{name}' got unexpected string count {seen}, expected {size}")
    return strings(found, (size,))


def to_raw(array: Any, datatype: Datatype) -> bytes:
    if datatype.number != STRING:
        return bytes(array.tobytes())
    return b"".join(part for item in octets(array) for part in (_LENGTH.pack(len(item)), item))


def octets(array: Any) -> list[bytes]:
    """The elements of a BYTES tensor, row by row."""
    return [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]


# -- the typed form


def from_contents(contents: Any, datatype: Datatype, size: int, name: str) -> Any:
    """A flat array out of an InferTensorContents; `contents` may carry no other field than the datatype's."""
    if not datatype.field:
        raise invalid(f"{datatype.name} data of input '{name}' must come in raw_input_contents")
    other = [field.name for field, _ in contents.ListFields() if field.name != datatype.field]
    if other:
        raise invalid(f"input '{name}' of datatype {datatype.name} got unexpected {other[0]}, expected {datatype.field}")
    values = getattr(contents, datatype.field)
    if len(values) != size:
        raise invalid(f"input '{name}' got unexpected element count {len(values)}, expected {size}")
    if datatype.number == STRING:
        return strings(list(values), (size,))
    wide = np.array(values, np.int64) if datatype.field in ("int_contents", "uint_contents") else None
    if wide is None:
        return np.array(values, datatype.array)
    flat = wide.astype(datatype.array)
    if (flat != wide).any():
        raise invalid(f"input '{name}' has numbers beyond what {datatype.name} holds")
    return flat


def to_contents(array: Any, datatype: Datatype, contents: Any) -> None:
    values = octets(array) if datatype.number == STRING else array.ravel().tolist()
    getattr(contents, datatype.field).extend(values)
