"""The quick ways in and out of JSON and Python's own give the same."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from services.serving.model_server import fast_json
from services.serving.model_server.errors import ServeError
from services.serving.model_server.rest_json import parse
from services.serving.model_server.v2_json import parse as v2_parse

NUMBERS = st.integers(-(1 << 63), (1 << 64) - 1) | st.floats()
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@given(VALUES, st.booleans())
def test_whatever_python_writes_is_read_alike(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")

    assert repr(fast_json.loads(text)) == repr(json.loads(text))


@given(st.binary(max_size=40) | st.text(alphabet='{}[]",:0123456789.eE-+ NaIfty\\u', max_size=40).map(str.encode))
def test_what_one_refuses_the_other_refuses_in_the_same_words(text: bytes) -> None:
    def told(read: Any) -> str:
        try:
            return repr(read(text))
        except (ValueError, RecursionError) as error:
            return f"{type(error).__name__}: {error}"

    expected, found = told(json.loads), told(fast_json.loads)
    # Integers beyond 64 bits, which no tensor holds.
    assert found == expected or any(len(it) > 18 for it in expected.replace(",", " ").split())


@pytest.mark.parametrize("depth", [900, 1000, 1020, 1024, 1030, 100_000])
def test_deep_nesting_is_an_object_or_refused(depth: int) -> None:
    text = b'{"inputs":' * depth + b"1" + b"}" * depth

    for read in (parse, v2_parse):
        try:
            assert read(text).keys() == {"inputs"}
        except ServeError as error:
            assert "nested too deep" in error.message


SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
DTYPES = st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.uint8, np.int32, np.int64, np.uint64, np.bool_]).map(np.dtype)


@given(DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, SHAPES)), st.booleans())
def test_an_array_is_written_so_that_its_type_has_it_back(array: Any, transposed: bool) -> None:
    array = array.T if transposed else array

    text = fast_json.dumps_array(array)

    found = json.loads(text)
    np.testing.assert_array_equal(np.array(found, array.dtype).reshape(array.shape), array)
    assert repr(found) == repr(fast_json.to_lists(array))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_an_array_has_the_same_text_by_either_way(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.array([[0.1, 1 / 3, 1e-4], [-0.0, 2.0, 65504]], dtype)
    quick = fast_json.to_lists(array)
    monkeypatch.setattr(fast_json, "orjson", None)

    assert repr(quick) == repr(fast_json.to_lists(array))
    assert json.loads(fast_json.dumps_array(array)) == quick


def test_what_is_no_number_is_written_as_tensorflow_serving_writes_it() -> None:
    assert fast_json.dumps_array(np.array([np.nan, np.inf, -np.inf, 0.1], np.float32)) == b"[NaN, Infinity, -Infinity, 0.1]"


LEAVES = st.floats() | st.floats(width=32) | st.integers(-(2**53), 2**53) | st.booleans() | st.none() | st.text(max_size=2)
NESTED = st.recursive(LEAVES, lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=8)


@given(NESTED | st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2), min_size=1), st.sampled_from([np.float32, np.float64]))
def test_lists_become_the_array_that_numpy_makes_of_them_or_are_left_to_it(value: Any, dtype: Any) -> None:
    shape: tuple[int, ...] = ()
    first = value
    while isinstance(first, list):
        shape, first = (*shape, len(first)), first[0]

    quick = fast_json.nested_floats(value, shape, np.dtype(dtype))

    if quick is not None:
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(quick, np.array(value).astype(dtype))
        assert (quick.shape, quick.dtype) == (shape, dtype)


def test_plain_floats_are_not_left_to_numpy() -> None:
    found = fast_json.nested_floats([[[0.5, 1]], [[2, 3.5]]], (2, 1, 2), np.dtype(np.float32))

    np.testing.assert_array_equal(found, np.array([[[0.5, 1]], [[2, 3.5]]], np.float32))
