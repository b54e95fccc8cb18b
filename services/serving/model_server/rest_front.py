"""REST beside gRPC. One thread a connection; connections, calls and bodies have limits. What a path means is a route's affair."""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from services.serving.model_server.config_files import Tls
from services.serving.model_server.errors import ServeError
from services.serving.model_server.http_messages import (
    MAX_BODY,
    MAX_HEAD,
    MAX_LINE,
    Answer,
    BadRequest,
    Request,
    body_length,
    decoded,
    parse_head,
    to_bytes,
)

__all__ = ["MAX_BODY", "MAX_CONNECTIONS", "RestServer", "Route", "error_answer", "json_answer", "start"]
MAX_CONNECTIONS = 256
_BACKLOG = 128
_LAST_WORDS_SECONDS = 1.0  # a drain waits so long for the next request of who is new or spoke so lately, and closes with its answer
_IDLE_SECONDS = 60  # a connection that says nothing for so long is closed
_LARGE_BODY, _LARGE_BODIES = 1 << 20, 8  # so many large ones at a time are in memory
_BODY_SECONDS, _LEAST_BYTES_A_SECOND = 10.0, 64 << 10  # how slowly a body may come
_LINGER_SECONDS, _LINGER_BYTES = 1.0, 1 << 20
_END = b"\r\n\r\n"

Route = Callable[[Request], Answer]
"""Takes a request whose body is there and decoded. May raise ServeError, which is answered as TensorFlow Serving does."""


def json_answer(status: int, body: object) -> Answer:
    return Answer(status, json.dumps(body).encode())


def error_answer(error: ServeError) -> Answer:
    return json_answer(error.http_status, {"error": error.message})


class RestServer:
    def __init__(
        self,
        routes: Mapping[str, Route],
        host: str,
        port: int,
        *,
        share: bool = False,
        listening: int | None = None,
        calls_at_once: int = 8,
        tls: Tls | None = None,
    ) -> None:
        """`routes`: by the first word of the path, "" for all others. `listening`: the descriptor of a socket that listens already, which
        other servers may take from as well. Raises OSError if the port is taken, or the descriptor is no such socket."""
        self._routes = routes
        self._tls = _context(tls) if tls else None
        self._draining = False
        # More at a time only take memory and each other's cache.
        self._calls = threading.Semaphore(calls_at_once)
        self._connections = threading.Semaphore(MAX_CONNECTIONS)
        self._large = threading.Semaphore(_LARGE_BODIES)
        self._under_way = 0
        self._open: set[_Connection] = set()
        self._less_busy = threading.Condition()
        self._inherited = listening is not None
        self._socket = socket.socket(fileno=listening) if listening is not None else _listen(host, port, share)
        self.server_port: int = self._socket.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, name="rest", daemon=True)
        self._accepting.start()

    # -- connections

    def _accept(self) -> None:
        self._socket.settimeout(0.1)
        while not self._draining:
            try:
                accepted, _ = self._socket.accept()
            except TimeoutError:
                continue
            except OSError:
                threading.Event().wait(0.1)  # too many open files, or the like: it passes
                continue
            self._welcome(accepted)

    def _welcome(self, accepted: socket.socket) -> None:
        if self._connections.acquire(blocking=False):
            connection = _Connection(self, accepted)
            with self._less_busy:
                self._open.add(connection)
            threading.Thread(target=self._live, args=(connection,), name="connection", daemon=True).start()
            return
        full = json_answer(503, {"error": f"{MAX_CONNECTIONS} connections are open, which is all this server takes"})
        with accepted, suppress(OSError):
            accepted.settimeout(1.0)
            accepted.sendall(to_bytes(full, close=True))

    def _live(self, connection: _Connection) -> None:
        try:
            connection.live(self._tls)
        except (OSError, EOFError):
            pass  # the client has gone, or never spoke TLS
        except Exception:
            traceback.print_exc(file=sys.stderr)
        finally:
            connection.close()
            with self._less_busy:
                self._open.discard(connection)
                self._less_busy.notify_all()
            self._connections.release()

    @contextmanager
    def one_call(self) -> Iterator[None]:
        """From the head of a request to the last byte of its answer: what drains waits for it."""
        with self._less_busy:
            self._under_way += 1
        try:
            yield
        finally:
            with self._less_busy:
                self._under_way -= 1
                if self._draining:
                    self._less_busy.notify_all()

    def room(self, length: int) -> AbstractContextManager[object]:
        """For a body of that length."""
        return self._large if length > _LARGE_BODY else nullcontext()

    @property
    def draining(self) -> bool:
        return self._draining

    def drain(self, seconds: float) -> None:
        """Takes no new connections, answers what is under way, waits for it no longer than that.

        Who is in the middle of a row of requests is told with the next answer that it is the last one here: a connection that was closed
        between two of them might be closed on the second's way.
        """
        self._draining = True
        self._accepting.join()
        if not self._inherited:
            self._take_what_waits()
        self._socket.close()
        since = time.monotonic() - _LAST_WORDS_SECONDS
        with self._less_busy:
            lively = {it for it in self._open if it.spoke > since}
            self._less_busy.wait_for(lambda: not self._under_way and not lively & self._open, min(seconds, _LAST_WORDS_SECONDS))
            self._less_busy.wait_for(lambda: not self._under_way, seconds)

    def _take_what_waits(self) -> None:
        """Who is connected and not yet accepted would be cut off by the close. Not more than can wait: others come all the time. Whoever
        connects between the last look and the close is cut off still; a socket that is inherited knows no such moment."""
        sys.setswitchinterval(1e-5)
        self._socket.setblocking(False)
        for _ in range(_BACKLOG):
            try:
                accepted, _address = self._socket.accept()
            except OSError:
                return
            self._welcome(accepted)

    # -- calls

    def answer(self, request: Request) -> Answer:
        word = request.path[1:].partition("/")[0].lower()
        route = self._routes.get(word) or self._routes[""]
        try:
            if request.method == "GET":
                return route(request)
            with self._calls:
                return route(request)
        except ServeError as error:
            return error_answer(error)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            return json_answer(500, {"error": f"{type(error).__name__}: {error}"[:1024]})


class _Connection:
    def __init__(self, server: RestServer, accepted: socket.socket) -> None:
        self._server = server
        self._socket = accepted
        self._buffer = b""
        self.spoke = time.monotonic()
        """When it came, or was answered last."""

    def live(self, tls: ssl.SSLContext | None) -> None:
        """Until it is closed by either side. Raises OSError, and EOFError where the client leaves in the middle of a request."""
        self._socket.settimeout(_IDLE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_side=True)
        kept = True
        while kept:
            try:
                head = self._head()
                if head is None:
                    return
                with self._server.one_call():
                    kept = self._one(head)
                    self.spoke = time.monotonic()
            except BadRequest as error:
                self._socket.sendall(to_bytes(json_answer(error.status, {"error": error.message}), close=True))
                kept = False
        self._linger()

    def _one(self, head: bytes) -> bool:
        """Whether another request may follow."""
        request, keep = parse_head(head)
        try:
            length = body_length(request.headers)
        except ServeError as error:
            self._socket.sendall(to_bytes(error_answer(error), close=True))
            return False
        if request.method == "GET" and length:
            keep, length = False, 0  # what was not read would be taken for the next request
        if (request.headers.get("expect") or "").lower() == "100-continue":
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")  # the client holds its body back until it hears this
        # A slow body holds no room that others need; a small one may inflate to the most there is.
        body = self._body(length) if length <= _LARGE_BODY else b""
        with self._server.room(MAX_BODY if request.headers.get("content-encoding") else length):
            body = body or self._body(length)
            try:
                answer = self._server.answer(Request(request.method, request.target, request.headers, decoded(body, request.headers)))
            except ServeError as error:
                answer = error_answer(error)
            keep = keep and not self._server.draining
            self._socket.sendall(to_bytes(answer, close=not keep))
        return keep

    def _head(self) -> bytes | None:
        """None: the client has gone in peace."""
        buffer = self._buffer.lstrip(b"\r\n")
        while (end := buffer.find(_END)) < 0:
            if len(buffer) > MAX_LINE and b"\r\n" not in buffer:
                raise BadRequest(414, f"the request line is longer than {MAX_LINE} bytes")
            if len(buffer) > MAX_HEAD:
                raise BadRequest(431, f"the headers are longer than {MAX_HEAD} bytes")
            block = self._socket.recv(MAX_LINE)
            if not block:
                return None
            buffer += block
        line = buffer.find(b"\r\n")
        if line > MAX_LINE:
            raise BadRequest(414, f"the request line is longer than {MAX_LINE} bytes")
        self._buffer = buffer[end + len(_END) :]
        return buffer[:end]

    def _body(self, length: int) -> bytes:
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        if len(body) == length:
            return body
        parts, missing = [body], length - len(body)
        until = time.monotonic() + _BODY_SECONDS + length / _LEAST_BYTES_A_SECOND
        while missing:
            self._socket.settimeout(max(0.01, until - time.monotonic()))
            block = self._socket.recv(min(missing, 1 << 20))
            if not block:
                raise EOFError
            parts.append(block)
            missing -= len(block)
        self._socket.settimeout(_IDLE_SECONDS)
        return b"".join(parts)

    def _linger(self) -> None:
        """What the client still sends is read and forgotten, for a moment: closing before would tear the answer up on its way."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            self._socket.settimeout(_LINGER_SECONDS)
            left = _LINGER_BYTES
            while left > 0 and (block := self._socket.recv(MAX_LINE)):
                left -= len(block)

    def close(self) -> None:
        with suppress(OSError):
            self._socket.close()


def _listen(host: str, port: int, share: bool) -> socket.socket:
    """Raises OSError if the port is taken."""
    listening = socket.socket()
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # in TIME_WAIT it may be taken again; listening it may not
        if share:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise OSError(f"REST port {host}:{port} is taken: {error}") from error
    return listening


def _context(tls: Tls) -> ssl.SSLContext:
    """Python reads keys from files only; these are gone when it has."""
    import tempfile

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(tls.certificate + b"\n" + tls.key)
        file.flush()
        context.load_cert_chain(file.name)
    if tls.client_ca:
        context.load_verify_locations(cadata=tls.client_ca.decode())
        context.verify_mode = ssl.CERT_REQUIRED if tls.client_must else ssl.CERT_OPTIONAL
    return context


def start(
    routes: Mapping[str, Route],
    host: str,
    port: int,
    *,
    share: bool = False,
    listening: int | None = None,
    calls_at_once: int = 8,
    tls: Tls | None = None,
) -> RestServer:
    """As RestServer takes them. Raises OSError if the port is taken."""
    return RestServer(routes, host, port, share=share, listening=listening, calls_at_once=calls_at_once, tls=tls)
