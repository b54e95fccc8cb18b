"""What the model server hands to the request log, by REST and by gRPC, and what it does not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest

from services.serving.model_server import sampled
from services.serving.model_server.errors import NOT_FOUND, ServeError
from services.serving.model_server.grpc_calls import Service
from services.serving.model_server.http_messages import Answer, Headers, Request
from services.serving.sampling.call import OPEN_GRPC, OPEN_REST, TENSORFLOW_GRPC, TENSORFLOW_REST, Call
from services.serving.sampling.sampler import Sampler
from tests.unit.serving.fake_models import FakeModels
from tests.unit.serving.v2_calls import Context, an_infer, handler, infer

PREDICT = "/v1/models/half:predict"


class Kept(Sampler):
    def __init__(self, rate: float = 1.0) -> None:
        super().__init__()
        self.rate = rate
        self.calls: list[Call] = []

    def take(self, call: Call) -> None:
        self.calls.append(call)


def asked(path: str = PREDICT, method: str = "POST", **headers: str) -> Request:
    return Request(method, path, Headers({name.replace("_", "-"): value for name, value in headers.items()}), b"asked")


def through(sampler: Sampler, request: Request, answer: Answer | ServeError) -> Answer:
    def answering(_: Request) -> Answer:
        if isinstance(answer, ServeError):
            raise answer
        return answer

    return sampled.route(answering, sampler)(request)


def test_a_rest_call_is_kept_with_its_answer_and_without_its_headers_and_query() -> None:
    sampler = Kept()
    request = asked(f"{PREDICT}?key=secret", authorization="Bearer secret", content_type="application/json", cookie="secret")

    answer = through(sampler, request, Answer(200, b"answered"))

    (call,) = sampler.calls
    assert answer.body == b"answered"
    assert (call.protocol, call.method, call.path, call.status) == (TENSORFLOW_REST, "POST", PREDICT, 200)
    assert (call.request.content, call.response.content, call.request.content_type) == (b"asked", b"answered", "application/json")
    assert "secret" not in repr(call)


def test_binary_tensors_and_compressed_answers_are_kept_as_such() -> None:
    sampler = Kept()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "7", "Content-Encoding": "gzip"}

    through(sampler, asked("/v2/models/half/infer", inference_header_content_length="3"), Answer(200, b"answered", headers))

    (call,) = sampler.calls
    assert (call.protocol, call.request.json_bytes, call.response.json_bytes) == (OPEN_REST, 3, 7)
    assert (call.response.content_type, call.response.content_encoding) == ("application/octet-stream", "gzip")


def test_an_error_is_kept_as_it_is_answered() -> None:
    sampler = Kept()

    with pytest.raises(ServeError):
        through(sampler, asked(), ServeError(NOT_FOUND, "nowhere"))

    assert (sampler.calls[0].status, sampler.calls[0].response.content) == (404, b'{"error": "nowhere"}')


@pytest.mark.parametrize("request_", [asked("/v1/models/half", "GET"), asked("/v2/repository/index"), asked("/v1/models/half/metadata")])
def test_what_asks_no_model_is_not_kept(request_: Request) -> None:
    sampler = Kept()

    through(sampler, request_, Answer(200))

    assert sampler.calls == []


def test_nothing_is_kept_at_rate_0() -> None:
    sampler = Kept(rate=0)

    through(sampler, asked(), Answer(200))
    method(sampler, "Predict", lambda request, context: b"answered")(b"asked", SimpleNamespace())

    assert sampler.calls == []


# -- gRPC


def method(sampler: Sampler, name: str, answering: Any, service: str = "tensorflow.serving.PredictionService") -> Any:
    handler = grpc.unary_unary_rpc_method_handler(answering, None, lambda answer: b"<" + answer + b">")
    return sampled.service(Service(service, {name: handler}), sampler).methods[name].unary_unary


def test_an_rpc_is_kept_with_the_bytes_of_its_answer() -> None:
    sampler = Kept()

    answer = method(sampler, "Predict", lambda request, context: b"answered")(b"asked", SimpleNamespace())
    method(sampler, "ModelInfer", lambda request, context: b"a", "inference.GRPCInferenceService")(b"q", SimpleNamespace())

    call, other = sampler.calls
    assert answer == b"answered"
    assert (call.protocol, call.method, call.path, call.status) == (TENSORFLOW_GRPC, "/tensorflow.serving.PredictionService/Predict", "", 0)
    assert (call.request.content, call.response.content) == (b"asked", b"<answered>")
    assert (other.protocol, other.method) == (OPEN_GRPC, "/inference.GRPCInferenceService/ModelInfer")


def test_an_rpc_that_is_aborted_is_kept_with_code_and_words_and_aborted() -> None:
    sampler = Kept()
    context = SimpleNamespace(code=lambda: grpc.StatusCode.NOT_FOUND, details=lambda: "nowhere")

    def abort(*_: Any) -> None:
        raise Exception

    with pytest.raises(Exception):  # noqa: B017, PT011 - it is what gRPC itself raises
        method(sampler, "Predict", abort)(b"asked", context)

    assert (sampler.calls[0].status, sampler.calls[0].response.content) == (5, b"nowhere")


def test_each_request_of_a_stream_is_kept_as_the_call_that_it_is_by_itself() -> None:
    sampler, models = Kept(), FakeModels()
    good = an_infer(np.ones((2, 2), np.float32), "FP32", id="a").SerializeToString()

    answers = list(handler(models, "ModelStreamInfer", sampled.streamed(sampler)).stream_stream(iter([good, b"\xff"]), Context()))
    alone = infer(models, an_infer(np.ones((2, 2), np.float32), "FP32", id="a"))

    well, wrong = sampler.calls
    assert (well.protocol, well.method, well.status) == (OPEN_GRPC, "/inference.GRPCInferenceService/ModelInfer", 0)
    assert (well.request.content, well.response.content) == (good, answers[0].infer_response.SerializeToString())
    assert type(alone).FromString(well.response.content) == alone
    assert (wrong.status, wrong.request.content, wrong.response.content) == (3, b"\xff", b"the request is no inference.ModelInferRequest")


def test_what_asks_about_models_is_left_as_it_is() -> None:
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: b"")

    assert sampled.service(Service("s", {"GetModelMetadata": handler}), Kept()).methods["GetModelMetadata"] is handler
