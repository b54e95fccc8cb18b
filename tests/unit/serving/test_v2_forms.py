"""Any tensor comes back equal through every form of the Open Inference Protocol, and hostile bytes are refused with words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from services.serving.model_server import v2_types
from services.serving.model_server.v2_types import BY_NAME, Datatype
from tests.unit.serving import open_inference, v2_calls
from tests.unit.serving.fake_models import FakeModels
from tests.unit.serving.v2_calls import Aborted, an_infer, arrays, binaries, post, shown

_SHAPES = hn.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
_WITH_FIELDS = [name for name, it in BY_NAME.items() if it.field]
_MODELS = FakeModels()


@st.composite
def tensors(draw: st.DrawFn, names: Sequence[str] = tuple(BY_NAME), text: bool = False) -> tuple[Datatype, Any]:
    datatype = BY_NAME[draw(st.sampled_from(names))]
    shape = draw(_SHAPES)
    if datatype.name == "BYTES":
        size = int(np.prod(shape, dtype=np.int64))
        flat = np.empty(size, object)
        flat[:] = draw(st.lists(st.text(max_size=9).map(str.encode) if text else st.binary(max_size=20), min_size=size, max_size=size))
        return datatype, flat.reshape(shape)
    if datatype.name == "BF16":
        return datatype, draw(hn.arrays(np.uint16, shape)).view(datatype.array)
    return datatype, draw(hn.arrays(datatype.array, shape))


def same(got: Any, sent: Any) -> None:
    assert got.shape == sent.shape
    assert got.dtype == sent.dtype
    if sent.dtype == object:
        assert got.tolist() == sent.tolist()
    else:
        assert got.tobytes() == sent.tobytes() or np.array_equal(got, sent, equal_nan=True)


@given(tensors())
def test_raw_over_grpc(tensor: tuple[Datatype, Any]) -> None:
    datatype, array = tensor

    response = v2_calls.infer(_MODELS, an_infer(array, datatype.name, signature=datatype.name))

    same(arrays(response)["y"], array)


@given(tensors(_WITH_FIELDS))
def test_typed_over_grpc_is_answered_raw_or_typed_as_it_is_wanted(tensor: tuple[Datatype, Any]) -> None:
    datatype, array = tensor
    request = an_infer(array, datatype.name, typed=True, signature=datatype.name)

    raw = v2_calls.infer(_MODELS, request)
    request.outputs.add(name="y").parameters["binary_data"].bool_param = False
    typed = v2_calls.infer(_MODELS, request)

    same(arrays(raw)["y"], array)
    same(arrays(typed)["y"], array)
    assert len(raw.raw_output_contents) == 1
    assert not typed.raw_output_contents


def a_json(array: Any, datatype: Datatype, *, nested: bool) -> dict[str, Any]:
    """Of an input; BYTES are text here."""
    items = np.array([it.decode() for it in array.ravel()], object).reshape(array.shape) if datatype.name == "BYTES" else array
    data = items.tolist() if nested and array.ndim else items.ravel().tolist()
    return {"name": "x", "datatype": datatype.name, "shape": list(array.shape), "data": data}


@given(tensors(_WITH_FIELDS, text=True), st.booleans())
def test_json_over_rest(tensor: tuple[Datatype, Any], nested: bool) -> None:
    datatype, array = tensor
    request = {"inputs": [a_json(array, datatype, nested=nested)], "parameters": {"signature_name": datatype.name}}

    answer = post(_MODELS, "/v2/models/echo/infer", request)

    assert answer.status == 200, answer.body
    assert open_inference.conforms(shown(answer), open_inference.INFERENCE)
    (output,) = shown(answer)["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("y", datatype.name, list(array.shape))
    values = [it.encode() for it in output["data"]] if datatype.name == "BYTES" else output["data"]
    flat = np.empty(len(values), datatype.array)
    flat[:] = values
    same(flat.reshape(array.shape), array)


@given(tensors())
def test_binary_over_rest(tensor: tuple[Datatype, Any]) -> None:
    datatype, array = tensor
    raw = v2_types.to_raw(array, datatype)
    head = {"name": "x", "datatype": datatype.name, "shape": list(array.shape), "parameters": {"binary_data_size": len(raw)}}
    request = {"inputs": [head], "parameters": {"signature_name": datatype.name, "binary_data_output": True}}

    answer = post(_MODELS, "/v2/models/echo/infer", request, raw or b"", {v2_calls.HEADER_LENGTH: str(len(json.dumps(request)))})

    assert answer.status == 200, answer.body
    (back,) = binaries(answer)
    same(v2_types.from_raw(back, datatype, array.size, "y").reshape(array.shape), array)


# -- what is hostile


@given(st.binary(max_size=200))
def test_bytes_that_are_no_request_are_refused_over_grpc(raw: bytes) -> None:
    """Some are a request all the same, of no model."""
    with pytest.raises(Aborted) as caught:
        v2_calls.call(_MODELS, "ModelInfer", raw)

    assert caught.value.code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert "Error:" not in caught.value.details


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["x", "y", "FP32", "INT64", "BYTES"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
_MEMBERS = {
    "name": st.just("x") | _JSON,
    "datatype": st.sampled_from([*BY_NAME]) | _JSON,
    "shape": st.lists(st.integers(-1, 4)) | _JSON,
    "data": _JSON,
}
_PARAMETERS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("binary_data_size", "binary_data", "binary_data_output", "signature_name", "timeout", "classification", "shared_memory_region"),
        _JSON,
    ),
)
_REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "id": _JSON,
        "parameters": _PARAMETERS | _JSON,
        "inputs": st.lists(st.fixed_dictionaries({}, optional={**_MEMBERS, "parameters": _PARAMETERS | _JSON}) | _JSON, max_size=3) | _JSON,
        "outputs": st.lists(st.fixed_dictionaries({}, optional={"name": st.just("y") | _JSON, "parameters": _PARAMETERS}) | _JSON) | _JSON,
    },
)


@given(_REQUESTS | _JSON, st.binary(max_size=40))
def test_json_that_is_no_request_is_refused_over_rest(content: Any, binary: bytes) -> None:
    answer = post(_MODELS, "/v2/models/echo/infer", content, binary)

    assert answer.status in (200, 400, 501)
    if v2_calls.HEADER_LENGTH not in answer.headers:  # binary tensors are an extension
        assert open_inference.conforms(shown(answer), open_inference.INFERENCE if answer.status == 200 else open_inference.ERROR)


@given(st.binary(max_size=100), st.none() | st.integers(-5, 200).map(str) | st.text(max_size=5))
def test_bytes_that_are_no_request_are_refused_over_rest(body: bytes, length: str | None) -> None:
    headers = {} if length is None else {v2_calls.HEADER_LENGTH: length}

    answer = v2_calls.http(_MODELS, "POST", "/v2/models/echo/infer", body, headers)

    assert answer.status == 400
    assert shown(answer).keys() == {"error"}


_NAMES = st.sampled_from(["echo", "none", "%2e%2e", "a%2Fb", "%ff", "stats", "*", "ready"]) | st.text(
    st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8
)


@given(
    _NAMES,
    st.none() | st.sampled_from(["3", "9", "x", "-1", "1" * 30]) | _NAMES,
    st.sampled_from(["", "/ready", "/config", "/stats", "/infer", "/x"]),
)
def test_whatever_is_looked_for_is_there_or_is_refused_in_words(name: str, version: str | None, rest: str) -> None:
    which = name if version is None else f"{name}/versions/{version}"

    answer = v2_calls.http(_MODELS, "GET", f"/v2/models/{which}{rest}")

    assert answer.status in (200, 400, 404, 405, 501)
    if answer.status == 200 and which in ("echo", "echo/versions/3") and not rest:
        assert open_inference.conforms(shown(answer), open_inference.MODEL)
    if answer.status != 200 and not rest.startswith("/ready"):
        assert shown(answer).keys() <= {"error", "ready"}


def test_the_server_describes_itself_as_the_description_has_it() -> None:
    assert open_inference.conforms(shown(v2_calls.http(_MODELS, "GET", "/v2/")), open_inference.SERVER)
    assert open_inference.conforms(shown(v2_calls.http(_MODELS, "GET", "/v2/models/echo")), open_inference.MODEL)


@given(st.data())
def test_a_hostile_message_is_refused_or_answered_and_nothing_else(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from([*BY_NAME, "", "FP8"]))
    request = v2_calls.INFER_REQUEST(model_name="echo")
    request.parameters["signature_name"].string_param = data.draw(st.sampled_from([*BY_NAME]))
    for _ in range(data.draw(st.integers(0, 2))):
        sent = request.inputs.add(name=data.draw(st.sampled_from(["x", "y"])), datatype=datatype)
        sent.shape.extend(data.draw(st.lists(st.integers(-2, 5) | st.integers(-(2**63), 2**63 - 1), max_size=40)))
        sent.contents.int_contents.extend(data.draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4)))
        sent.contents.bytes_contents.extend(data.draw(st.lists(st.binary(max_size=3), max_size=2)))
    request.raw_input_contents.extend(data.draw(st.lists(st.binary(max_size=40), max_size=2)))

    try:
        v2_calls.infer(_MODELS, request)
    except Aborted as aborted:
        assert aborted.code == grpc.StatusCode.INVALID_ARGUMENT
