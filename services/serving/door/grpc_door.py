"""gRPC through the door: the request's bytes go to the server that the table names, and its bytes come back."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf import json_format

from services.serving.door import about, peek
from services.serving.door.routes import AWAKE_SECONDS, ENDPOINT_HEADER, Backend, NoRoute, NotAwake, Refused, Table, Unserved
from services.serving.model_server.wire import Wire
from services.serving.pinned import leaf_of

_THREADS = 64
_MAX_MESSAGE = 256 << 20
# A server that closes tells what comes at that moment to come again; its successor listens already.
_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
# Whoever met the end of one may be kept from the next by gRPC itself, which rests for a second before it connects anew.
_CONNECTS_SECONDS = 5.0
_FOREVER_SECONDS = 1e9
_OPTIONS = [("grpc.max_receive_message_length", _MAX_MESSAGE), ("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)]
_ALIVE = (f"{peek.INFERENCE}ServerLive", f"{peek.INFERENCE}ServerReady", "/grpc.health.v1.Health/Check")
# A stream holds a thread for as long as it is open: most are left to calls.
MAX_STREAMS = 16
# Of a ModelStreamInferResponse, and of the ModelInferResponse inside.
_ERROR, _ANSWER, _ID = 1, 2, 3


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


class _Failed(Exception):
    """How a call ends that nobody answers with what was asked for."""

    def __init__(self, code: grpc.StatusCode, why: str, trailers: tuple[Any, ...] = ()) -> None:
        super().__init__(why)
        self.code = code
        self.why = why
        self.trailers = trailers


class Door(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    def __init__(self, table: Table, shadows: Shadows) -> None:
        self._table = table
        self._channels = Channels()
        self._shadows = shadows
        self._wire = Wire()
        self._streams = threading.Semaphore(MAX_STREAMS)
        self._own_answers: dict[str, Callable[[bytes], bytes]] = {
            **{method: lambda _: b"\x08\x01" for method in _ALIVE},
            f"{peek.INFERENCE}ServerMetadata": lambda _: self._told("ServerMetadata", about.server()),
            f"{peek.INFERENCE}RepositoryIndex": self._index,
        }

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        if (own := self._own_answers.get(method)) is not None:
            return grpc.unary_unary_rpc_method_handler(lambda request, _: own(request), bytes, bytes)
        if method == peek.STREAM:
            return grpc.stream_stream_rpc_method_handler(self._stream, bytes, bytes)
        if not peek.is_known(method):
            return None  # UNIMPLEMENTED: what reloads a server is no matter of those who call models
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self._pass(method, request, context), bytes, bytes)

    def _index(self, request: bytes) -> bytes:
        try:
            ready = bool(self._wire.message("inference.RepositoryIndexRequest").FromString(request).ready)
        except Exception:  # DecodeError; its place differs between versions of protobuf
            ready = False
        return self._told("RepositoryIndex", {"models": about.index(self._table.listed(), ready=ready)})

    def _told(self, call: str, content: Mapping[str, Any]) -> bytes:
        message = json_format.ParseDict(dict(content), self._wire.message(f"inference.{call}Response")())
        return bytes(message.SerializeToString())

    def _pass(self, method: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            answer, trailers = self._answered(method, request, context)
        except _Failed as failed:
            context.set_trailing_metadata(failed.trailers)
            context.abort(failed.code, failed.why)
        context.set_trailing_metadata(trailers)
        return answer

    def _stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Each request is a call to the server of its model, one after another. What goes wrong with one is said in its answer and ends
        nothing."""
        if not self._streams.acquire(blocking=False):
            why = f"{MAX_STREAMS} streams are open, which is all this door takes; use ModelInfer"
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, why)
        try:
            for request in requests:
                try:
                    answer, _ = self._answered(peek.INFER, request, context)
                except _Failed as failed:
                    yield _piece(_ERROR, failed.why.encode()) + _piece(_ANSWER, _piece(_ID, _id_of(request)))
                else:
                    yield _piece(_ANSWER, answer)
        finally:
            self._streams.release()

    def _answered(self, method: str, request: bytes, context: grpc.ServicerContext) -> tuple[bytes, tuple[Any, ...]]:
        """The answer of a server, and the metadata that follows it. Raises _Failed."""
        metadata = [(name, value) for name, value in context.invocation_metadata() if not name.startswith(("grpc-", "user-agent", ":"))]
        headers = {name: value for name, value in metadata if isinstance(value, str)}

        def choose() -> tuple[Backend, Backend | None]:
            asked = peek.asked(method, request)
            route = self._table.by_model(asked.model, headers.get(ENDPOINT_HEADER, ""))
            patience = min(AWAKE_SECONDS, _remaining(context) or AWAKE_SECONDS)
            route = self._table.awake(route, patience, headers.get("authorization"))
            return self._table.choose(route, headers.get, asked.version)

        try:
            chosen, copy = choose()
        except peek.Malformed as error:
            raise _Failed(grpc.StatusCode.INVALID_ARGUMENT, f"the request cannot be read: {error}") from error
        except NotAwake as error:
            raise _Failed(grpc.StatusCode.UNAVAILABLE, str(error)) from error
        except Refused as error:
            raise _Failed(grpc.StatusCode.UNAUTHENTICATED, str(error)) from error
        except Unserved as error:
            if method == peek.READY:
                return b"", ()  # it is not ready, and asking was no mistake
            raise _Failed(grpc.StatusCode.NOT_FOUND, str(error)) from error
        except NoRoute as error:
            raise _Failed(grpc.StatusCode.NOT_FOUND, str(error)) from error
        if copy is not None and copy.grpc:
            backend = copy
            self._shadows.send(lambda: self._channels.call(backend, method, request, metadata, 30.0), len(request))
        return self._ask(chosen, lambda: choose()[0], method, request, metadata, context)

    def _ask(
        self, backend: Backend, anew: Callable[[], Backend], method: str, request: bytes, metadata: Any, context: grpc.ServicerContext
    ) -> tuple[bytes, tuple[Any, ...]]:
        for attempt in (1, 2):
            try:
                answer, call = self._channels.call(backend, method, request, metadata, _remaining(context))
            except grpc.RpcError as error:
                told: Any = error
                if attempt == 1 and told.code() in _AGAIN and context.is_active():
                    with suppress(NoRoute, NotAwake):
                        backend = anew()  # another may serve by now
                    if self._channels.connected(backend, min(_CONNECTS_SECONDS, _remaining(context) or _CONNECTS_SECONDS)):
                        continue
                raise _Failed(told.code(), told.details() or "", _own(told.trailing_metadata())) from error
            else:
                return answer, (*_own(call.trailing_metadata()), ("trainyard-deployment", str(backend.deployment)))
        raise AssertionError("the second attempt has an end")


def _remaining(context: grpc.ServicerContext) -> float | None:
    """Seconds; None without a deadline, for which gRPC has a number that it does not take back."""
    seconds = context.time_remaining()
    return seconds if seconds is not None and seconds < _FOREVER_SECONDS else None


def _piece(number: int, content: bytes) -> bytes:
    """A field with a length, as protobuf writes it; "" where it is empty."""
    if not content and number != _ANSWER:
        return b""
    length, size = b"", len(content)
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def _id_of(request: bytes) -> bytes:
    """By which a client knows whose error it is."""
    try:
        return peek.id_of(request).encode()
    except peek.Malformed:
        return b""


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
