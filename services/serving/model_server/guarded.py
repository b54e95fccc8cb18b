"""Doors that ask for a key or a token, where the endpoint's settings say so: the same rules on gRPC and REST. Health is told to anybody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from services.serving.access import Access
from services.serving.model_server.http_messages import Answer, Request, json_answer

_OPEN = ("/grpc.health.v1.Health/", "/inference.GRPCInferenceService/ServerLive", "/inference.GRPCInferenceService/ServerReady")
_OPEN_PATHS = ("/v2/health/live", "/v2/health/ready")


class GrpcDoor(grpc.ServerInterceptor):  # type: ignore[type-arg]
    """UNAUTHENTICATED for a call whose metadata `authorization` does not open the endpoint."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(_OPEN):
            return handler
        given = [value for name, value in handler_call_details.invocation_metadata or () if name == "authorization"]
        why = self._access.refusal(given[0] if len(given) == 1 and isinstance(given[0], str) else None)
        return _refusing(handler, why) if why else handler


def route(answering: Callable[[Request], Answer], access: Access) -> Callable[[Request], Answer]:
    """The same route for those who may call; 401 for others."""

    def guarded(request: Request) -> Answer:
        if request.path.lower() in _OPEN_PATHS:
            return answering(request)
        why = access.refusal(request.headers.get("authorization"))
        return json_answer(401, {"error": why}) if why else answering(request)

    return guarded


def _refusing(handler: Any, why: str) -> Any:
    """Of the same kind as the handler, or the client would take the answer for a broken one."""

    def refuse(_: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, why)

    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return make(refuse, None, None)
