"""Calls for models, handed to the request log as they came and as they were answered; what asks about models is not sampled."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc

from services.serving.model_server.errors import ServeError
from services.serving.model_server.grpc_calls import Service
from services.serving.model_server.http_messages import Answer, Request, error_answer
from services.serving.sampling.call import OPEN_GRPC, OPEN_REST, TENSORFLOW_GRPC, TENSORFLOW_REST, Body, Call
from services.serving.sampling.sampler import Sampler

_PATHS = (":predict", ":classify", ":regress", "/infer")
_STREAMED = "/inference.GRPCInferenceService/ModelInfer"  # what one request of a stream is by itself
_METHODS = ("Predict", "Classify", "Regress", "MultiInference", "ModelInfer")
_JSON = "application/json"
_JSON_LENGTH = "inference-header-content-length"


def route(answering: Callable[[Request], Answer], sampler: Sampler) -> Callable[[Request], Answer]:
    """The same route, some of whose calls are sampled."""

    def sampled(request: Request) -> Answer:
        if sampler.rate and request.method == "POST" and request.path.lower().endswith(_PATHS) and sampler.chosen():
            return _rest(answering, request, sampler)
        return answering(request)

    return sampled


def _rest(answering: Callable[[Request], Answer], request: Request, sampler: Sampler) -> Answer:
    at, begin = time.time_ns(), time.perf_counter_ns()
    try:
        answer = answering(request)
    except ServeError as error:
        sampler.take(_rest_call(request, error_answer(error), at, begin))
        raise
    sampler.take(_rest_call(request, answer, at, begin))
    return answer


def _rest_call(request: Request, answer: Answer, at: int, begin: int) -> Call:
    back = {name.lower(): value for name, value in answer.headers.items()}
    return Call(
        OPEN_REST if request.path[:4].lower() == "/v2/" else TENSORFLOW_REST,
        request.method,
        request.path,
        answer.status,
        at,
        time.perf_counter_ns() - begin,
        Body(request.body, request.headers.get("content-type") or "", _length(request.headers.get(_JSON_LENGTH))),
        Body(answer.body, back.get("content-type", _JSON), _length(back.get(_JSON_LENGTH)), back.get("content-encoding", "")),
    )


def _length(text: str | None) -> int:
    """The call itself says what is wrong with one that is none."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 12 else 0


def service(answering: Service, sampler: Sampler) -> Service:
    """The same service, some of whose calls are sampled."""
    return Service(
        answering.name,
        {
            name: _method(f"/{answering.name}/{name}", handler, sampler) if name in _METHODS else handler
            for name, handler in answering.methods.items()
        },
    )


def _method(method: str, handler: Any, sampler: Sampler) -> Any:
    answering, serialize = handler.unary_unary, handler.response_serializer

    def sampled(request: bytes, context: grpc.ServicerContext) -> Any:
        if sampler.rate and sampler.chosen():
            return _rpc(answering, serialize, method, request, context, sampler)
        return answering(request, context)

    return grpc.unary_unary_rpc_method_handler(sampled, handler.request_deserializer, serialize)


def _rpc(answering: Any, serialize: Any, method: str, request: bytes, context: Any, sampler: Sampler) -> Any:
    protocol = OPEN_GRPC if method.startswith("/inference.") else TENSORFLOW_GRPC
    at, begin = time.time_ns(), time.perf_counter_ns()

    def take(status: int, answer: bytes) -> None:
        sampler.take(Call(protocol, method, "", status, at, time.perf_counter_ns() - begin, Body(request), Body(answer)))

    try:
        answer = answering(request, context)
    except Exception:  # an abort is one
        code, words = context.code(), context.details()
        take(code.value[0] if code is not None else grpc.StatusCode.UNKNOWN.value[0], _words(words))
        raise
    take(0, serialize(answer) if serialize is not None else answer)
    return answer


def streamed(sampler: Sampler) -> Callable[[bytes, int, Any, int], None]:
    """For requests within streams, each of which is kept as a call of its own."""

    def take(request: bytes, code: int, piece: Any, begin: int) -> None:
        if sampler.rate and sampler.chosen():
            took = time.perf_counter_ns() - begin
            answer = _words(piece.error_message) if code else piece.infer_response.SerializeToString()
            sampler.take(Call(OPEN_GRPC, _STREAMED, "", code, time.time_ns() - took, took, Body(request), Body(answer)))

    return take


def _words(details: str | bytes | None) -> bytes:
    return details.encode() if isinstance(details, str) else details or b""
