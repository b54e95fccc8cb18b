"""The quick reader of JSON and Python's own give the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
