"""tensorflow.serving.PredictionService and grpc.health.v1.Health, by generic handlers over the private pool."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from services.serving.model_server import tensors
from services.serving.model_server.errors import INTERNAL, ServeError, invalid
from services.serving.model_server.model import Model
from services.serving.model_server.wire import Wire

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
HEALTH_SERVICE = "grpc.health.v1.Health"
CODES = {code.value[0]: code for code in grpc.StatusCode}
MAX_MESSAGE = 256 * 1024 * 1024


class PredictionService:
    def __init__(self, model: Model, wire: Wire) -> None:
        self._model = model
        self._wire = wire

    def predict(self, raw: bytes, context: grpc.ServicerContext) -> Any:
        """Bytes come in unparsed so that garbage is answered with words, not with gRPC's bare INTERNAL."""
        try:
            try:
                request = self._wire.PredictRequest.FromString(raw)
            except Exception as error:
                raise invalid("the request is not a tensorflow.serving.PredictRequest") from error
            return self._answer(request)
        except ServeError as error:
            context.abort(CODES.get(error.code, grpc.StatusCode.UNKNOWN), error.message)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            context.abort(CODES[INTERNAL], f"{type(error).__name__}: {error}")

    def _answer(self, request: Any) -> Any:
        spec = request.model_spec
        version = spec.version.value if spec.WhichOneof("version_choice") == "version" else None
        self._model.check(spec.name, version, spec.version_label)
        signature = self._model.signature(spec.signature_name)
        inputs = {alias: tensors.to_array(request.inputs[alias]) for alias in request.inputs}
        results = self._model.predict(signature.name, inputs, request.output_filter)
        response = self._wire.PredictResponse()
        response.model_spec.name = self._model.name
        response.model_spec.version.value = self._model.version
        response.model_spec.signature_name = signature.name
        for alias, array in results.items():
            tensors.fill(response.outputs[alias], signature.outputs[alias].dtype, array)
        return response


class Health:
    """SERVING once `ready` says so."""

    def __init__(self, wire: Wire, ready: Callable[[], bool]) -> None:
        self._wire = wire
        self._ready = ready

    def check(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.service not in ("", PREDICTION_SERVICE):
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service {request.service}")
        return self._wire.HealthCheckResponse(status=1 if self._ready() else 2)

    def watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        # One answer: the status never changes while the process lives, and a kept stream would hold one of eight threads.
        known = request.service in ("", PREDICTION_SERVICE)
        yield self._wire.HealthCheckResponse(status=(1 if self._ready() else 2) if known else 3)


def start(model: Model, wire: Wire, host: str, port: int, ready: Callable[[], bool], threads: int = 8) -> tuple[grpc.Server, int]:
    """Raises OSError if the port is taken."""
    server = grpc.server(
        ThreadPoolExecutor(threads, thread_name_prefix="predict"),
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.max_send_message_length", -1)],
    )
    service, health = PredictionService(model, wire), Health(wire, ready)
    serialize = lambda message: message.SerializeToString()  # noqa: E731
    predict = grpc.unary_unary_rpc_method_handler(service.predict, None, serialize)
    check = grpc.unary_unary_rpc_method_handler(health.check, wire.HealthCheckRequest.FromString, serialize)
    watch = grpc.unary_stream_rpc_method_handler(health.watch, wire.HealthCheckRequest.FromString, serialize)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(PREDICTION_SERVICE, {"Predict": predict}),
            grpc.method_handlers_generic_handler(HEALTH_SERVICE, {"Check": check, "Watch": watch}),
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
