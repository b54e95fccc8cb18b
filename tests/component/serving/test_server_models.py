"""The model server with several models and versions: TensorFlow Serving's whole API, and what goes on while it serves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from deploy.local import assemble
from tests.component.serving.conftest import WIRE, Running, TensorFlow, make, predict_request, serving, tensor

pytestmark = pytest.mark.component
PREDICTION, MODEL = "/tensorflow.serving.PredictionService", "/tensorflow.serving.ModelService"
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


@dataclass
class Fleet:
    """A server, the folders that it serves, and the list of models that it was told last."""

    server: Running
    saved: Path
    root: Path
    list_file: Path

    def put(self, what: str, model: str, version: int) -> None:
        """At once, as whoever publishes a version should."""
        (self.root / model).mkdir(parents=True, exist_ok=True)
        beside = self.root / f"{model}-{version}.part"
        shutil.copytree(self.saved / what / "model", beside)
        beside.rename(self.root / model / str(version))

    def config(self, model: str, more: str = "") -> str:
        return f'config {{ name: "{model}" base_path: "{self.root / model}" model_platform: "tensorflow" {more} }}'

    def reload(self, *configs: str) -> Any:
        request = WIRE.ReloadConfigRequest()
        from google.protobuf import text_format

        text_format.Parse(f"config {{ model_config_list {{ {' '.join(configs)} }} }}", request)
        return WIRE.ReloadConfigResponse.FromString(self.server.rpc(f"{MODEL}/HandleReloadConfigRequest", request.SerializeToString(), 90))

    def usual(self) -> list[str]:
        labels = 'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 }'
        return [
            self.config("half", f"model_version_policy {{ all {{}} }} {labels}"),
            self.config("examples"),
            self.config("lite"),
        ]

    def answers(self, model: str = "half", where: str = "", x: float = 1.0) -> Any:
        answer = httpx.post(f"{self.server.rest}/v1/models/{model}{where}:predict", json={"instances": [x]}, timeout=30)
        return answer.json()["predictions"][0] if answer.status_code == 200 else answer.json()["error"]

    def states(self, model: str) -> dict[str, str]:
        told = httpx.get(f"{self.server.rest}/v1/models/{model}", timeout=30).json()
        return {it["version"]: it["state"] for it in told.get("model_version_status", [])}

    def refused(self, method: str, request: Any) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            self.server.rpc(method, request.SerializeToString())
        return caught.value.code(), caught.value.details() or ""


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about within 60 s"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def fleet(tensorflow: TensorFlow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    root = tmp_path_factory.mktemp("fleet")
    made = Fleet(None, tensorflow.models, root / "models", root / "models.config")  # type: ignore[arg-type]
    for what, model, version in [("half", "half", 1), ("half-3", "half", 2), ("examples", "examples", 7), ("lite", "lite", 1)]:
        made.put(what, model, version)
    made.list_file.write_text(f"model_config_list {{ {' '.join(made.usual())} }}")
    monitoring = root / "monitoring.config"
    monitoring.write_text('prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }')
    options = [
        f"--model_config_file={made.list_file}",
        "--model_config_file_poll_wait_seconds=0.1",
        f"--monitoring_config_file={monitoring}",
    ]
    options += ["--file_system_poll_wait_seconds=0.1", "--max_num_load_retries=0", f"--grpc_socket_path={root / 'grpc.sock'}"]
    with serving(tensorflow.python, *options) as server:
        made.server = server
        until(lambda: set(made.states("half").values()) == {"AVAILABLE"} and len(made.states("half")) == 2)
        yield made


def test_versions_and_labels_choose_and_the_newest_is_meant_otherwise(fleet: Fleet) -> None:
    assert fleet.answers() == 3.5
    assert fleet.answers(where="/versions/1") == fleet.answers(where="/labels/stable") == 2.5
    assert fleet.answers(where="/labels/canary") == 3.5
    assert fleet.answers(where="/labels/nope") == "Unrecognized servable version label: nope"
    assert fleet.answers(where="/versions/3") == "Servable not found for request: Specific(half, 3)"
    assert fleet.answers(where="/versions/99999999999999999999") == "Failed to convert version: 99999999999999999999 to numeric."
    labelled = predict_request({"x": tensor(1, [1], float_val=[1.0])})
    labelled.model_spec.version_label = "stable"
    assert fleet.server.ask(labelled).model_spec.version.value == 1


def test_a_tflite_file_is_served_like_a_saved_model(fleet: Fleet) -> None:
    assert fleet.answers("lite") == 2.5
    assert fleet.answers("lite", x=4.0) == 4.0


def test_the_status_tells_of_each_version(fleet: Fleet) -> None:
    available = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    rest = fleet.server.rest

    assert httpx.get(f"{rest}/v1/models/half").json() == {
        "model_version_status": [{"version": "2", **available}, {"version": "1", **available}]
    }
    assert httpx.get(f"{rest}/v1/models/half/labels/stable").json() == {"model_version_status": [{"version": "1", **available}]}
    for path, text in [
        ("half/versions/3", "Could not find version 3 of model half"),
        ("other", "Could not find any versions of model other"),
    ]:
        assert (httpx.get(f"{rest}/v1/models/{path}").status_code, httpx.get(f"{rest}/v1/models/{path}").json()) == (404, {"error": text})
    assert httpx.get(f"{rest}/v1/models").json() == {"error": "Missing model name in request."}
    request = WIRE.GetModelStatusRequest()
    assert fleet.refused(f"{MODEL}/GetModelStatus", request) == (INVALID, "Missing ModelSpec")
    request.model_spec.name = "other"
    assert fleet.refused(f"{MODEL}/GetModelStatus", request) == (NOT_FOUND, "Could not find any versions of model other")


def _examples(*values: float) -> Any:
    made = WIRE.ClassificationRequest().input
    for value in values:
        made.example_list.examples.add().features.feature["x"].float_list.value.append(value)
    return made


def test_examples_are_classified(fleet: Fleet) -> None:
    request = WIRE.ClassificationRequest(input=_examples(0.0, -4.0))
    request.model_spec.name = "examples"

    answer = WIRE.ClassificationResponse.FromString(fleet.server.rpc(f"{PREDICTION}/Classify", request.SerializeToString()))

    rows = [[(it.label, it.score) for it in row.classes] for row in answer.result.classifications]
    assert rows == [[("low", -1.0), ("high", 2.0)], [("low", 1.0), ("high", 0.0)]]
    assert (answer.model_spec.version.value, answer.model_spec.signature_name) == (7, "serving_default")


def test_examples_are_given_values_and_share_a_context(fleet: Fleet) -> None:
    request = WIRE.RegressionRequest()
    request.model_spec.name, request.model_spec.signature_name = "examples", "value"
    request.input.example_list_with_context.context.features.feature["x"].float_list.value.append(4.0)
    request.input.example_list_with_context.examples.add()
    request.input.example_list_with_context.examples.add()

    answer = WIRE.RegressionResponse.FromString(fleet.server.rpc(f"{PREDICTION}/Regress", request.SerializeToString()))

    assert [it.value for it in answer.result.regressions] == [4.0, 4.0]


def _multi(*tasks: tuple[str, str, str]) -> Any:
    request = WIRE.MultiInferenceRequest(input=_examples(2.0))
    for model, signature, method in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = model, signature
    return request


def test_several_signatures_answer_one_request(fleet: Fleet) -> None:
    request = _multi(("examples", "value", "regress"), ("examples", "scores", "classify"))

    answer = WIRE.MultiInferenceResponse.FromString(fleet.server.rpc(f"{PREDICTION}/MultiInference", request.SerializeToString()))

    first, second = answer.results
    assert [it.value for it in first.regression_result.regressions] == [3.0]
    assert [it.score for it in second.classification_result.classifications[0].classes] == [-2.0, 3.0]
    assert (first.model_spec.signature_name, second.model_spec.signature_name) == ("value", "scores")


def test_what_cannot_be_classified_is_refused_as_tensorflow_serving_does(fleet: Fleet) -> None:
    def classify(model: str, signature: str, examples: Any) -> tuple[grpc.StatusCode, str]:
        request = WIRE.ClassificationRequest(input=examples)
        request.model_spec.name, request.model_spec.signature_name = model, signature
        return fleet.refused(f"{PREDICTION}/Classify", request)

    wrong = "Expected classification signature method_name to be tensorflow/serving/classify. Was: tensorflow/serving/"
    assert classify("examples", "", _examples()) == (INVALID, "Input is empty.")
    assert classify("examples", "nope", _examples(1.0)) == (INVALID, "No signature was found with the name: nope")
    assert classify("examples", "value", _examples(1.0)) == (INVALID, f"{wrong}regress")
    assert classify("half", "", _examples(1.0)) == (INVALID, f"{wrong}predict")
    assert classify("", "", _examples(1.0)) == (INVALID, "ModelSpec has no name specified.")
    assert classify("nope", "", _examples(1.0)) == (NOT_FOUND, "Servable not found for request: Latest(nope)")
    multi = f"{PREDICTION}/MultiInference"
    twice = _multi(("examples", "value", "regress"), ("examples", "value", "regress"))
    assert fleet.refused(multi, twice) == (INVALID, "Duplicate evaluation of signature: value")
    two = _multi(("examples", "value", "regress"), ("half", "value", "regress"))
    assert fleet.refused(multi, two) == (INVALID, "All ModelSpecs in a MultiInferenceRequest must access the same model name.")
    other = _multi(("examples", "value", "predict"))
    assert fleet.refused(multi, other)[0] == grpc.StatusCode.UNIMPLEMENTED


def test_examples_come_as_json_too(fleet: Fleet) -> None:
    def ask(verb: str, body: Any) -> tuple[int, Any]:
        answer = httpx.post(f"{fleet.server.rest}/v1/models/examples:{verb}", json=body, timeout=30)
        return answer.status_code, answer.json()

    assert ask("classify", {"examples": [{"x": 0.0}, {"x": [-4.0]}]}) == (
        200,
        {"results": [[["low", -1.0], ["high", 2.0]], [["low", 1.0], ["high", 0.0]]]},
    )
    assert ask("regress", {"signature_name": "value", "context": {"x": 1.2}, "examples": [{}, {}]}) == (200, {"results": [2.6, 2.6]})
    for body, text in [
        ({}, "key 'examples' is expected and was not found"),
        ({"examples": {}}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
        ({"examples": [{"x": None}]}, "Feature: x has element with unexpected JSON type: Null"),
        ({"examples": [{"x": [1.0, "a"]}]}, "Unexpected element type in feature: x expecting type: float"),
        ({"examples": [{"x": 1 << 63}]}, "Feature: x has uint64 element. Only int64 is supported."),
        ({"examples": [{"x": 1.0}], "signature_name": "value"}, "Expected classification signature method_name"),
    ]:
        status, answer = ask("classify", body)
        assert (status, text in answer["error"]) == (400, True), answer


def test_the_metadata_is_what_tensorflow_has_and_the_same_over_rest(fleet: Fleet) -> None:
    request = WIRE.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "examples"
    answer = WIRE.GetModelMetadataResponse.FromString(fleet.server.rpc(f"{PREDICTION}/GetModelMetadata", request.SerializeToString()))
    signatures = WIRE.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)

    value = signatures.signature_def["value"]
    shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    assert (value.method_name, value.inputs["inputs"].name, value.outputs["outputs"].dtype) == (
        "tensorflow/serving/regress",
        "tf_example:0",
        1,
    )
    told = httpx.get(f"{fleet.server.rest}/v1/models/examples/metadata").json()
    assert told["model_spec"] == {"name": "examples", "signature_name": "", "version": "7"}
    assert told["metadata"]["signature_def"]["signature_def"]["value"] == {
        "inputs": {"inputs": {"dtype": "DT_STRING", "tensor_shape": shape, "name": "tf_example:0"}},
        "outputs": {"outputs": {"dtype": "DT_FLOAT", "tensor_shape": shape, "name": value.outputs["outputs"].name}},
        "method_name": "tensorflow/serving/regress",
        "defaults": {},
    }
    assert "__saved_model_init_op" in httpx.get(f"{fleet.server.rest}/v1/models/half/metadata").text
    lite = httpx.get(f"{fleet.server.rest}/v1/models/lite/metadata").json()["metadata"]["signature_def"]["signature_def"]
    assert lite["serving_default"]["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert fleet.refused(f"{PREDICTION}/GetModelMetadata", WIRE.GetModelMetadataRequest()) == (INVALID, "Missing ModelSpec")
    del request.metadata_field[:]
    assert fleet.refused(f"{PREDICTION}/GetModelMetadata", request)[1] == "GetModelMetadataRequest must specify at least one metadata_field"


def test_a_version_that_comes_and_goes_costs_no_call(fleet: Fleet) -> None:
    fleet.put("half", "moving", 1)
    fleet.reload(*fleet.usual(), fleet.config("moving"))
    done, answers = threading.Event(), list[Any]()

    def call() -> None:
        with httpx.Client(base_url=fleet.server.rest, timeout=30) as client:
            while not done.is_set():
                answers.append(client.post("/v1/models/moving:predict", json={"instances": [1.0]}).json().get("predictions"))

    caller = threading.Thread(target=call)
    caller.start()
    fleet.put("half-3", "moving", 2)
    until(lambda: fleet.states("moving") == {"2": "AVAILABLE", "1": "END"})
    shutil.rmtree(fleet.root / "moving" / "2")
    until(lambda: fleet.states("moving") == {"2": "END", "1": "AVAILABLE"})
    done.set()
    caller.join(30)

    assert {tuple(it) for it in answers} == {(2.5,), (3.5,)}
    fleet.reload(*fleet.usual())


def test_the_list_is_read_again_when_it_changes(fleet: Fleet) -> None:
    fleet.put("half", "listed", 1)
    usual = fleet.list_file.read_text()

    fleet.list_file.write_text(f"model_config_list {{ {' '.join([*fleet.usual(), fleet.config('listed')])} }}")
    until(lambda: fleet.answers("listed") == 2.5)
    fleet.list_file.write_text(usual)
    until(lambda: fleet.answers("listed") == "Servable not found for request: Latest(listed)")

    assert fleet.answers() == 3.5


@pytest.mark.parametrize(
    ("what", "operation"),
    [
        ("reader", "its graph has the operation ReadFile"),
        ("reader-text", "its graph has the operation ReadFile"),
        ("stand-in", "its graph has the operation ReadFile"),
        ("writer", "its graph has the operation DebugIdentity"),
        ("mapper", "its graph has the operation ImmutableConst"),
        ("python", "its graph has the operation EagerPyFunc"),
        ("filler", "its graph has the operation InitializeTableFromTextFileV2"),
        ("flex", "it has the flex operator FlexAsString"),
        ("custom", "it has the custom operator HandMadeThis"),
    ],
)
def test_a_model_that_reads_or_writes_files_or_runs_python_is_refused_with_the_operation_named(
    fleet: Fleet, what: str, operation: str
) -> None:
    fleet.put(what, what, 1)

    with pytest.raises(grpc.RpcError) as caught:
        fleet.reload(*fleet.usual(), fleet.config(what))

    assert operation in (caught.value.details() or "")
    assert fleet.states(what) == {"1": "END"}
    assert fleet.answers() == 3.5
    fleet.reload(*fleet.usual())


def test_a_model_with_a_vocabulary_of_its_own_is_served(fleet: Fleet) -> None:
    fleet.put("vocabulary", "vocabulary", 1)
    fleet.reload(*fleet.usual(), fleet.config("vocabulary"))

    answer = httpx.post(f"{fleet.server.rest}/v1/models/vocabulary:predict", json={"instances": ["one", "zero", "two"]}, timeout=30)

    assert answer.json() == {"predictions": [1, 0, -1]}
    fleet.reload(*fleet.usual())


def test_a_list_that_cannot_be_followed_is_refused_and_what_is_served_stays(fleet: Fleet) -> None:
    def refusal(*configs: str) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            fleet.reload(*configs)
        return caught.value.code(), caught.value.details() or ""

    wrong_label = fleet.config("half", 'version_labels { key: "stable" value: 9 }')
    assert refusal(wrong_label)[0] == grpc.StatusCode.FAILED_PRECONDITION
    assert refusal(fleet.config("half"), fleet.config("half")) == (INVALID, "Illegal to list model half multiple times in config list")
    assert refusal('config { name: "half" base_path: "/x" model_platform: "onnx" }')[0] == INVALID
    assert refusal(f'config {{ name: "half" base_path: "{fleet.root}" model_platform: "tflite" }}')[0] == INVALID
    assert refusal('config { name: "x" base_path: "x" model_platform: "tensorflow" }')[0] == INVALID
    with pytest.raises(grpc.RpcError) as caught:
        fleet.server.rpc(f"{MODEL}/HandleReloadConfigRequest", b"")
    assert "Only ModelConfigList is currently supported" in (caught.value.details() or "")
    assert (fleet.answers(), fleet.answers(where="/labels/stable")) == (3.5, 2.5)


def test_metrics_tell_requests_latencies_batches_versions_and_memory(fleet: Fleet) -> None:
    fleet.answers()
    fleet.answers(where="/versions/9")

    told = httpx.get(f"{fleet.server.rest}/metrics")
    text = told.text

    assert told.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert ':tensorflow:serving:request_count{model_name="half",status="OK"} ' in text
    assert ':tensorflow:serving:request_count{model_name="half",status="NOT_FOUND"} ' in text
    for line in [
        ':tensorflow:serving:request_latency_bucket{model_name="half",API="Predict",entrypoint="REST",le="10"} ',
        ':tensorflow:serving:request_latency_count{model_name="half",API="Predict",entrypoint="REST"} ',
        ':tensorflow:serving:runtime_latency_count{model_name="half",version="2"} ',
        'trainyard_serving_queue_latency_count{model_name="half",version="2"} ',
        'trainyard_serving_batches_total{model_name="half",version="2",size="1"} ',
        'trainyard_serving_loaded_versions{model_name="half"} 2',
        "trainyard_serving_ready 1",
        "process_resident_memory_bytes ",
    ]:
        assert line in text, line
    assert httpx.get(f"{fleet.server.rest}/monitoring/prometheus/metrics").text.startswith("# TYPE :tensorflow:serving:request_count")


def test_a_unix_socket_serves_as_the_port_does(fleet: Fleet) -> None:
    request = predict_request({"x": tensor(1, [1], float_val=[1.0])}).SerializeToString()

    with grpc.insecure_channel(f"unix:{fleet.list_file.parent / 'grpc.sock'}") as channel:
        answer = channel.unary_unary(f"{PREDICTION}/Predict", bytes, bytes)(request, timeout=30)

    assert list(WIRE.PredictResponse.FromString(answer).outputs["y"].float_val) == [3.5]


def test_reflection_tells_what_is_offered(fleet: Fleet) -> None:
    request_class, response_class = (WIRE.message(f"grpc.reflection.v1alpha.ServerReflection{kind}") for kind in ("Request", "Response"))
    asked = [request_class(list_services="*"), request_class(file_containing_symbol="tensorflow.serving.PredictionService"),
             request_class(file_by_filename="nope.proto")]  # fmt: skip

    with grpc.insecure_channel(fleet.server.grpc_address) as channel:
        call = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", None, response_class.FromString)
        services, files, missing = list(call(iter([it.SerializeToString() for it in asked]), timeout=30))

    names = [it.name for it in services.list_services_response.service]
    assert {"tensorflow.serving.PredictionService", "tensorflow.serving.ModelService", "grpc.health.v1.Health"} <= set(names)
    assert any(b"tensorflow_serving/apis/predict.proto" in it for it in files.file_descriptor_response.file_descriptor_proto)
    assert missing.error_response.error_code == 5


def test_a_call_whose_deadline_has_passed_is_not_run(fleet: Fleet) -> None:
    """The threads are kept busy, so that it waits for its turn until nobody waits for it any more."""
    count = predict_request({"n": tensor(9, [], int64_val=[300_000])}, "count").SerializeToString()
    with grpc.insecure_channel(fleet.server.grpc_address) as channel:
        call = channel.unary_unary(f"{PREDICTION}/Predict", bytes, bytes)
        busy = [call.future(count, timeout=300) for _ in range(8)]
        with pytest.raises(grpc.RpcError) as caught:
            call(count, timeout=0.001)
        assert all(it.result() for it in busy)

    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Fleet, Path], Any]:
    """Runs PyPI's stubs of TensorFlow Serving, untouched, on the newest line of TensorFlow: what they heard."""
    (packages,) = assemble.tools("serving-api").glob("lib/python*/site-packages")
    python = make("2.21", tmp_path_factory.mktemp("models-of-stubs-")).python

    def run(fleet: Fleet, folder: Path) -> Any:
        command = [str(it) for it in (python, Path(__file__).with_name("stub_client.py"), fleet.server.grpc_address, folder)]
        done = subprocess.run(command, capture_output=True, text=True, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(packages)})
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_the_stubs_of_pypi_hear_what_tensorflow_serving_would_say(
    fleet: Fleet, stubs: Callable[[Fleet, Path], Any], tmp_path: Path
) -> None:
    heard = stubs(fleet, tmp_path)

    assert heard["predict"] == [2, [3.5, 5.0]]
    assert heard["label"] == [1, [2.5]]
    assert heard["signature"] == ["FAILED_PRECONDITION", 'Serving signature key "nope" not found.']
    assert heard["unknown"] == ["NOT_FOUND", "Servable not found for request: Latest(nope)"]
    assert heard["classify"] == [["low", -1.0], ["high", 2.0]]
    assert heard["regress"] == [2.0, 3.0]
    assert heard["multi"] == 3.0
    assert {"__saved_model_init_op", "serving_default", "kinds"} <= set(heard["metadata"])
    assert heard["status"] == [[2, 30, 0], [1, 30, 0]]
    assert heard["reload"][0] == "INVALID_ARGUMENT"

    _warms_up_by_what_they_wrote(fleet, tmp_path)


def _warms_up_by_what_they_wrote(fleet: Fleet, records: Path) -> None:
    for name, version in (("good", 1), ("bad", 2)):
        fleet.put("half", "warm", version)
        (fleet.root / "warm" / str(version) / "assets.extra").mkdir()
        shutil.copy(records / name, fleet.root / "warm" / str(version) / "assets.extra" / "tf_serving_warmup_requests")
    policy = "model_version_policy { specific { versions: %d } }"

    fleet.reload(*fleet.usual(), fleet.config("warm", policy % 1))
    assert fleet.answers("warm") == 2.5
    fleet.reload(*fleet.usual(), fleet.config("warm", policy % 2))
    (told,) = until(lambda: [it for it in _status(fleet, "warm") if it["state"] == "END"])

    assert 'Serving signature key "nope" not found.' in told["status"]["error_message"]
    assert fleet.answers("warm") == 2.5
    fleet.reload(*fleet.usual())


def _status(fleet: Fleet, model: str) -> Any:
    return httpx.get(f"{fleet.server.rest}/v1/models/{model}").json()["model_version_status"]
