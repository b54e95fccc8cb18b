"""The Open Inference Protocol over REST, on models that answer with what they are asked."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from typing import Any

import pytest

from services.serving.model_server.errors import DEADLINE_EXCEEDED, INTERNAL, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNAVAILABLE, ServeError
from services.serving.model_server.served import State, VersionStatus
from services.serving.model_server.v2_rest import HEADER_LENGTH, status_of
from tests.unit.serving.fake_models import FakeModels
from tests.unit.serving.v2_calls import binaries, http, post, shown

_INFER = "/v2/models/echo/infer"


def an_input(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2.5], **changes}


def error(answer: Any, status: int = 400) -> str:
    assert answer.status == status, answer.body
    assert "Content-Type" not in answer.headers, "JSON goes without saying"
    found = shown(answer)
    assert found.keys() == {"error"}
    text: str = found["error"]
    return text


@pytest.mark.parametrize(
    "text",
    [
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, true]}]}',
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [false, 1.5]}]}',
        b'{"inputs": [{"data": [1.5, null], "name": "x", "datatype": "FP32", "shape": [1, 2]}]}',
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "d\\u0061ta": [1.5, true]}], "more": {"data": 1}}',
    ],
)
def test_a_word_among_numbers_is_no_number_wherever_it_stands(text: bytes) -> None:
    assert "it has elements that are no FP32" in error(http(FakeModels(), "POST", _INFER, text))


def test_json_in_and_json_out() -> None:
    answer = post(FakeModels(), _INFER, {"id": "42", "inputs": [an_input()]})

    assert answer.status == 200
    assert answer.headers == {}, "JSON goes without saying"
    assert shown(answer) == {
        "model_name": "echo",
        "model_version": "3",
        "id": "42",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.5]}],
    }


def test_without_an_id_none_is_invented() -> None:
    assert "id" not in shown(post(FakeModels(), _INFER, {"inputs": [an_input()]}))


def test_a_version_may_be_named_and_the_query_is_ignored() -> None:
    answer = post(FakeModels(), "/v2/models/echo/versions/3/infer?test_1=1&test_2=2", {"inputs": [an_input()]})

    assert answer.status == 200


def test_nested_lists_mean_the_same_as_flat_ones() -> None:
    answer = post(FakeModels(), _INFER, {"inputs": [an_input(shape=[2, 2], data=[[1, 2], [3, 4]])]})

    assert shown(answer)["outputs"][0]["data"] == [1, 2, 3, 4]


def test_binary_in_and_binary_out_by_output() -> None:
    sent = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    outputs = [{"name": "y", "parameters": {"binary_data": True}}]

    answer = post(FakeModels(), _INFER, {"inputs": [sent], "outputs": outputs}, struct.pack("<2f", 1, 2.5))

    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert shown(answer)["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}]
    assert binaries(answer) == [struct.pack("<2f", 1, 2.5)]


def test_an_output_may_be_json_where_all_others_are_binary() -> None:
    a = {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    n = {"name": "n", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 10}}
    request = {
        "inputs": [a, n],
        "outputs": [{"name": "n_out"}, {"name": "a_out", "parameters": {"binary_data": False}}],
        "parameters": {"signature_name": "two", "binary_data_output": True},
    }

    answer = post(FakeModels(), _INFER, request, b"\x01\x00\x00\x00a\x01\x00\x00\x00\xff")

    first, second = shown(answer)["outputs"]
    assert (first["name"], first["parameters"]) == ("n_out", {"binary_data_size": 10})
    assert (second["name"], second["data"]) == ("a_out", [1, 2])
    assert binaries(answer) == [b"\x01\x00\x00\x00a\x01\x00\x00\x00\xff"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"inputs": {}}, "Unable to parse 'inputs': it must be an array"),
        ({"inputs": [3]}, "Unable to parse an input: it must be an object"),
        ({"inputs": [{}]}, "Unable to parse 'name' of an input"),
        ({"inputs": [{"name": "x"}]}, "must specify 'data' for input 'x'"),
        ({"inputs": [an_input(data=3)]}, "Unable to parse 'data' of input 'x': it must be an array"),
        ({"inputs": [an_input(data=[1, [2]])]}, "its lists differ in depth"),
        ({"inputs": [an_input(data=[1])]}, "input 'x' got unexpected element count 1, expected 2"),
        ({"inputs": [an_input(data=["1", "2"])]}, "it has elements that are no FP32"),
        ({"inputs": [an_input(data=[True, False])]}, "it has elements that are no FP32"),
        ({"inputs": [an_input(data=[1e300, 0])]}, "it has elements beyond what FP32 holds"),
        ({"inputs": [an_input(data=[10**400, 0])]}, "it has elements beyond what FP32 holds"),
        ({"inputs": [an_input(shape=[1.0, 2])]}, "it must be an array of whole numbers"),
        ({"inputs": [an_input(shape=[True, 2])]}, "it must be an array of whole numbers"),
        ({"inputs": [an_input(shape=[2**62, 2])]}, "takes more than"),
        ({"inputs": [an_input(parameters={"binary_data_size": 8})]}, "unexpected size for input 'x', expecting 8 more bytes for model 'echo'"),
        ({"inputs": [an_input(parameters={"binary_data_size": -1})]}, "it must be a number of bytes"),
        ({"inputs": [an_input(), an_input()]}, "input 'x' already exists in request"),
        ({"outputs": [{"name": "q"}]}, "unexpected inference output 'q' for model 'echo'"),
        ({"outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}, "it must be true or false"),
        ({"id": 42}, "Unable to parse 'id': it must be a string"),
        ({"parameters": []}, "Unable to parse 'parameters': it must be an object"),
        ({"parameters": {"timeout": 1.5}}, "parameter timeout must be a whole number of microseconds"),
        ({"parameters": {"signature_name": "FP16"}, "inputs": [an_input(datatype="FP16")]}, "receiving FP16 data via JSON is not supported"),
        ({"parameters": {"signature_name": "UINT64"}, "inputs": [an_input(datatype="UINT64", data=[1, -1])]}, "beyond what UINT64 holds"),
        ({"parameters": {"signature_name": "INT8"}, "inputs": [an_input(datatype="INT8", data=[1, 128])]}, "beyond what INT8 holds"),
        ({"parameters": {"signature_name": "INT64"}, "inputs": [an_input(datatype="INT64", data=[1, 2**63])]}, "beyond what INT64 holds"),
        ({"parameters": {"signature_name": "BYTES"}, "inputs": [an_input(datatype="BYTES", data=["a", "\ud800"])]}, "beyond what BYTES holds"),
    ],
)  # fmt: skip
def test_a_request_that_does_not_fit_is_refused_with_what_is_wrong(change: dict[str, Any], text: str) -> None:
    assert text in error(post(FakeModels(), _INFER, {"inputs": [an_input()], **change}))


@pytest.mark.parametrize(
    ("body", "headers", "text"),
    [
        (b"", {}, "failed to parse the request JSON buffer"),
        (b"{", {}, "failed to parse the request JSON buffer"),
        (b"[" * 100_000, {}, "failed to parse the request JSON buffer: nested too deep"),
        (b"\xff", {}, "failed to parse the request JSON buffer"),
        (b"1" * 10_000, {}, "failed to parse the request JSON buffer"),
        (b"[]", {}, "Unable to parse the request: it must be an object"),
        (b"{}", {}, "Unable to parse 'inputs': there is no such member"),
        (b"{}", {HEADER_LENGTH: "3"}, f"{HEADER_LENGTH} is 3, and the body has 2 bytes"),
        (b"{}", {HEADER_LENGTH: "-1"}, f"Unable to parse {HEADER_LENGTH}, got: -1"),
        (b'{"inputs": []}xx', {HEADER_LENGTH: "14"}, "unexpected additional input data for model 'echo'"),
    ],
)
def test_a_body_that_is_no_request_is_refused(body: bytes, headers: dict[str, str], text: str) -> None:
    assert text in error(http(FakeModels(), "POST", _INFER, body, headers))


def test_outputs_that_json_cannot_carry_are_refused_with_what_to_do() -> None:
    half = {"name": "x", "datatype": "FP16", "shape": [1], "parameters": {"binary_data_size": 2}}
    text = {"name": "x", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}}

    no_half = post(FakeModels(), _INFER, {"inputs": [half], "parameters": {"signature_name": "FP16"}}, b"\x00\x3c")
    no_text = post(FakeModels(), _INFER, {"inputs": [text], "parameters": {"signature_name": "BYTES"}}, b"\x01\x00\x00\x00\xff")

    assert "sending FP16 data via JSON is not supported" in error(no_half)
    assert "Please use the binary data format" in error(no_text)


@pytest.mark.parametrize(
    ("accept", "unpack"), [("gzip", gzip.decompress), ("deflate", zlib.decompress), ("br, gzip;q=0.5, deflate", zlib.decompress)]
)
def test_an_answer_is_packed_if_that_is_accepted(accept: str, unpack: Any) -> None:
    request = {"inputs": [an_input(shape=[200, 2], data=[1.5] * 400)]}

    answer = post(FakeModels(), _INFER, request, headers={"Accept-Encoding": accept})

    assert answer.headers["Content-Encoding"] in accept
    assert json.loads(unpack(answer.body))["outputs"][0]["data"] == [1.5] * 400


# -- everything else


def test_health() -> None:
    models = FakeModels(ready=False)

    assert http(models, "GET", "/v2/health/live").status == 200
    assert http(models, "GET", "/v2/health/ready").status == 400
    assert http(FakeModels(), "GET", "/v2/health/ready").status == 200
    assert http(models, "GET", "/v2/models/echo/ready").status == 200
    assert http(models, "GET", "/v2/models/echo/versions/3/ready").status == 200
    assert http(models, "GET", "/v2/models/echo/versions/4/ready").status == 400
    assert http(models, "GET", "/v2/models/none/ready").status == 400
    assert shown(http(models, "GET", "/v2/health/live")) == {"live": True}
    assert shown(http(models, "GET", "/v2/health/ready")) == {"ready": False}


@pytest.mark.parametrize("target", ["/v2", "/v2/"])
def test_server_metadata(target: str) -> None:
    found = shown(http(FakeModels(), "GET", target))

    assert found.keys() == {"name", "version", "extensions"}
    assert "binary_tensor_data" in found["extensions"]


def test_model_metadata_config_and_statistics() -> None:
    models = FakeModels()

    assert shown(http(models, "GET", "/v2/models/echo/versions/3")) == {
        "name": "echo",
        "versions": ["3"],
        "platform": "tensorflow_savedmodel",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }
    config = shown(http(models, "GET", "/v2/models/echo/config"))
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 2]}]
    assert shown(http(models, "GET", "/v2/models/stats")) == shown(http(models, "GET", "/v2/models/echo/versions/3/stats"))


def test_the_repository() -> None:
    models = FakeModels(states={"my model": [VersionStatus(1, State.LOADING)]})

    everything, ready = post(models, "/v2/repository/index"), post(models, "/v2/repository/index", {"ready": True})
    loaded = http(models, "POST", "/v2/repository/models/my%20model/load")
    unloaded = post(models, "/v2/repository/models/echo/unload", {"parameters": {"unload_dependents": False}})

    assert [(it["name"], it["state"]) for it in shown(everything)] == [("echo", "READY"), ("my model", "LOADING")]
    assert [it["name"] for it in shown(ready)] == ["echo"]
    assert (loaded.status, unloaded.status) == (200, 200)
    assert models.asked == [("load", "my model"), ("unload", "echo")]
    assert "failed to load 'none'" in error(http(models, "POST", "/v2/repository/models/none/load"), 404)
    assert "'config' is not taken" in error(post(models, "/v2/repository/models/echo/load", {"parameters": {"config": "{}"}}))


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/echo/versions/9", 404),
        ("GET", "/v2/models/echo/versions/new", 400),
        ("GET", "/v2/nothing", 404),
        ("GET", _INFER, 405),
        ("POST", "/v2/health/live", 405),
        ("GET", "/v2/systemsharedmemory/status", 501),
        ("POST", "/v2/cudasharedmemory/region/a/register", 501),
        ("GET", "/v2/trace/setting", 501),
        ("POST", "/v2/models/echo/trace/setting", 501),
        ("GET", "/v2/logging", 501),
    ],
)
def test_what_there_is_not_is_told_apart(method: str, target: str, status: int) -> None:
    assert error(http(FakeModels(), method, target), status)


@pytest.mark.parametrize(
    ("code", "status"), [(INVALID_ARGUMENT, 400), (INTERNAL, 500), (UNAVAILABLE, 503), (RESOURCE_EXHAUSTED, 503), (DEADLINE_EXCEEDED, 503)]
)
def test_codes_become_tritons_statuses(code: int, status: int) -> None:
    models = FakeModels()
    models.served.failure = ServeError(code, "why")

    assert error(post(models, _INFER, {"inputs": [an_input()]}), status) == "why"


def test_a_status_that_was_chosen_stays() -> None:
    assert status_of(ServeError(RESOURCE_EXHAUSTED, "too large", http_status=413)) == 413


def test_every_inference_is_counted_with_its_code() -> None:
    models = FakeModels()

    post(models, _INFER, {"inputs": [an_input()]})
    post(models, _INFER, {"inputs": []})
    models.served.failure = RuntimeError("out of luck")
    with pytest.raises(RuntimeError):  # the front makes 500 of it
        post(models, _INFER, {"inputs": [an_input()]})

    assert models.observed == [("echo", "ModelInfer", "REST", code) for code in (0, INVALID_ARGUMENT, INTERNAL)]
