"""A grpc.aio server with health, reflection, and errors that keep their Failure on the wire."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.chassis.records import Unavailable
from trainyard._errors import FAILURE_KEY, PlatformUnavailableException, TrainyardException, UserErrorException
from trainyard.event.v1.artifact_pb2 import Failure

log = structlog.get_logger()
Code = grpc.StatusCode
MAX_MESSAGE = 16 << 20
# Clients take 8 KiB of trailers, base64 and percent signs included; with more they see RESOURCE_EXHAUSTED and no reason.
_TRAILER_BYTES, _MESSAGE_BYTES, _LINE_BYTES, _DETAILS_BYTES = 4000, 2500, 500, 400


class Refused(Exception):
    """The call is answered with a status and a Failure that a client can act on."""

    def __init__(self, status: grpc.StatusCode, failure: Failure) -> None:
        super().__init__(failure.message)
        self.status = status
        self.failure = failure


def refuse(status: grpc.StatusCode, code: str, message: str, target: str = "") -> Refused:
    return Refused(status, Failure(code=code, message=_text(message)[:3000], target=_text(target)[:1000]))


def as_refusal(error: Exception) -> Refused:
    """What a method raised, as an answer. What is nobody's fault outside is logged here and answered with an id only."""
    match error:
        case Refused():
            return error
        case Unavailable():
            return refuse(Code.UNAVAILABLE, "Unavailable", str(error))
        case PlatformUnavailableException():
            return refuse(Code.UNAVAILABLE, error.code, error.message, error.target)
        case UserErrorException():
            return refuse(Code.INVALID_ARGUMENT, error.code, error.message, error.target)
        case TrainyardException():
            return refuse(Code.FAILED_PRECONDITION, error.code, error.message, error.target)
        case _:
            reference = uuid.uuid4().hex[:12]
            log.exception("a gRPC method failed", reference=reference)
            return refuse(Code.INTERNAL, "InternalError", f"The service failed; its log has the reason under {reference}.", reference)


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    async def intercept_service(self, continuation: Callable[..., Awaitable[Any]], details: grpc.HandlerCallDetails) -> Any:
        handler = await continuation(details)
        if handler is None or handler.request_streaming:
            return handler
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _stream(handler.unary_stream), handler.request_deserializer, handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(_unary(handler.unary_unary), handler.request_deserializer, handler.response_serializer)


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> None:
    refusal = as_refusal(error)
    context.set_trailing_metadata(((FAILURE_KEY, _fitting(refusal.failure).SerializeToString()),))
    await context.abort(refusal.status, _cut(refusal.failure.message, _DETAILS_BYTES))


def _fitting(failure: Failure) -> Failure:
    """What of it a trailer carries: all but the ends of long texts, and of the last lines the last ones."""
    fitting = Failure()
    fitting.CopyFrom(failure)
    fitting.message, fitting.target = _cut(failure.message, _MESSAGE_BYTES), _cut(failure.target, _LINE_BYTES)
    lines = [_cut(line, _LINE_BYTES) for line in failure.last_lines[-20:]]
    fitting.last_lines[:] = lines
    while fitting.last_lines and fitting.ByteSize() > _TRAILER_BYTES:
        del fitting.last_lines[0]
    return fitting


def _cut(text: str, most: int) -> str:
    raw = text.encode()
    return text if len(raw) <= most else raw[: most - 4].decode(errors="ignore") + " ..."


def _text(text: str) -> str:
    """Without lone surrogates, which protobuf refuses: file names bring them."""
    return text.encode("utf-8", "replace").decode()


def _unary(method: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await method(request, context)
        except (grpc.aio.AbortError, grpc.aio.BaseError):
            raise
        except Exception as error:
            return await _abort(context, error)

    return call


def _stream(method: Callable[..., Any]) -> Callable[..., AsyncIterator[Any]]:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            answer = method(request, context)
            if hasattr(answer, "__aiter__"):
                async for item in answer:
                    yield item
            else:
                await answer
        except (grpc.aio.AbortError, grpc.aio.BaseError):
            raise
        except Exception as error:
            await _abort(context, error)

    return call


class Server:
    """`services` are the full names that health and reflection tell."""

    def __init__(self, host: str, port: int, services: Sequence[str], register: Callable[[grpc.aio.Server], None]) -> None:
        # SO_REUSEPORT off: a second process on the port must be told, not given half of the calls.
        options = [
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.max_send_message_length", 4 * MAX_MESSAGE),
        ]
        self._server = grpc.aio.server(interceptors=(ErrorInterceptor(),), options=options)
        self._services = [*services, ""]
        register(self._server)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection([*services, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)
        try:
            self.port = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise OSError(f"gRPC port {host}:{port} is taken: {error}") from error

    async def start(self) -> None:
        await self.say(ready=False)
        await self._server.start()

    async def say(self, *, ready: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in self._services:
            await self._health.set(name, status)

    async def stop(self) -> None:
        await self._health.enter_graceful_shutdown()
        await self._server.stop(1.0)
