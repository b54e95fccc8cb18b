"""The model server over REST, as TensorFlow Serving's clients know it."""

from __future__ import annotations

import base64
import gzip
import json
import math
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from services.serving.model_server.http_messages import MAX_BODY
from services.serving.model_server.rest_loop import MAX_CONNECTIONS
from tests.component.serving.conftest import Running

pytestmark = pytest.mark.component
_PREDICT = "/v1/models/half:predict"


@pytest.fixture
def http(server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.rest, timeout=30) as client:
        yield client


def ask(http: httpx.Client, body: Any, path: str = _PREDICT) -> tuple[int, Any]:
    answer = http.post(path, json=body)
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, answer.json()


def error(http: httpx.Client, body: Any, path: str = _PREDICT) -> str:
    status, answer = ask(http, body, path)
    assert status == 400
    assert answer.keys() == {"error"}
    return str(answer["error"])


def test_rows_are_answered_by_row_and_columns_by_column(http: httpx.Client) -> None:
    assert ask(http, {"instances": [1.0, 4]}) == (200, {"predictions": [2.5, 4.0]})
    assert ask(http, {"instances": [{"x": 1}, {"x": 4}]}) == (200, {"predictions": [2.5, 4.0]})
    assert ask(http, {"inputs": [1.0, 4.0]}) == (200, {"outputs": [2.5, 4.0]})
    assert ask(http, {"inputs": {"x": [1.0, 4.0]}}) == (200, {"outputs": [2.5, 4.0]})


def test_several_outputs_are_objects_and_bytes_are_base64(http: httpx.Client) -> None:
    rows = ask(http, {"signature_name": "tag", "instances": [{"s": "ä", "n": 1}, {"s": {"b64": "/w=="}, "n": 2}]})
    columns = ask(http, {"signature_name": "tag", "inputs": {"s": ["a", {"b64": "Yg=="}], "n": [1, 2]}})

    assert rows == (
        200,
        {
            "predictions": [
                {"text": "ä1", "raw_bytes": {"b64": base64.b64encode("ä".encode()).decode()}, "twice": 2},
                {"text": "\ufffd2", "raw_bytes": {"b64": "/w=="}, "twice": 4},
            ]
        },
    )
    assert columns == (200, {"outputs": {"text": ["a1", "b2"], "raw_bytes": [{"b64": "YQ=="}, {"b64": "Yg=="}], "twice": [2, 4]}})


def test_a_row_of_several_numbers_is_one_instance(http: httpx.Client) -> None:
    assert ask(http, {"signature_name": "pairs", "instances": [[1, 2], [3, 4]]}) == (200, {"predictions": [21.0, 43.0]})


def test_numbers_are_written_as_short_as_they_can_be(http: httpx.Client) -> None:
    answer = http.post(_PREDICT, json={"instances": [0.2]})

    assert answer.text == '{"predictions": [2.1]}'


def test_infinity_and_nan_pass_as_in_tensorflow_serving(http: httpx.Client) -> None:
    answer = http.post(_PREDICT, content=b'{"instances": [NaN, Infinity, -Infinity]}')

    first, *rest = json.loads(answer.content)["predictions"]
    assert math.isnan(first)
    assert rest == [math.inf, -math.inf]


def test_versions_and_case_are_part_of_the_path(http: httpx.Client) -> None:
    assert ask(http, {"instances": [1]}, "/v1/models/half/versions/3:predict")[0] == 200
    assert ask(http, {"instances": [1]}, "/V1/Models/half:Predict")[0] == 200
    assert ask(http, {"instances": [1]}, "/v1/models/half:predict?debug=1")[0] == 200
    assert ask(http, {"instances": [1]}, "/v1/models/half/versions/2:predict") == (
        404,
        {"error": "Servable not found for request: Specific(half, 2)"},
    )
    assert ask(http, {"instances": [1]}, "/v1/models/other:predict") == (404, {"error": "Servable not found for request: Latest(other)"})
    assert error(http, {"instances": [1]}, "/v1/models/half/labels/stable:predict") == "Unrecognized servable version label: stable"


def test_paths_that_mean_nothing_are_refused_with_where_the_model_is(http: httpx.Client) -> None:
    assert http.post("/", json={}).status_code == 404
    assert "/v1/models/half" in http.get("/").json()["error"]
    assert http.get(_PREDICT).json() == {"error": f"Malformed request: GET {_PREDICT}"}
    assert http.post("/v1/models/half", json={}).json() == {"error": "Malformed request: POST /v1/models/half"}
    assert http.post("/v1/models/half/versions/x:predict", json={}).status_code == 400
    assert http.post("/v1/models/half:explain", json={}).status_code == 400
    assert http.put(_PREDICT, json={}).status_code == 501


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ([1], "JSON Value: Is not object"),
        ({}, "Missing 'inputs' or 'instances' key"),
        ({"inputs": [1], "instances": [1]}, "expecting only one of"),
        ({"instances": []}, "No values in 'instances' array"),
        ({"instances": 1}, "Expecting 'instances' to be a list/array"),
        ({"instances": [1], "signature_name": 7}, "'signature_name' key must be a string value."),
        ({"instances": [1], "signature_name": "nope"}, 'Serving signature name: "nope" not found in signature def'),
        ({"instances": ["one"]}, "not of expected type: float"),
        ({"instances": [None]}, "not of expected type: float"),
        ({"instances": [True]}, "not of expected type: float"),
        ({"instances": [{"b64": "AA=="}]}, "not of expected type: float"),
        ({"instances": [1e39]}, "without loss of precision"),
        ({"instances": [[1, 2], [3]], "signature_name": "pairs"}, "Encountered list at unexpected size or level"),
        ({"instances": [[1, 2], 3], "signature_name": "pairs"}, "Encountered list at unexpected size or level"),
        ({"instances": [{"x": 1}, 2]}, "Expecting object but got a value or list at item 1"),
        ({"instances": [{"x": 1}, {"z": 2}]}, "Failed to process element: 1"),
        ({"instances": [{"z": 1}]}, "does not have named input: z"),
        ({"inputs": {}}, "Missing but required: {x}"),
        ({"inputs": {"x": [1], "z": [2]}}, "does not have named input: z"),
        ({"inputs": [1], "signature_name": "tag"}, "expecting an object as multiple input tensors required"),
        ({"instances": [1], "signature_name": "tag"}, "expecting list of objects as multiple input tensors required"),
        ({"instances": [{"s": "a", "n": 1.5}], "signature_name": "tag"}, "not of expected type: int64"),
        ({"instances": [{"s": "a", "n": 1 << 63}], "signature_name": "tag"}, "without loss of precision"),
        ({"instances": [{"s": "a", "n": 1 << 64}], "signature_name": "tag"}, "not of expected type: int64"),
        ({"instances": [{"s": 1, "n": 1}], "signature_name": "tag"}, "not of expected type: string"),
        ({"instances": [{"s": {"b64": "?"}, "n": 1}], "signature_name": "tag"}, "Unable to base64 decode"),
        ({"instances": [{"s": {"b64": 1}, "n": 1}], "signature_name": "tag"}, "not of expected type: string"),
        ({"instances": [1], "signature_name": "total"}, "an output has no batch dimension"),
        ({"instances": [-1], "signature_name": "positive"}, "only positive numbers"),
    ],
)
def test_a_body_that_cannot_be_served_is_refused_in_words(http: httpx.Client, body: Any, text: str) -> None:
    assert text in error(http, body)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"nul", b"[" * 100_000, b'{"instances": ' + b"[" * 500 + b"]" * 500 + b"}", b'{"a":' * 5000]
)
def test_bytes_that_are_no_json_or_nested_too_deep_are_refused(http: httpx.Client, body: bytes) -> None:
    answer = http.post(_PREDICT, content=body)

    assert answer.status_code == 400
    assert answer.json()["error"]
    assert ask(http, {"instances": [1]})[0] == 200


def test_a_batchless_output_can_be_had_by_column(http: httpx.Client) -> None:
    assert ask(http, {"inputs": [1, 2.5], "signature_name": "total"}) == (200, {"outputs": 3.5})


def test_a_gzipped_body_is_inflated(http: httpx.Client) -> None:
    answer = http.post(_PREDICT, content=gzip.compress(b'{"instances": [1]}'), headers={"content-encoding": "gzip"})

    assert answer.json() == {"predictions": [2.5]}


@pytest.mark.parametrize(
    ("content", "encoding", "status", "text"),
    [
        (b"not gzip", "gzip", 400, "the body is not gzip"),
        (gzip.compress(b'{"instances": [1]}')[:-9], "gzip", 400, "cut short"),
        (gzip.compress(b" " * (MAX_BODY + 1)), "gzip", 413, "the inflated body exceeds"),
        (b"x", "br", 501, "Content-Encoding br is not served"),
    ],
    ids=["no gzip", "cut", "bomb", "brotli"],
)
def test_a_body_that_cannot_be_inflated_is_refused(http: httpx.Client, content: bytes, encoding: str, status: int, text: str) -> None:
    answer = http.post(_PREDICT, content=content, headers={"content-encoding": encoding})

    assert answer.status_code == status
    assert text in answer.json()["error"]


def test_health_and_readiness_have_paths_of_their_own(http: httpx.Client) -> None:
    assert (http.get("/healthz").status_code, http.get("/healthz").json()) == (200, {"status": "ok"})
    assert (http.get("/readyz").status_code, http.get("/readyz").json()) == (200, {"status": "ready"})


def test_the_status_says_which_version_is_available(http: httpx.Client) -> None:
    available = {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}

    assert http.get("/v1/models/half").json() == {"model_version_status": [available]}
    assert http.get("/v1/models/half/versions/3").json() == {"model_version_status": [available]}
    assert http.get("/v1/models/half/versions/4").status_code == 404


def test_the_metadata_names_types_and_shapes_as_tensorflow_serving_does(http: httpx.Client) -> None:
    found = http.get("/v1/models/half/metadata").json()

    assert found["model_spec"] == {"name": "half", "signature_name": "", "version": "3"}
    signatures = found["metadata"]["signature_def"]["signature_def"]
    default = signatures["serving_default"]
    assert default["method_name"] == "tensorflow/serving/predict"
    assert default["inputs"]["x"] == {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
        "name": default["inputs"]["x"]["name"],
    }
    assert {it["dtype"] for it in signatures["kinds"]["inputs"].values()} == {
        "DT_DOUBLE", "DT_INT8", "DT_INT16", "DT_INT32", "DT_UINT8", "DT_UINT16", "DT_UINT32", "DT_UINT64", "DT_BOOL", "DT_COMPLEX64",
        "DT_HALF", "DT_BFLOAT16",
    }  # fmt: skip
    assert {it["dtype"] for it in signatures["tag"]["inputs"].values()} == {"DT_STRING", "DT_INT64"}


# -- the wire itself


def talk(server: Running, sent: bytes) -> bytes:
    """Sends, and reads all until the server closes."""
    with socket.create_connection(("127.0.0.1", server.ready["rest_port"]), 30) as connection:
        connection.sendall(sent)
        answer = b""
        while block := connection.recv(65536):
            answer += block
    return answer


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/9.9\r\n\r\n", b"505"),
        (b"POST /v1/models/half:predict HTTP/1.1\r\nConnection: close\r\n\r\n", b"400"),
        (b"POST /v1/models/half:predict HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"POST /v1/models/half:predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST /v1/models/half:predict HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", b"400"),
        (b"POST /v1/models/half:predict HTTP/1.1\r\nContent-Length: 999999999999999\r\n\r\n", b"413"),
        (b"POST /v1/models/half:predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"501"),
        (b"GET /healthz HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", b"200"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET /healthz HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"431"),
    ],
    ids=[
        "nonsense",
        "version",
        "no length",
        "no number",
        "negative",
        "two lengths",
        "too long",
        "chunked",
        "GET with body",
        "path",
        "headers",
    ],
)
def test_what_is_no_clean_request_is_answered_in_json_and_the_connection_closed(server: Running, request_: bytes, status: bytes) -> None:
    head, _, body = talk(server, request_).partition(b"\r\n\r\n")

    assert head.split()[1] == status
    assert b"Connection: close" in head
    assert json.loads(body)


def test_one_connection_carries_many_requests(server: Running, http: httpx.Client) -> None:
    body = b'{"instances": [1]}'
    one = b"POST /v1/models/half:predict HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    last = one.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)

    answer = talk(server, one + one + last)

    assert answer.count(b'{"predictions": [2.5]}') == 3


def test_connections_beyond_the_limit_are_told_so_and_the_others_live_on(server: Running) -> None:
    address = ("127.0.0.1", server.ready["rest_port"])
    busy = [socket.create_connection(address, 30) for _ in range(MAX_CONNECTIONS)]
    try:
        for connection in busy:
            connection.sendall(b"GET /healthz HTTP/1.1\r\n")  # who says nothing has to go for a newcomer
        with socket.create_connection(address, 30) as full:
            answer = full.recv(65536)
        busy[0].sendall(b"Connection: close\r\n\r\n")
        served = busy[0].recv(65536)
    finally:
        for connection in busy:
            connection.close()

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"connections are open" in answer
    assert served.startswith(b"HTTP/1.1 200 ")
