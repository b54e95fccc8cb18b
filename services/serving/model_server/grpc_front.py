"""tensorflow.serving.PredictionService and grpc.health.v1.Health, by generic handlers over the private pool."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc

from services.serving.model_server import tensors
from services.serving.model_server.errors import INTERNAL, ServeError, invalid
from services.serving.model_server.wire import Wire

if TYPE_CHECKING:
    from services.serving.model_server.model import Model

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
HEALTH_SERVICE = "grpc.health.v1.Health"
MAX_MESSAGE = 256 * 1024 * 1024
# Eight threads serve a core best (measured); what waits beyond this many calls is told to come again.
_THREADS, _WAITING = 8, 1024
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_SERVING, _NOT_SERVING = 1, 2


class PredictionService:
    def __init__(self, model: Model, wire: Wire) -> None:
        self._model = model
        self._wire = wire

    def predict(self, raw: bytes, context: grpc.ServicerContext) -> Any:
        """Bytes come in unparsed so that garbage is answered with words, not with gRPC's bare INTERNAL."""
        try:
            return self._answer(raw)
        except ServeError as error:
            context.abort(_CODES.get(error.code, grpc.StatusCode.UNKNOWN), error.message)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            context.abort(_CODES[INTERNAL], f"{type(error).__name__}: {error}"[:1024])

    def _answer(self, raw: bytes) -> Any:
        try:
            request = self._wire.PredictRequest.FromString(raw)
        except Exception as error:  # DecodeError; its place differs between versions of protobuf
            raise invalid("the request is no tensorflow.serving.PredictRequest") from error
        spec = request.model_spec
        version = spec.version.value if spec.WhichOneof("version_choice") == "version" else None
        self._model.check(spec.name, version, spec.version_label)
        signature = self._model.signature(spec.signature_name)
        inputs = {alias: tensors.to_array(request.inputs[alias], alias) for alias in request.inputs}
        results = self._model.predict(signature, inputs, request.output_filter)
        response = self._wire.PredictResponse()
        response.model_spec.name = self._model.name
        response.model_spec.version.value = self._model.version
        response.model_spec.signature_name = signature.name
        for alias, array in results.items():
            tensors.fill(response.outputs[alias], signature.outputs[alias].dtype, array)
        return response


class Health:
    """SERVING while `ready` says so. Watch is left unimplemented, which clients take for "always healthy": a process that drains closes
    its connections anyway, and a kept stream would hold one of the few threads."""

    def __init__(self, wire: Wire, ready: Callable[[], bool]) -> None:
        self._wire = wire
        self._ready = ready

    def check(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.service not in ("", PREDICTION_SERVICE):
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service {request.service[:200]}")
        return self._wire.HealthCheckResponse(status=_SERVING if self._ready() else _NOT_SERVING)


def start(model: Model, wire: Wire, host: str, port: int, ready: Callable[[], bool], *, share: bool) -> tuple[grpc.Server, int]:
    """The server and its port. Raises OSError if the port is taken."""
    server = grpc.server(
        ThreadPoolExecutor(_THREADS, thread_name_prefix="predict"),
        options=[
            ("grpc.so_reuseport", int(share)),
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.max_send_message_length", -1),
        ],
        maximum_concurrent_rpcs=_WAITING,
    )
    service, health = PredictionService(model, wire), Health(wire, ready)
    predict = grpc.unary_unary_rpc_method_handler(service.predict, None, _serialize)
    check = grpc.unary_unary_rpc_method_handler(health.check, wire.HealthCheckRequest.FromString, _serialize)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(PREDICTION_SERVICE, {"Predict": predict}),
            grpc.method_handlers_generic_handler(HEALTH_SERVICE, {"Check": check}),
        )
    )
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise OSError(f"gRPC port {host}:{port} is taken: {error}") from error
    if bound == 0:
        raise OSError(f"gRPC port {host}:{port} is taken")
    server.start()
    return server, bound


def _serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())
