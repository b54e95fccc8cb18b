"""TensorFlow Serving's JSON forms, on a model that gives back what it is given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.serving.model_server import rest_json
from services.serving.model_server.errors import INVALID_ARGUMENT, UNIMPLEMENTED, ServeError
from services.serving.model_server.signatures import Signature, Tensor

FLOAT, DOUBLE, INT32, UINT8, STRING, COMPLEX64, INT64, BOOL, HALF = 1, 2, 3, 4, 7, 8, 9, 10, 19


class Echo:
    """A model that answers with its inputs."""

    name, version = "echo", 1

    def __init__(self, **types: int) -> None:
        tensors = {alias: Tensor(f"{alias}:0", dtype, (-1,)) for alias, dtype in types.items()}
        self.signatures = {"serving_default": Signature("serving_default", "tensorflow/serving/predict", tensors, tensors)}

    def predict(self, signature: Signature, inputs: Mapping[str, Any], *_: Any) -> dict[str, Any]:
        for alias, array in inputs.items():
            assert array.dtype == signature.inputs[alias].array_dtype
        return dict(inputs)


def ask(model: Echo, request: Any) -> Any:
    return json.loads(answer_to(model, request))


def answer_to(model: Echo, request: Any) -> bytes:
    return rest_json.predict(model, json.dumps(request).encode())  # type: ignore[arg-type]


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Lists of lists of one shape."""
    shapes = st.lists(st.integers(1, 3), min_size=1, max_size=4)

    def of_shape(shape: list[int]) -> st.SearchStrategy[Any]:
        return leaves if not shape else st.lists(of_shape(shape[1:]), min_size=shape[0], max_size=shape[0])

    return shapes.flatmap(of_shape)


@pytest.mark.parametrize(
    ("dtype", "leaves"),
    [
        (FLOAT, st.floats(width=32, allow_nan=False)),
        (DOUBLE, st.floats(allow_nan=False)),
        (HALF, st.floats(width=16, allow_nan=False)),
        (INT32, st.integers(-(2**31), 2**31 - 1)),
        (INT64, st.integers(-(2**63), 2**63 - 1)),
        (UINT8, st.integers(0, 255)),
        (BOOL, st.booleans()),
        (STRING, st.text()),
    ],
)
@given(data=st.data())
def test_what_goes_in_by_row_or_column_comes_out_the_same(dtype: int, leaves: st.SearchStrategy[Any], data: st.DataObject) -> None:
    value = data.draw(nested(leaves.map(lambda it: it.encode("utf-8", "replace").decode() if isinstance(it, str) else it)))

    by_row = ask(Echo(x=dtype), {"instances": value})["predictions"]
    by_column = ask(Echo(x=dtype), {"inputs": {"x": value}})["outputs"]

    array = np.array(value, dtype=Echo(x=dtype).signatures["serving_default"].inputs["x"].array_dtype)
    for answer in (by_row, by_column):
        np.testing.assert_array_equal(np.array(answer, dtype=array.dtype), array)


def test_every_float_is_written_with_as_few_digits_as_tell_it_apart() -> None:
    answer = answer_to(Echo(x=FLOAT), {"instances": [0.1, 1 / 3, 16777216, 1e-20]})

    assert answer == b'{"predictions": [0.1,0.33333334,16777216.0,1e-20]}'


def test_several_tensors_by_row_are_objects() -> None:
    rows = [{"a": 1.5, "b": [1, 2]}, {"a": 2.5, "b": [3, 4]}]

    assert ask(Echo(a=FLOAT, b=INT64), {"instances": rows}) == {"predictions": rows}


def test_an_empty_column_is_an_empty_tensor() -> None:
    assert ask(Echo(x=FLOAT), {"inputs": []}) == {"outputs": []}
    assert ask(Echo(x=STRING), {"inputs": [[], []]}) == {"outputs": [[], []]}


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(INT32, 2**31), (INT32, -(2**31) - 1), (UINT8, 256), (UINT8, -1), (INT64, 2**63), (FLOAT, 1e39), (HALF, 70000.0), (INT64, 2**64)],
)
def test_a_number_beyond_the_type_is_refused_and_never_wraps_around(dtype: int, value: float) -> None:
    with pytest.raises(ServeError) as caught:
        ask(Echo(x=dtype), {"instances": [value]})

    assert caught.value.code == INVALID_ARGUMENT


def test_a_complex_tensor_is_not_for_json() -> None:
    with pytest.raises(ServeError, match="use gRPC") as caught:
        ask(Echo(x=COMPLEX64), {"instances": [1.0]})

    assert caught.value.code == UNIMPLEMENTED


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["b64", "x", "a", "instances", "inputs"]), inner, max_size=3)
    ),
    max_leaves=20,
)


@given(st.sampled_from([FLOAT, INT32, BOOL, STRING]), st.sampled_from(["instances", "inputs"]), _json)
def test_no_json_makes_it_raise_anything_but_a_refusal(dtype: int, form: str, value: Any) -> None:
    try:
        answer = ask(Echo(x=dtype), {form: value})
    except ServeError as error:
        assert error.code == INVALID_ARGUMENT
    else:
        json.dumps(answer)


@given(st.binary(max_size=50))
def test_no_bytes_make_it_raise_anything_but_a_refusal(body: bytes) -> None:
    with pytest.raises(ServeError):
        rest_json.predict(Echo(x=FLOAT), body)  # type: ignore[arg-type]
