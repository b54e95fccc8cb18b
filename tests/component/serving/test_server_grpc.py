"""The model server over gRPC, as TensorFlow Serving's clients know it."""

from __future__ import annotations

import json
import struct
from typing import Any

import grpc
import numpy as np
import pytest

from tests.component.serving.conftest import WIRE, Running, TensorFlow, predict_request, running, tensor
from trainyard._errors import WebserviceException
from trainyard._inference import predict as sdk_predict

pytestmark = pytest.mark.component
FLOAT, INT32, STRING, INT64, COMPLEX64, HALF, BFLOAT16 = 1, 3, 7, 9, 8, 19, 14
_X = tensor(FLOAT, [2], float_val=[1.0, 4.0])


def refused(server: Running, request: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        server.ask(request)
    return caught.value.code(), caught.value.details() or ""


def test_typed_values_are_answered_with_typed_values_and_the_real_version(server: Running) -> None:
    answer = server.predict(x=_X)

    assert list(answer.outputs["y"].float_val) == [2.5, 4.0]
    assert [dim.size for dim in answer.outputs["y"].tensor_shape.dim] == [2]
    assert answer.outputs["y"].dtype == FLOAT
    assert not answer.outputs["y"].tensor_content
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("half", 3)
    assert answer.model_spec.signature_name == "serving_default"


def test_raw_content_means_the_same_as_typed_values(server: Running) -> None:
    answer = server.predict(x=tensor(FLOAT, [2], tensor_content=struct.pack("<2f", 1.0, 4.0)))

    assert list(answer.outputs["y"].float_val) == [2.5, 4.0]


def test_a_short_list_repeats_its_last_value_and_none_means_zeros(server: Running) -> None:
    repeated = server.predict(x=tensor(FLOAT, [3], float_val=[2.0, 6.0]))
    zeros = server.predict(x=tensor(FLOAT, [2]))
    none = server.predict(x=tensor(FLOAT, [0]))

    assert list(repeated.outputs["y"].float_val) == [3.0, 5.0, 5.0]
    assert list(zeros.outputs["y"].float_val) == [2.0, 2.0]
    assert list(none.outputs["y"].float_val) == []


def test_strings_and_int64_go_in_and_come_out(server: Running) -> None:
    inputs = {"s": tensor(STRING, [2], string_val=[b"a", b"\xff\x00"]), "n": tensor(INT64, [2], int64_val=[1, 1 << 40])}

    answer = server.ask(predict_request(inputs, "tag"))

    assert list(answer.outputs["text"].string_val) == [b"a1", b"\xff\x001099511627776"]
    assert list(answer.outputs["raw_bytes"].string_val) == [b"a", b"\xff\x00"]
    assert list(answer.outputs["twice"].int64_val) == [2, 1 << 41]
    assert answer.model_spec.signature_name == "tag"


def test_strings_packed_into_raw_content_are_read_as_tensorflow_packs_them(server: Running) -> None:
    inputs = {"s": tensor(STRING, [2], tensor_content=b"\x01\x03abcd"), "n": tensor(INT64, [2], int64_val=[7, 8])}

    answer = server.ask(predict_request(inputs, "tag"))

    assert list(answer.outputs["text"].string_val) == [b"a7", b"bcd8"]


def test_every_type_of_number_comes_back_as_it_went_in(server: Running) -> None:
    sent = {
        "float64": tensor(2, [1], double_val=[0.1]),
        "int8": tensor(6, [1], int_val=[-128]),
        "int16": tensor(5, [1], int_val=[-32768]),
        "int32": tensor(INT32, [1], int_val=[-(1 << 31)]),
        "uint8": tensor(4, [1], int_val=[255]),
        "uint16": tensor(17, [1], int_val=[65535]),
        "uint32": tensor(22, [1], uint32_val=[(1 << 32) - 1]),
        "uint64": tensor(23, [1], uint64_val=[(1 << 64) - 1]),
        "bool": tensor(10, [1], bool_val=[True]),
        "complex64": tensor(COMPLEX64, [1], scomplex_val=[1.5, -2.0]),
        "half": tensor(HALF, [1], half_val=[0x3E00]),
        "bfloat16": tensor(BFLOAT16, [1], half_val=[0x3FC0]),
    }
    aliases = _kinds(server)

    answer = server.ask(predict_request({aliases[name]: value for name, value in sent.items()}, "kinds"))

    assert {name: answer.outputs[f"out_{name}"] for name in sent} == sent


def _kinds(server: Running) -> dict[str, str]:
    """TensorFlow names the positional inputs of `kinds` as it likes; their types tell which is which."""
    import httpx

    names = {"DT_DOUBLE": "float64"}
    signature = httpx.get(f"{server.rest}/v1/models/half/metadata").json()["metadata"]["signature_def"]["signature_def"]["kinds"]
    return {names.get(it["dtype"], it["dtype"][3:].lower()): alias for alias, it in signature["inputs"].items()}


def test_an_output_filter_chooses_the_outputs(server: Running) -> None:
    inputs = {"s": tensor(STRING, [1], string_val=[b"a"]), "n": tensor(INT64, [1], int64_val=[1])}
    request = predict_request(inputs, "tag")
    request.output_filter.extend(["twice", "text"])

    answer = server.ask(request)

    assert sorted(answer.outputs) == ["text", "twice"]
    assert list(answer.outputs["text"].string_val) == [b"a1"]
    assert list(answer.outputs["twice"].int64_val) == [2]


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (["z"], "output tensor alias not found in signature: z Outputs expected to be in the set {y}."),
        (["y", "y"], "duplicate output tensor alias: y"),
    ],
)
def test_an_output_filter_that_cannot_be_met_is_refused(server: Running, wanted: list[str], text: str) -> None:
    request = predict_request({"x": _X})
    request.output_filter.extend(wanted)

    assert refused(server, request) == (grpc.StatusCode.INVALID_ARGUMENT, text)


def test_which_model_is_meant_decides_the_code_and_text(server: Running) -> None:
    def asked(**spec: Any) -> Any:
        request = predict_request({"x": _X}, model=spec.pop("name", "half"))
        if "version" in spec:
            request.model_spec.version.value = spec["version"]
        request.model_spec.version_label = spec.get("label", "") if "label" in spec else request.model_spec.version_label
        request.model_spec.signature_name = spec.get("signature", "")
        return request

    right = predict_request({"x": _X})
    right.model_spec.version.value = 3
    assert list(server.ask(right).outputs["y"].float_val) == [2.5, 4.0]
    assert refused(server, asked(name="")) == (grpc.StatusCode.INVALID_ARGUMENT, "ModelSpec has no name specified.")
    assert refused(server, asked(name="other")) == (grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(other)")
    assert refused(server, asked(label="stable")) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Unrecognized servable version label: stable",
    )
    assert refused(server, asked(signature="nope")) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        'Serving signature key "nope" not found.',
    )


@pytest.mark.parametrize("version", [0, 2, 4])
def test_another_version_is_not_found(server: Running, version: int) -> None:
    request = predict_request({"x": _X})
    request.model_spec.version.value = version

    assert refused(server, request) == (grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Specific(half, {version})")


def test_inputs_that_are_missing_or_too_many_are_named(server: Running) -> None:
    missing = refused(server, predict_request({}))
    extra = refused(server, predict_request({"x": _X, "z": _X}))
    other = refused(server, predict_request({"z": _X}))

    text = "input size does not match signature: "
    assert missing == (
        grpc.StatusCode.INVALID_ARGUMENT,
        f"{text}0!=1 len({{}}) != len({{x}}). Sent extra: {{}}. Missing but required: {{x}}.",
    )
    assert extra == (
        grpc.StatusCode.INVALID_ARGUMENT,
        f"{text}2!=1 len({{x,z}}) != len({{x}}). Sent extra: {{z}}. Missing but required: {{}}.",
    )
    assert other == (
        grpc.StatusCode.INVALID_ARGUMENT,
        f"{text}1!=1 len({{z}}) != len({{x}}). Sent extra: {{z}}. Missing but required: {{x}}.",
    )


def test_a_wrong_type_is_named_as_tensorflow_names_it(server: Running) -> None:
    number = refused(server, predict_request({"x": tensor(INT32, [1], int_val=[1])}))
    text = refused(server, predict_request({"x": tensor(STRING, [1], string_val=[b"1"])}))

    assert number == (grpc.StatusCode.INVALID_ARGUMENT, "Type mismatch: actual int32 vs. expect float (input x)")
    assert text == (grpc.StatusCode.INVALID_ARGUMENT, "Type mismatch: actual string vs. expect float (input x)")


def test_a_wrong_shape_is_refused_by_the_model_itself(server: Running) -> None:
    code, text = refused(server, predict_request({"x": tensor(FLOAT, [2, 3], float_val=[1.0])}, "pairs"))

    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert text


def test_what_the_model_itself_refuses_keeps_tensorflows_code_and_words(server: Running) -> None:
    code, text = refused(server, predict_request({"x": tensor(FLOAT, [1], float_val=[-1.0])}, "positive"))

    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "only positive numbers" in text


@pytest.mark.parametrize(
    "broken",
    [
        tensor(FLOAT, [-1], float_val=[1.0]),
        tensor(FLOAT, [1 << 40], float_val=[1.0]),
        tensor(FLOAT, [1 << 32, 1 << 32], float_val=[1.0]),
        tensor(FLOAT, [1] * 300, float_val=[1.0]),
        tensor(FLOAT, [2], tensor_content=b"\x00" * 7),
        tensor(STRING, [2], tensor_content=b"\x01"),
        tensor(STRING, [1], tensor_content=b"\xff" * 20),
    ],
    ids=["negative", "huge", "overflowing", "300 dimensions", "half a float", "strings cut short", "endless length"],
)
def test_a_tensor_that_makes_no_sense_is_refused_and_the_server_lives_on(server: Running, broken: Any) -> None:
    code, text = refused(server, predict_request({"x": broken}))

    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert text.startswith("tensor parsing error: x: ")
    assert list(server.predict(x=_X).outputs["y"].float_val) == [2.5, 4.0]


def test_an_unknown_rank_and_an_unserved_type_are_refused(server: Running) -> None:
    unknown = tensor(FLOAT, [], float_val=[1.0])
    unknown.tensor_shape.unknown_rank = True

    assert refused(server, predict_request({"x": unknown}))[0] == grpc.StatusCode.INVALID_ARGUMENT
    assert refused(server, predict_request({"x": tensor(20, [1])}))[0] == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("garbage", [b"\x00", b"\xff" * 100, b"GET / HTTP/1.1\r\n\r\n", b"\x0a\xff\xff\xff\xff\x0f"])
def test_bytes_that_are_no_request_are_refused_in_words(server: Running, garbage: bytes) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.rpc("/tensorflow.serving.PredictionService/Predict", garbage)

    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "the request is no tensorflow.serving.PredictRequest"


def test_calls_that_are_not_served_are_unimplemented(server: Running) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.rpc("/tensorflow.serving.PredictionService/SessionRun", b"")

    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_health_says_serving_for_the_server_and_its_service_and_knows_no_other(server: Running) -> None:
    def check(service: str) -> int:
        request = WIRE.HealthCheckRequest(service=service).SerializeToString()
        return int(WIRE.HealthCheckResponse.FromString(server.rpc("/grpc.health.v1.Health/Check", request)).status)

    assert check("") == check("tensorflow.serving.PredictionService") == 1
    with pytest.raises(grpc.RpcError) as caught:
        check("other")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_the_sdk_reads_what_the_server_answers(server: Running) -> None:
    numbers = sdk_predict(server.grpc_address, "half", {"x": np.array([1.0, 4.0], np.float32)}, "serving_default", 30)
    lists = sdk_predict(server.grpc_address, "half", {"x": [1.0, 4.0]}, "", 30)
    tagged = sdk_predict(server.grpc_address, "half", {"s": ["a", "b"], "n": [1, 2]}, "tag", 30)

    assert numbers["y"].tolist() == lists["y"].tolist() == [2.5, 4.0]
    assert numbers["y"].dtype == np.float32
    assert tagged["text"].tolist() == [b"a1", b"b2"]
    assert tagged["twice"].tolist() == [2, 4]
    with pytest.raises(WebserviceException, match="Servable not found for request: Latest"):
        sdk_predict(server.grpc_address, "other", {"x": [1.0]}, "serving_default", 30)


def test_a_keras_model_as_exported_says_what_it_said_in_training(tensorflow: TensorFlow) -> None:
    known = json.loads((tensorflow.models / "dense" / "dense.json").read_text())

    with running(tensorflow.python, tensorflow.models / "dense" / "model") as server:
        alias = _only_input(server)
        answer = sdk_predict(server.grpc_address, "half", {alias: np.array(known["x"], np.float32)}, "serving_default", 30)

    (values,) = answer.values()
    np.testing.assert_allclose(values, known["y"], rtol=1e-5)


def _only_input(server: Running) -> str:
    import httpx

    found = httpx.get(f"{server.rest}/v1/models/half/metadata").json()["metadata"]["signature_def"]["signature_def"]
    (alias,) = found["serving_default"]["inputs"]
    return str(alias)
