"""inference.GRPCInferenceService on models that answer with what they are asked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from services.serving.model_server import v2_about
from services.serving.model_server.errors import DEADLINE_EXCEEDED, INVALID_ARGUMENT, ServeError
from services.serving.model_server.served import State, Statistics, Timing, VersionStatus
from services.serving.model_server.v2_grpc import MAX_STREAMS
from tests.unit.serving import v2_calls
from tests.unit.serving.fake_models import FakeModels
from tests.unit.serving.v2_calls import Aborted, Context, an_infer, arrays, ask, call, handler, infer

_X = np.array([[1, 2], [3, 4]], np.float32)
INVALID, NOT_FOUND, UNIMPLEMENTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED


def refusal(models: FakeModels, request: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(Aborted) as caught:
        infer(models, request)
    assert models.lent == 0
    return caught.value.code, caught.value.details


def test_an_answer_names_the_version_that_gave_it_and_the_id_of_the_request() -> None:
    models = FakeModels()

    response = infer(models, an_infer(_X, "FP32", id="42"))

    assert (response.model_name, response.model_version, response.id) == ("echo", "3", "42")
    assert [(it.name, it.datatype, list(it.shape)) for it in response.outputs] == [("y", "FP32", [2, 2])]
    assert list(response.raw_output_contents) == [_X.tobytes()]
    assert models.lent == 0


def test_outputs_come_in_the_order_in_which_they_are_wanted_and_once_each() -> None:
    request = v2_calls.INFER_REQUEST(model_name="echo", raw_input_contents=[_X.tobytes(), b"\x02\x00\x00\x00hi"])
    request.parameters["signature_name"].string_param = "two"
    request.inputs.add(name="a", datatype="FP32", shape=[2, 2])
    request.inputs.add(name="n", datatype="BYTES", shape=[1])
    for name in ("n_out", "a_out", "n_out"):
        request.outputs.add(name=name)

    found = arrays(infer(FakeModels(), request))

    assert list(found) == ["n_out", "a_out"]
    assert found["n_out"].tolist() == [b"hi"]


def test_one_output_that_has_no_typed_form_makes_the_whole_answer_raw() -> None:
    request = an_infer(np.ones(2, np.float16), "FP16", signature="FP16")
    request.outputs.add(name="y").parameters["binary_data"].bool_param = False

    response = infer(FakeModels(), request)

    assert len(response.raw_output_contents) == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda it: it.inputs[0].shape.__setitem__(1, 3), "unexpected shape for input 'x' for model 'echo'. Expected [-1,2], got [2,3]"),
        (lambda it: it.inputs[0].shape.__setitem__(0, 3), "input 'x' got unexpected byte size 16, expected 24"),
        (lambda it: it.inputs[0].shape.__setitem__(0, -1), "unexpected shape for input 'x': [-1,2]"),
        (lambda it: it.inputs[0].shape.__setitem__(0, 1 << 62), "takes more than"),
        (lambda it: setattr(it.inputs[0], "name", "z"), "unexpected inference input 'z' for model 'echo'"),
        (lambda it: setattr(it.inputs[0], "datatype", "INT32"), "inference input 'x' data-type is 'INT32', but model 'echo' expects 'FP32'"),
        (lambda it: it.inputs[0].contents.fp32_contents.append(1), "contents field must not be specified when using raw_input_contents"),
        (lambda it: it.inputs.add(name="x"), "expected 2 raw_input_contents but got 1"),
        (lambda it: (it.ClearField("inputs"), it.ClearField("raw_input_contents")), "expected 1 inputs but got 0 inputs for model 'echo'"),
        (lambda it: it.outputs.add(name="q"), "unexpected inference output 'q' for model 'echo'"),
        (lambda it: setattr(it, "model_version", "new"), "failed to get model version from specified version string 'new'"),
        (lambda it: it.parameters["signature_name"].SetInParent(), "parameter signature_name must be a string"),
        (lambda it: setattr(it.parameters["signature_name"], "string_param", "none"), "unexpected signature 'none' for model 'echo'; choose one of"),
        (lambda it: setattr(it.parameters["timeout"], "int64_param", -1), "parameter timeout must be a whole number of microseconds"),
        (lambda it: setattr(it.inputs[0].parameters["shared_memory_region"], "string_param", "r"), "input 'x' asks for shared memory"),
        (lambda it: setattr(it.outputs.add(name="y").parameters["classification"], "int64_param", 3), "asks for a classification"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_model_is_refused_in_tritons_words(change: Any, text: str) -> None:
    request = an_infer(_X, "FP32")
    change(request)

    code, details = refusal(FakeModels(), request)

    assert code == INVALID
    assert text in details


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\x05\x00\x00\x00hi", "incomplete string data for inference input 'x', expecting 3 bytes more"),
        (b"\x05\x00", "incomplete string length indicator"),
        (b"\x00\x00\x00\x00", "input 'x' got unexpected string count 1, expected 2"),
        (b"\x00\x00\x00\x00" * 9, "input 'x' got unexpected string count more than 2, expected 2"),
    ],
)
def test_raw_strings_that_do_not_add_up_are_refused(raw: bytes, text: str) -> None:
    request = v2_calls.INFER_REQUEST(model_name="echo", raw_input_contents=[raw])
    request.parameters["signature_name"].string_param = "BYTES"
    request.inputs.add(name="x", datatype="BYTES", shape=[2])

    code, details = refusal(FakeModels(), request)

    assert code == INVALID
    assert text in details


@pytest.mark.parametrize(
    ("datatype", "contents", "text"),
    [
        ("FP32", {"int64_contents": [1]}, "got unexpected int64_contents, expected fp32_contents"),
        ("FP32", {"fp32_contents": [1, 2]}, "got unexpected element count 2, expected 1"),
        ("INT8", {"int_contents": [200]}, "numbers beyond what INT8 holds"),
        ("UINT16", {"uint_contents": [70000]}, "numbers beyond what UINT16 holds"),
        ("FP16", {"fp32_contents": [1]}, "FP16 data of input 'x' must come in raw_input_contents"),
    ],
)
def test_typed_contents_that_do_not_fit_are_refused(datatype: str, contents: Any, text: str) -> None:
    request = v2_calls.INFER_REQUEST(model_name="echo")
    request.parameters["signature_name"].string_param = datatype
    request.inputs.add(name="x", datatype=datatype, shape=[1], contents=contents)

    code, details = refusal(FakeModels(), request)

    assert code == INVALID
    assert text in details


def test_any_byte_but_zero_is_true() -> None:
    request = an_infer(np.zeros(3, bool), "BOOL", signature="BOOL")
    request.raw_input_contents[0] = b"\x00\x02\xff"

    assert arrays(infer(FakeModels(), request))["y"].tolist() == [False, True, True]


def test_a_type_that_the_protocol_has_no_name_for_is_unimplemented() -> None:
    code, details = refusal(FakeModels(), an_infer(_X, "FP32", signature="complex"))

    assert code == UNIMPLEMENTED
    assert "complex64" in details


def test_models_that_do_not_answer_are_told_apart() -> None:
    models = FakeModels(
        states={
            "echo": [VersionStatus(5, State.LOADING), VersionStatus(3, State.AVAILABLE)],
            "gone": [VersionStatus(1, State.END)],
        }
    )

    def said(model: str, version: str = "") -> tuple[grpc.StatusCode, str]:
        request = an_infer(_X, "FP32", model_version=version)
        request.model_name = model
        return refusal(models, request)

    assert said("none") == (NOT_FOUND, "Request for unknown model: 'none' is not found")
    assert said("gone") == (NOT_FOUND, "Request for unknown model: 'gone' has no available versions")
    assert said("echo", "7") == (NOT_FOUND, "Request for unknown model: 'echo' version 7 is not found")
    assert said("echo", "5")[0] == grpc.StatusCode.UNAVAILABLE
    assert said("echo", "5")[1].startswith("Request for unknown model: 'echo' version 5 is not at ready state")


def test_what_the_model_says_of_its_input_is_passed_on() -> None:
    models = FakeModels()
    models.served.failure = ServeError(INVALID_ARGUMENT, "only positive numbers")

    assert refusal(models, an_infer(_X, "FP32")) == (INVALID, "only positive numbers")


def test_a_fault_of_ours_is_internal_and_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    models = FakeModels()
    models.served.failure = RuntimeError("out of luck")

    assert refusal(models, an_infer(_X, "FP32")) == (grpc.StatusCode.INTERNAL, "RuntimeError: out of luck")
    assert "Traceback" in capsys.readouterr().err


def test_the_earlier_of_the_calls_deadline_and_the_parameter_timeout_counts() -> None:
    models = FakeModels()
    request = an_infer(_X, "FP32")
    infer(models, request)
    infer(models, request, Context(remaining=1000.0))
    request.parameters["timeout"].int64_param = 10_000_000
    infer(models, request, Context(remaining=1000.0))

    none, long, short = models.served.deadlines
    assert none is None
    assert long is not None
    assert short is not None
    assert short + 900 < long < time.monotonic() + 1001


# -- streams


def test_a_stream_answers_each_request_in_its_place_and_outlives_a_wrong_one() -> None:
    wrong = an_infer(_X, "FP32", id="b")
    wrong.model_name = "none"
    requests = [an_infer(_X, "FP32", id="a"), wrong, an_infer(_X, "FP32", id="c")]

    answers = list(
        handler(FakeModels(), "ModelStreamInfer").stream_stream(iter([it.SerializeToString() for it in requests] + [b"\xff"]), Context())
    )

    assert [it.infer_response.id for it in answers] == ["a", "b", "c", ""]
    assert [it.error_message for it in answers][:3] == ["", "Request for unknown model: 'none' is not found", ""]
    assert answers[3].error_message == "the request is no inference.ModelInferRequest"


def test_streams_beyond_the_limit_are_told_so_until_one_ends() -> None:
    found = handler(FakeModels(), "ModelStreamInfer")
    raw = an_infer(_X, "FP32").SerializeToString()

    def opened() -> Iterator[Any]:
        stream: Iterator[Any] = found.stream_stream(iter([raw, raw]), Context())
        next(stream)
        return stream

    streams = [opened() for _ in range(MAX_STREAMS)]
    with pytest.raises(Aborted) as caught:
        opened()
    list(streams[0])

    assert caught.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert next(opened()).error_message == ""


# -- what is told


def test_health() -> None:
    models = FakeModels(ready=False)
    models.states["echo"].append(VersionStatus(1, State.UNLOADING))

    assert ask(models, "ServerLive").live
    assert not ask(models, "ServerReady").ready
    assert ask(models, "ModelReady", name="echo").ready
    assert ask(models, "ModelReady", name="echo", version="3").ready
    assert not ask(models, "ModelReady", name="echo", version="1").ready
    assert not ask(models, "ModelReady", name="none").ready


def test_metadata_of_the_server_and_of_a_model() -> None:
    models = FakeModels(
        states={"echo": [VersionStatus(4, State.LOADING), VersionStatus(3, State.AVAILABLE), VersionStatus(2, State.AVAILABLE)]}
    )

    server, model = ask(models, "ServerMetadata"), ask(models, "ModelMetadata", name="echo")

    assert server.name == "trainyard"
    assert list(server.extensions) == list(v2_about.EXTENSIONS)
    assert (model.name, list(model.versions), model.platform) == ("echo", ["2", "3"], "tensorflow_savedmodel")
    assert [(it.name, it.datatype, list(it.shape)) for it in (*model.inputs, *model.outputs)] == [
        ("x", "FP32", [-1, 2]),
        ("y", "FP32", [-1, 2]),
    ]


def test_metadata_of_a_model_without_a_default_signature_says_what_there_is() -> None:
    models = FakeModels()
    models.served.signatures = {"two": models.served.signatures["two"]}

    with pytest.raises(Aborted) as caught:
        ask(models, "ModelMetadata", name="echo")

    assert caught.value.code == INVALID
    assert "choose one of two with the parameter signature_name" in caught.value.details


def test_config_says_that_any_batch_is_taken() -> None:
    config = ask(FakeModels(), "ModelConfig", name="echo").config

    assert (config.name, config.platform, config.max_batch_size) == ("echo", "tensorflow_savedmodel", 0)
    assert [(it.name, it.data_type, list(it.dims)) for it in config.input] == [("x", 11, [-1, 2])]
    assert [(it.name, it.data_type, list(it.dims)) for it in config.output] == [("y", 11, [-1, 2])]
    assert not config.model_transaction_policy.decoupled


def test_statistics() -> None:
    models = FakeModels(states={"idle": []})
    models.counted = Statistics(
        3, 1_700_000_000_000, 9, 2, Timing(2, 50), Timing(1, 5), Timing(2, 7), Timing(2, 40), {8: Timing(1, 30), 1: Timing(1, 10)}
    )

    (found,) = ask(models, "ModelStatistics").model_stats
    (same,) = ask(models, "ModelStatistics", name="echo", version="3").model_stats

    assert found == same
    assert (found.name, found.version, found.last_inference) == ("echo", "3", 1_700_000_000_000)
    assert (found.inference_count, found.execution_count) == (9, 2)
    stats = found.inference_stats
    assert [(it.count, it.ns) for it in (stats.success, stats.fail, stats.queue, stats.compute_infer)] == [(2, 50), (1, 5), (2, 7), (2, 40)]
    assert [(it.batch_size, it.compute_infer.count, it.compute_infer.ns) for it in found.batch_stats] == [(1, 1, 10), (8, 1, 30)]


@pytest.mark.parametrize(
    ("fields", "code"), [({"name": "none"}, NOT_FOUND), ({"name": "echo", "version": "9"}, NOT_FOUND), ({"version": "3"}, INVALID)]
)
def test_statistics_of_nothing(fields: Any, code: grpc.StatusCode) -> None:
    with pytest.raises(Aborted) as caught:
        ask(FakeModels(), "ModelStatistics", **fields)

    assert caught.value.code == code


def test_the_index_has_every_version_or_only_those_that_answer() -> None:
    states = {
        "echo": [VersionStatus(4, State.END, 3, "no SavedModel"), VersionStatus(3, State.AVAILABLE), VersionStatus(2, State.END)],
        "never": [],
    }
    models = FakeModels(states=states)

    def index(**fields: Any) -> list[tuple[str, ...]]:
        return [(it.name, it.version, it.state, it.reason) for it in ask(models, "RepositoryIndex", **fields).models]

    assert index() == [
        ("echo", "2", "UNAVAILABLE", "unloaded"),
        ("echo", "3", "READY", ""),
        ("echo", "4", "UNAVAILABLE", "no SavedModel"),
        ("never", "", "", ""),
    ]
    assert index(ready=True) == [("echo", "3", "READY", "")]


def test_loading_and_unloading_reach_the_models() -> None:
    models = FakeModels()

    ask(models, "RepositoryModelLoad", model_name="echo")
    ask(models, "RepositoryModelUnload", model_name="echo", parameters={"unload_dependents": {"bool_param": True}})

    assert models.asked == [("load", "echo"), ("unload", "echo")]
    with pytest.raises(Aborted, match="failed to load 'none', "):
        ask(models, "RepositoryModelLoad", model_name="none")
    with pytest.raises(Aborted, match="the parameter 'config' is not taken"):
        ask(models, "RepositoryModelLoad", model_name="echo", parameters={"config": {"string_param": "{}"}})
    assert len(models.asked) == 2


@pytest.mark.parametrize("method", ["SystemSharedMemoryStatus", "CudaSharedMemoryRegister", "TraceSetting", "LogSettings"])
def test_what_is_not_offered_has_no_handler_so_that_grpc_says_unimplemented(method: str) -> None:
    assert handler(FakeModels(), method) is None


def test_garbage_is_refused_by_every_method() -> None:
    for method in ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex", "RepositoryModelLoad"):
        with pytest.raises(Aborted, match="the request is no inference") as caught:
            call(FakeModels(), method, b"\xff\xff")
        assert caught.value.code == INVALID


def test_late_work_is_told_so() -> None:
    models = FakeModels()
    models.served.failure = ServeError(DEADLINE_EXCEEDED, "the deadline has passed")

    assert refusal(models, an_infer(_X, "FP32"))[0] == grpc.StatusCode.DEADLINE_EXCEEDED
