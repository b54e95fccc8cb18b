"""The Open Inference Protocol on real models and real sockets: tensors of every type come back equal, and nothing takes it down."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from services.serving.model_server import v2_types
from services.serving.model_server.http_messages import MAX_BODY
from services.serving.model_server.v2_rest import HEADER_LENGTH
from tests.component.serving.conftest import WIRE, Running, TensorFlow, running

pytestmark = pytest.mark.component
REQUEST, RESPONSE = WIRE.message("inference.ModelInferRequest"), WIRE.message("inference.ModelInferResponse")
_INFER = "/inference.GRPCInferenceService/ModelInfer"
# As the model calls them, with what stands for them here, where there is no bfloat16.
_SIGNATURES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8", "INT16": "int16",
    "INT32": "int32", "INT64": "int64", "FP16": "half", "FP32": "float32", "FP64": "float64", "BYTES": "string", "BF16": "bfloat16",
}  # fmt: skip
_IN_JSON = [name for name in _SIGNATURES if name not in ("FP16", "BF16")]
_SHAPES = hn.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
Tensor = tuple[str, tuple[int, ...], bytes]


@pytest.fixture(scope="module")
def echo(tensorflow: TensorFlow) -> Iterator[Running]:
    with running(tensorflow.python, tensorflow.models / "echo" / "model") as found:
        yield found


@st.composite
def tensors(draw: st.DrawFn, names: tuple[str, ...] = tuple(_SIGNATURES)) -> Tensor:
    """Datatype, shape and raw form."""
    name, shape = draw(st.sampled_from(names)), draw(_SHAPES)
    size = int(np.prod(shape, dtype=np.int64))
    if name == "BYTES":
        items = draw(st.lists(st.text(max_size=9).map(str.encode), min_size=size, max_size=size))
        return name, shape, b"".join(len(item).to_bytes(4, "little") + item for item in items)
    if name == "BF16":
        return name, shape, bytes(draw(st.binary(min_size=2 * size, max_size=2 * size)))
    return name, shape, draw(hn.arrays(v2_types.BY_NAME[name].array, shape)).tobytes()


def asked(tensor: Tensor) -> Any:
    name, shape, raw = tensor
    request = REQUEST(model_name="half", raw_input_contents=[raw])
    request.inputs.add(name="x", datatype=name, shape=shape)
    request.parameters["signature_name"].string_param = _SIGNATURES[name]
    return request


@given(st.lists(tensors(), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_raw_over_grpc(echo: Running, sent: list[Tensor]) -> None:
    with grpc.insecure_channel(echo.grpc_address) as channel:
        call = channel.unary_unary(_INFER, bytes, RESPONSE.FromString)
        answers = [call(asked(tensor).SerializeToString(), timeout=60) for tensor in sent]

    for (name, shape, raw), answer in zip(sent, answers, strict=True):
        (output,) = answer.outputs
        assert (output.name, output.datatype, tuple(output.shape)) == ("y", name, shape)
        assert list(answer.raw_output_contents) == [raw]


@given(st.lists(tensors(), min_size=1, max_size=8), st.sampled_from(["", "gzip", "deflate"]))
@settings(max_examples=40, deadline=None)
def test_binary_over_rest(echo: Running, sent: list[Tensor], encoding: str) -> None:
    pack = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding, bytes)
    with httpx.Client(base_url=echo.rest, timeout=60) as client:
        for name, shape, raw in sent:
            head = json.dumps(
                {
                    "inputs": [{"name": "x", "datatype": name, "shape": shape, "parameters": {"binary_data_size": len(raw)}}],
                    "parameters": {"signature_name": _SIGNATURES[name], "binary_data_output": True},
                }
            ).encode()
            headers = {HEADER_LENGTH: str(len(head)), "Accept-Encoding": encoding or "identity"}
            answer = client.post(
                "/v2/models/half/infer", content=pack(head + raw), headers=headers | ({"Content-Encoding": encoding} if encoding else {})
            )

            assert answer.status_code == 200, answer.text
            length = int(answer.headers[HEADER_LENGTH])
            (output,) = json.loads(answer.content[:length])["outputs"]
            assert (output["name"], output["datatype"], tuple(output["shape"])) == ("y", name, shape)
            assert answer.content[length:] == raw


@given(st.lists(tensors(tuple(_IN_JSON)), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_json_over_rest(echo: Running, sent: list[Tensor]) -> None:
    with httpx.Client(base_url=echo.rest, timeout=60) as client:
        for name, shape, raw in sent:
            datatype = v2_types.BY_NAME[name]
            flat = v2_types.from_raw(raw, datatype, int(np.prod(shape, dtype=np.int64)), "x")
            data = [item.decode() for item in flat] if name == "BYTES" else flat.tolist()
            body = {
                "inputs": [{"name": "x", "datatype": name, "shape": shape, "data": data}],
                "parameters": {"signature_name": _SIGNATURES[name]},
            }
            answer = client.post("/v2/models/half/infer", content=json.dumps(body))

            assert answer.status_code == 200, answer.text
            (output,) = answer.json()["outputs"]
            assert (output["name"], output["datatype"], tuple(output["shape"])) == ("y", name, shape)
            same = (
                output["data"] == data
                if name == "BYTES"
                else np.array_equal(np.array(output["data"], datatype.array), flat, equal_nan=name in ("FP32", "FP64"))
            )
            assert same


# -- what is hostile


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=10))
@settings(max_examples=20, deadline=None)
def test_garbage_is_refused_in_words(echo: Running, bodies: list[bytes]) -> None:
    with grpc.insecure_channel(echo.grpc_address) as channel, httpx.Client(base_url=echo.rest, timeout=60) as client:
        for body in bodies:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(_INFER, bytes, bytes)(body, timeout=60)
            assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
            answer = client.post("/v2/models/half/infer", content=body)
            assert answer.status_code == 400
            assert answer.json().keys() == {"error"}


def test_a_body_that_inflates_beyond_the_limit_is_413(echo: Running) -> None:
    bomb = gzip.compress(bytes(MAX_BODY + 1), 1)

    answer = httpx.post(f"{echo.rest}/v2/models/half/infer", content=bomb, headers={"Content-Encoding": "gzip"}, timeout=60)

    assert answer.status_code == 413
    assert httpx.get(f"{echo.rest}/v2/health/live").status_code == 200


def test_a_deadline_that_has_passed_drops_the_work(echo: Running) -> None:
    request = asked(("FP32", (1,), bytes(4)))
    request.parameters["timeout"].int64_param = 1

    with pytest.raises(grpc.RpcError) as caught:
        echo.rpc(_INFER, request.SerializeToString())

    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


# -- the repository


def test_a_model_is_unloaded_and_loaded_again(tensorflow: TensorFlow) -> None:
    with (
        running(tensorflow.python, tensorflow.models / "half" / "model") as server,
        httpx.Client(base_url=server.rest, timeout=60) as client,
    ):
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}
        index, ready = "/v2/repository/index", "/v2/models/half/ready"

        unloaded = client.post("/v2/repository/models/half/unload")
        gone, not_ready = client.post("/v2/models/half/infer", json=body), client.get(ready)
        listed = client.post(index, json={}).json()
        loaded = client.post("/v2/repository/models/half/load", json={})
        back, is_ready = client.post("/v2/models/half/infer", json=body), client.get(ready)

        assert (unloaded.status_code, loaded.status_code) == (200, 200), loaded.text
        assert (gone.status_code, not_ready.status_code) == (404, 400)
        assert gone.json() == {"error": "Request for unknown model: 'half' has no available versions"}
        assert [it["name"] for it in listed] == ["half"]
        assert [it.get("state") for it in listed] != ["READY"]
        assert back.json()["outputs"][0]["data"] == [2.5]
        assert is_ready.status_code == 200
        assert [it["state"] for it in client.post(index, json={"ready": True}).json()] == ["READY"]
