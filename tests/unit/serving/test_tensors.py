"""TensorProto <-> NumPy without TensorFlow: what goes in comes out, and hostile protos raise nothing but ServeError."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from services.serving.model_server.errors import INVALID_ARGUMENT, UNIMPLEMENTED, ServeError
from services.serving.model_server.tensors import STRING, TYPES, fill, strings, to_array
from services.serving.model_server.wire import Wire

_TensorProto: Any = type(Wire().PredictRequest().inputs["x"])
_NUMBERS = sorted(number for number in TYPES if number != STRING)


@st.composite
def _arrays(draw: st.DrawFn) -> tuple[int, Any]:
    number = draw(st.sampled_from(_NUMBERS))
    return number, draw(hn.arrays(TYPES[number].array, hn.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))


@given(_arrays())
def test_an_array_written_into_typed_fields_reads_back_the_same(numbered: tuple[int, Any]) -> None:
    number, array = numbered
    proto = _TensorProto()

    fill(proto, number, array)
    read = to_array(proto, "x")

    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@given(_arrays())
def test_raw_content_reads_back_the_same(numbered: tuple[int, Any]) -> None:
    number, array = numbered
    proto = _TensorProto(dtype=number, tensor_content=array.tobytes())
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)

    read = to_array(proto, "x")

    np.testing.assert_array_equal(read, array)


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_strings_read_back_the_same_in_both_forms(values: list[bytes]) -> None:
    typed, packed = _TensorProto(), _TensorProto(dtype=STRING)
    fill(typed, STRING, strings(values, (len(values),)))
    packed.tensor_shape.dim.add(size=len(values))
    packed.tensor_content = b"".join(_varint(len(value)) for value in values) + b"".join(values)

    assert to_array(typed, "x").tolist() == values
    assert to_array(packed, "x").tolist() == values


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes([number])
    return bytes([number & 0x7F | 0x80]) + _varint(number >> 7)


@given(st.data())
def test_a_hostile_proto_is_refused_or_read_within_bounds_and_nothing_else(data: st.DataObject) -> None:
    proto = _TensorProto(dtype=data.draw(st.integers(0, 30)), tensor_content=data.draw(st.binary(max_size=64)))
    for size in data.draw(st.lists(st.one_of(st.integers(-2, 5), st.integers(-(2**63), 2**63 - 1)), max_size=40)):
        proto.tensor_shape.dim.add(size=size)
    for field, values in (
        ("float_val", st.floats(width=32)),
        ("int_val", st.integers(-(2**31), 2**31 - 1)),
        ("half_val", st.integers(-9, 99)),
    ):
        getattr(proto, field).extend(data.draw(st.lists(values, max_size=5)))
    proto.scomplex_val.extend(data.draw(st.lists(st.floats(width=32), max_size=5)))
    proto.string_val.extend(data.draw(st.lists(st.binary(max_size=5), max_size=5)))

    try:
        array = to_array(proto, "x")
    except ServeError as error:
        assert error.code in (INVALID_ARGUMENT, UNIMPLEMENTED)
    else:
        assert array.shape == tuple(dim.size for dim in proto.tensor_shape.dim)


@pytest.mark.parametrize(("number", "bits"), [(4, [300, -1]), (6, [200, -200]), (17, [70000, -1])])
def test_numbers_beyond_their_type_are_cast_as_c_does(number: int, bits: list[int]) -> None:
    proto = _TensorProto(dtype=number, int_val=bits)
    proto.tensor_shape.dim.add(size=2)

    array = to_array(proto, "x")

    assert array.tolist() == np.array(bits, np.int32).astype(TYPES[number].array).tolist()
