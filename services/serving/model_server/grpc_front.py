"""The gRPC server: services that others bring, and grpc.health.v1.Health, by generic handlers over the private pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc

from services.serving.model_server import grpc_reflection
from services.serving.model_server.config_files import Tls
from services.serving.model_server.grpc_calls import Service, serialize
from services.serving.model_server.wire import Wire

HEALTH_SERVICE = "grpc.health.v1.Health"
MAX_MESSAGE = 256 * 1024 * 1024
# What waits beyond so many calls is told to come again.
_WAITING = 1024
_SERVING, _NOT_SERVING = 1, 2


@dataclass(frozen=True)
class Door:
    """Where and how gRPC listens."""

    host: str
    port: int
    socket_path: str = ""
    share: bool = False
    threads: int = 8
    arguments: Sequence[tuple[str, str | int]] = ()
    tls: Tls | None = None
    guards: Sequence[grpc.ServerInterceptor[Any, Any]] = ()


class Health:
    """SERVING while `ready` says so. Watch is left unimplemented, which clients take for "always healthy": a process that drains closes
    its connections anyway, and a kept stream would hold one of the few threads."""

    def __init__(self, wire: Wire, ready: Callable[[], bool], names: Callable[[], Sequence[str]]) -> None:
        self._wire = wire
        self._ready = ready
        self._names = names

    def check(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.service and request.service not in self._names():
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service {request.service[:200]}")
        return self._wire.HealthCheckResponse(status=_SERVING if self._ready() else _NOT_SERVING)


def start(services: Sequence[Service], wire: Wire, door: Door, ready: Callable[[], bool]) -> tuple[grpc.Server, int]:
    """The server and its port. Raises OSError if the port is taken, or the certificates are none."""
    server = grpc.server(
        ThreadPoolExecutor(door.threads, thread_name_prefix="grpc"),
        options=[
            ("grpc.so_reuseport", int(door.share)),
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.max_send_message_length", -1),
            *door.arguments,
        ],
        interceptors=list(door.guards),
        maximum_concurrent_rpcs=_WAITING,
    )
    names = [HEALTH_SERVICE, *(service.name for service in services), *grpc_reflection.service_names()]
    health = Health(wire, ready, lambda: names)
    check = grpc.unary_unary_rpc_method_handler(health.check, wire.HealthCheckRequest.FromString, serialize)
    everything = [*services, Service(HEALTH_SERVICE, {"Check": check}), *grpc_reflection.services(wire, lambda: names)]
    server.add_generic_rpc_handlers([service.handler() for service in everything])
    port = _listen(server, f"{door.host}:{door.port}", door.tls)
    if door.socket_path:
        _listen(server, f"unix:{door.socket_path}", None)
    server.start()
    return server, port


def _listen(server: grpc.Server, address: str, tls: Tls | None) -> int:
    try:
        bound = server.add_secure_port(address, _credentials(tls)) if tls else server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"gRPC port {address} is taken: {error}") from error
    if bound == 0:
        raise OSError(f"gRPC port {address} is taken{', or its certificate and key are none' if tls else ''}")
    return bound


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(tls.key, tls.certificate)], root_certificates=tls.client_ca or None, require_client_auth=tls.client_must
    )
