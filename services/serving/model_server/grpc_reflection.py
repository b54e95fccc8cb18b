"""grpc.reflection: what this server offers, for grpcurl and the like. Out of the private pool, like all else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from services.serving.model_server.errors import INVALID_ARGUMENT, NOT_FOUND, UNIMPLEMENTED
from services.serving.model_server.grpc_calls import Service, serialize
from services.serving.model_server.wire import Wire

_PACKAGES = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
# A stream stays open as long as the client likes, and takes one of the few threads.
_STREAMS = 2


def services(wire: Wire, names: Callable[[], Sequence[str]]) -> list[Service]:
    streams = threading.Semaphore(_STREAMS)
    return [_service(wire, f"{package}.ServerReflection", package, names, streams) for package in _PACKAGES]


def service_names() -> list[str]:
    return [f"{package}.ServerReflection" for package in _PACKAGES]


def _service(wire: Wire, name: str, package: str, names: Callable[[], Sequence[str]], streams: threading.Semaphore) -> Service:
    request_class, response_class = wire.message(f"{package}.ServerReflectionRequest"), wire.message(f"{package}.ServerReflectionResponse")

    def info(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        if not streams.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_STREAMS} streams of reflection are open, which is all this server takes")
        try:
            for request in requests:
                yield _answer(wire, request, response_class(valid_host=request.host, original_request=request), names)
        finally:
            streams.release()

    return Service(name, {"ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(info, request_class.FromString, serialize)})


def _answer(wire: Wire, request: Any, response: Any, names: Callable[[], Sequence[str]]) -> Any:
    kind = request.WhichOneof("message_request")
    try:
        match kind:
            case "list_services":
                for name in names():
                    response.list_services_response.service.add(name=name)
            case "file_by_filename":
                _add_files(response, wire.pool.FindFileByName(request.file_by_filename))
            case "file_containing_symbol":
                _add_files(response, _file_of(wire, request.file_containing_symbol))
            case None:
                _refuse(response, INVALID_ARGUMENT, "the request asks nothing")
            case _:
                _refuse(response, UNIMPLEMENTED, "there are no extensions here")
    except KeyError:
        _refuse(response, NOT_FOUND, f"there is no {getattr(request, str(kind))[:200]} here")
    return response


def _file_of(wire: Wire, symbol: str) -> Any:
    try:
        return wire.pool.FindFileContainingSymbol(symbol)
    except KeyError:  # a method, which some pools do not look for
        return wire.pool.FindFileContainingSymbol(symbol.rpartition(".")[0])


def _add_files(response: Any, file: Any) -> None:
    """With all that it imports, each once."""
    waiting, seen = [file], set[str]()
    while waiting:
        current = waiting.pop()
        if current.name not in seen:
            seen.add(current.name)
            response.file_descriptor_response.file_descriptor_proto.append(current.serialized_pb)
            waiting.extend(current.dependencies)


def _refuse(response: Any, code: int, message: str) -> None:
    response.error_response.error_code = code
    response.error_response.error_message = message
