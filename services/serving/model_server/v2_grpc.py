"""inference.GRPCInferenceService, by generic handlers over the private pool."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

import grpc
from google.protobuf import json_format

from services.serving.model_server import v2_about, v2_infer, v2_types
from services.serving.model_server.errors import INTERNAL, RESOURCE_EXHAUSTED, ServeError, invalid
from services.serving.model_server.grpc_calls import CODES, Observe, Service, Work, serialize, unary
from services.serving.model_server.served import Models
from services.serving.model_server.v2_types import Datatype
from services.serving.model_server.wire import Wire

SERVICE = "inference.GRPCInferenceService"
# A stream holds a thread for as long as it is open, and there are few.
MAX_STREAMS = 2
Streamed = Callable[[bytes, int, Any, int], None]
"""One request of a stream, its code, its ModelStreamInferResponse, and when it came by time.perf_counter_ns()."""


def service(models: Models, wire: Wire, is_ready: Callable[[], bool], observe: Observe, streamed: Streamed | None = None) -> Service:
    """`streamed` is told of what passes in streams. Shared memory, tracing and log settings are not among its methods: gRPC itself answers those with UNIMPLEMENTED."""
    calls = _Calls(models, wire, observe, streamed)
    work: dict[str, Work] = {
        "ServerLive": lambda _, __: calls.made("ServerLive", {"live": True}),
        "ServerReady": lambda _, __: calls.made("ServerReady", {"ready": is_ready()}),
        "ModelReady": lambda it, _: calls.made("ModelReady", {"ready": v2_infer.is_ready(models, it.name, it.version)}),
        "ServerMetadata": lambda _, __: calls.made("ServerMetadata", v2_about.server()),
        "ModelMetadata": lambda it, _: calls.made("ModelMetadata", v2_about.model(models, it.name, it.version)),
        "ModelConfig": lambda it, _: calls.made("ModelConfig", {"config": v2_about.config(models, it.name, it.version)}),
        "ModelStatistics": lambda it, _: calls.made("ModelStatistics", v2_about.statistics(models, it.name, it.version)),
        "RepositoryIndex": lambda it, _: calls.made("RepositoryIndex", {"models": v2_about.index(models, ready=it.ready)}),
        "RepositoryModelLoad": calls.load,
        "RepositoryModelUnload": calls.unload,
        "ModelInfer": calls.infer,
    }
    methods = {name: unary(done, wire.message(f"inference.{name}Request"), name, observe, _model) for name, done in work.items()}
    methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(calls.stream, None, serialize)
    return Service(SERVICE, methods)


def _model(request: Any) -> str:
    return str(getattr(request, "model_name", "") or getattr(request, "name", ""))


class _Calls:
    def __init__(self, models: Models, wire: Wire, observe: Observe, streamed: Streamed | None) -> None:
        self._models = models
        self._wire = wire
        self._observe = observe
        self._tell = streamed
        self._streams = threading.Semaphore(MAX_STREAMS)
        self._request, self._response, self._piece = (
            wire.message(f"inference.{name}") for name in ("ModelInferRequest", "ModelInferResponse", "ModelStreamInferResponse")
        )

    def made(self, call: str, content: dict[str, Any]) -> Any:
        return json_format.ParseDict(content, self._wire.message(f"inference.{call}Response")())

    def load(self, request: Any, _: float | None) -> Any:
        v2_about.load(self._models, request.model_name, request.parameters)
        return self.made("RepositoryModelLoad", {})

    def unload(self, request: Any, _: float | None) -> Any:
        v2_about.unload(self._models, request.model_name)
        return self.made("RepositoryModelUnload", {})

    def infer(self, request: Any, deadline: float | None) -> Any:
        return self._answer(v2_infer.infer(self._models, _asked(request, deadline)), _typed_outputs(request))

    def stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
        """One answer for each request, in their order. What goes wrong with one of them is said in its answer and ends nothing."""
        if not self._streams.acquire(blocking=False):
            context.abort(CODES[RESOURCE_EXHAUSTED], f"{MAX_STREAMS} streams are open, which is all this server takes; use ModelInfer")
        remaining = context.time_remaining()
        deadline = None if remaining is None else time.monotonic() + remaining
        try:
            for raw in requests:
                yield self._streamed(raw, deadline)
        finally:
            self._streams.release()

    def _streamed(self, raw: bytes, deadline: float | None) -> Any:
        begin, code = time.perf_counter_ns(), 0
        answer, request = self._piece(), self._request()
        try:
            request = self._parsed(raw)
            answer.infer_response.CopyFrom(self.infer(request, deadline))
        except ServeError as error:
            code, answer.error_message = error.code, error.message
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            code, answer.error_message = INTERNAL, f"{type(error).__name__}: {error}"[:1024]
        if code:
            answer.infer_response.id = request.id  # by which a client knows whose error it is
        self._observe(request.model_name, "ModelStreamInfer", "GRPC", code, time.perf_counter_ns() - begin)
        if self._tell is not None:
            self._tell(raw, code, answer, begin)
        return answer

    def _parsed(self, raw: bytes) -> Any:
        try:
            return self._request.FromString(raw)
        except Exception as error:  # DecodeError; its place differs between versions of protobuf
            raise invalid("the request is no inference.ModelInferRequest") from error

    def _answer(self, answered: v2_infer.Answered, typed: Collection[str]) -> Any:
        """Raw, as Triton answers, unless the typed form was asked for. Raw stands for all outputs of an answer or for none."""
        response = self._response(model_name=answered.model, model_version=answered.version, id=answered.id)
        as_typed = bool(typed) and all(it.name in typed and it.datatype.field for it in answered.outputs)
        for output in answered.outputs:
            made = response.outputs.add(name=output.name, datatype=output.datatype.name, shape=output.array.shape)
            if as_typed:
                v2_types.to_contents(output.array, output.datatype, made.contents)
            else:
                response.raw_output_contents.append(v2_types.to_raw(output.array, output.datatype))
        return response


def _asked(request: Any, deadline: float | None) -> v2_infer.Asked:
    for output in request.outputs:
        v2_infer.refuse_shared_memory(output.parameters, f"output '{output.name}'")
        v2_infer.refuse_classification(output.parameters, output.name)
    parameters = request.parameters or {}
    return v2_infer.Asked(
        model=request.model_name,
        version=request.model_version,
        id=request.id,
        inputs=_raw_inputs(request) if request.raw_input_contents else _typed_inputs(request),
        outputs=[it.name for it in request.outputs],
        signature=v2_infer.signature_name(_value(parameters["signature_name"])) if "signature_name" in parameters else "",
        deadline=v2_infer.deadline(_value(parameters["timeout"]) if "timeout" in parameters else 0, deadline),
    )


def _raw_inputs(request: Any) -> list[v2_infer.Sent]:
    if len(request.raw_input_contents) != len(request.inputs):
        raise invalid(
            f"expected {len(request.inputs)} raw_input_contents but got {len(request.raw_input_contents)} "
            f"for model '{request.model_name}': there is one for each input"
        )
    found = []
    for sent, data in zip(request.inputs, request.raw_input_contents, strict=True):
        v2_infer.refuse_shared_memory(sent.parameters, f"input '{sent.name}'")
        if sent.HasField("contents"):
            raise invalid(
                f"contents field must not be specified when using raw_input_contents for '{sent.name}' for model '{request.model_name}'"
            )
        found.append(v2_infer.Sent(sent.name, sent.datatype, tuple(sent.shape), partial(_read_raw, data, sent.name)))
    return found


def _read_raw(data: bytes, name: str, datatype: Datatype, size: int) -> Any:
    return v2_types.from_raw(data, datatype, size, name)


def _typed_inputs(request: Any) -> list[v2_infer.Sent]:
    found = []
    for sent in request.inputs:
        v2_infer.refuse_shared_memory(sent.parameters, f"input '{sent.name}'")
        found.append(v2_infer.Sent(sent.name, sent.datatype, tuple(sent.shape), partial(_read_typed, sent.contents, sent.name)))
    return found


def _read_typed(contents: Any, name: str, datatype: Datatype, size: int) -> Any:
    return v2_types.from_contents(contents, datatype, size, name)


def _value(parameter: Any) -> Any:
    """Of an InferParameter; None where it carries none."""
    which = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, which) if which else None


def _typed_outputs(request: Any) -> Collection[str]:
    """Outputs wanted in typed contents: those with `binary_data` false, as over REST. Raw is what goes without saying."""
    if not request.outputs:
        return ()
    return {it.name for it in request.outputs if "binary_data" in it.parameters and _value(it.parameters["binary_data"]) is False}
