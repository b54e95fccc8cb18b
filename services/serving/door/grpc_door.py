"""gRPC through the door: the request's bytes go to the server that the table names, and its bytes come back."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc

from services.serving.door import peek
from services.serving.door.routes import AWAKE_SECONDS, ENDPOINT_HEADER, Backend, NoRoute, NotAwake, Refused, Table
from services.serving.pinned import leaf_of

_THREADS = 64
_MAX_MESSAGE = 256 << 20
# A server that closes tells what comes at that moment to come again; its successor listens already.
_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
# Whoever met the end of one may be kept from the next by gRPC itself, which rests for a second before it connects anew.
_CONNECTS_SECONDS = 5.0
_OPTIONS = [("grpc.max_receive_message_length", _MAX_MESSAGE), ("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)]
_ALIVE = {
    f"{peek.INFERENCE}ServerLive": b"\x08\x01",
    f"{peek.INFERENCE}ServerReady": b"\x08\x01",
    "/grpc.health.v1.Health/Check": b"\x08\x01",
}


class Channels:
    """One to each server, kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], grpc.Channel] = {}

    def call(self, backend: Backend, method: str, request: bytes, metadata: Any, seconds: float | None) -> tuple[bytes, Any]:
        """The answer, and the call it came by. Raises grpc.RpcError."""
        with self._lock:
            key = backend.grpc, backend.certificate
            channel = self._open.get(key)
            if channel is None:
                channel = self._open[key] = _channel(backend)
        answer, call = channel.unary_unary(method, bytes, bytes).with_call(request, timeout=seconds, metadata=metadata)
        return answer, call

    def connected(self, backend: Backend, seconds: float) -> bool:
        """Whether it is, within that time."""
        with self._lock:
            channel = self._open.get((backend.grpc, backend.certificate))
        if channel is None:
            return True  # not tried yet
        ready = grpc.channel_ready_future(channel)
        try:
            ready.result(timeout=seconds)
        except grpc.FutureTimeoutError:
            return False
        finally:
            ready.cancel()
        return True


def _channel(backend: Backend) -> grpc.Channel:
    if not backend.certificate:
        return grpc.insecure_channel(backend.grpc, options=_OPTIONS)
    # Its own certificate is all that is trusted, and the name in it is not where it lies.
    credentials = grpc.ssl_channel_credentials(leaf_of(backend.certificate).encode())
    return grpc.secure_channel(backend.grpc, credentials, options=[*_OPTIONS, ("grpc.ssl_target_name_override", backend.cname)])


class Shadows:
    """Copies of calls, for a server that nobody waits for. What it cannot take in time is left out."""

    def __init__(self, waiting: int = 64, most_bytes: int = 64 << 20) -> None:
        self._queue: queue.Queue[tuple[Callable[[], object], int]] = queue.Queue(waiting)
        self._lock = threading.Lock()
        self._room = most_bytes
        for _ in range(2):
            threading.Thread(target=self._work, name="shadow", daemon=True).start()

    def send(self, call: Callable[[], object], size: int) -> None:
        """`size`: bytes that the copy keeps in memory."""
        with self._lock:
            if size > self._room or self._queue.full():
                return
            self._room -= size
            self._queue.put_nowait((call, size))

    def _work(self) -> None:
        while True:
            call, size = self._queue.get()
            try:
                call()
            except Exception:  # noqa: S112 - what becomes of a copy is its server's matter, which counts it
                continue
            finally:
                del call
                with self._lock:
                    self._room += size


class Door(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    def __init__(self, table: Table, shadows: Shadows) -> None:
        self._table = table
        self._channels = Channels()
        self._shadows = shadows

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        if method in _ALIVE:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: _ALIVE[method], bytes, bytes)
        if not peek.is_known(method):
            return None  # UNIMPLEMENTED: what reloads a server is no matter of those who call models
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self._pass(method, request, context), bytes, bytes)

    def _pass(self, method: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        metadata = [(name, value) for name, value in context.invocation_metadata() if not name.startswith(("grpc-", "user-agent", ":"))]
        headers = {name: value for name, value in metadata if isinstance(value, str)}

        def choose() -> tuple[Backend, Backend | None]:
            route = self._table.by_model(peek.model_of(method, request), headers.get(ENDPOINT_HEADER, ""))
            patience = min(AWAKE_SECONDS, context.time_remaining() or AWAKE_SECONDS)
            route = self._table.awake(route, patience, headers.get("authorization"))
            return self._table.choose(route, headers.get)

        try:
            chosen, copy = choose()
        except peek.Malformed as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the request cannot be read: {error}")
        except NotAwake as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except Refused as error:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
        except NoRoute as error:
            context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        if copy is not None and copy.grpc:
            backend = copy
            self._shadows.send(lambda: self._channels.call(backend, method, request, metadata, 30.0), len(request))
        return self._ask(chosen, lambda: choose()[0], method, request, metadata, context)

    def _ask(
        self, backend: Backend, anew: Callable[[], Backend], method: str, request: bytes, metadata: Any, context: grpc.ServicerContext
    ) -> bytes:
        for attempt in (1, 2):
            try:
                answer, call = self._channels.call(backend, method, request, metadata, context.time_remaining())
            except grpc.RpcError as error:
                told: Any = error
                if attempt == 1 and told.code() in _AGAIN and context.is_active():
                    with suppress(NoRoute, NotAwake):
                        backend = anew()  # another may serve by now
                    if self._channels.connected(backend, min(_CONNECTS_SECONDS, context.time_remaining() or _CONNECTS_SECONDS)):
                        continue
                context.set_trailing_metadata(_own(told.trailing_metadata()))
                context.abort(told.code(), told.details())
            else:
                context.set_trailing_metadata((*_own(call.trailing_metadata()), ("trainyard-deployment", str(backend.deployment))))
                return answer
        raise AssertionError("the second attempt has an end")


def _own(metadata: Any) -> tuple[Any, ...]:
    return tuple((name, value) for name, value in metadata or () if not name.startswith("grpc-"))


def start(table: Table, shadows: Shadows, host: str, port: int) -> tuple[grpc.Server, int]:
    """Raises OSError if the port is taken."""
    server = grpc.server(
        ThreadPoolExecutor(_THREADS, thread_name_prefix="door"),
        handlers=[Door(table, shadows)],
        options=[("grpc.so_reuseport", 0), *_OPTIONS],
        maximum_concurrent_rpcs=1024,
    )
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise OSError(f"gRPC port {host}:{port} is taken: {error}") from error
    if not bound:
        raise OSError(f"gRPC port {host}:{port} is taken")
    server.start()
    return server, bound
