"""REST beside gRPC: /v1/models/..., /healthz, /readyz. One thread a connection; connections, calls and bodies have limits."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import sys
import threading
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from services.serving.model_server import rest_json
from services.serving.model_server.errors import NOT_FOUND, RESOURCE_EXHAUSTED, UNIMPLEMENTED, ServeError, invalid

if TYPE_CHECKING:
    from services.serving.model_server.model import Model

MAX_BODY = 64 * 1024 * 1024
MAX_CONNECTIONS = 256
_NEWCOMER_SECONDS = 1.0  # a drain waits so long for what a new connection has to say
_CALLS_AT_ONCE = 8  # as many as gRPC has threads: more only take memory and each other's cache
_MODEL = re.compile(
    r"(?i)/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d{1,18})|/labels/(?P<label>[^/:]+))?(?P<verb>:[a-z]+|/metadata)?"
)
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"


class RestServer(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True  # a port in TIME_WAIT may be taken again; a listening one may not
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], model: Model, ready: Callable[[], bool], *, share: bool) -> None:
        """Raises OSError if the port is taken."""
        super().__init__(address, Handler, bind_and_activate=False)
        self.model = model
        self.ready = ready
        self.draining = False
        self._calls = threading.Semaphore(_CALLS_AT_ONCE)
        self._connections = threading.Semaphore(MAX_CONNECTIONS)
        self._under_way = 0
        self._newcomers: set[Any] = set()
        self._less_busy = threading.Condition()
        if share:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            self.server_bind()
            self.server_activate()
        except OSError as error:
            self.server_close()
            raise OSError(f"REST port {address[0]}:{address[1]} is taken: {error}") from error

    def server_bind(self) -> None:
        """The base class would ask the name service who we are, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[0], self.server_address[1]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._connections.acquire(blocking=False):
            with self._less_busy:
                self._newcomers.add(request)
            super().process_request(request, client_address)
            return
        body = json.dumps({"error": f"{MAX_CONNECTIONS} connections are open, which is all this server takes"}).encode()
        request.settimeout(1.0)
        try:
            request.sendall(_FULL % (len(body), body))
        finally:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.heard(request)
            self._connections.release()

    def heard(self, request: Any) -> None:
        """The first request of a connection was answered: from here on it may be closed while it is idle."""
        with self._less_busy:
            self._newcomers.discard(request)
            self._less_busy.notify_all()

    @contextmanager
    def one_call(self) -> Iterator[None]:
        """Around each call: what drains waits for it."""
        with self._less_busy:
            self._under_way += 1
        try:
            with self._calls:
                yield
        finally:
            with self._less_busy:
                self._under_way -= 1
                self._less_busy.notify_all()

    def drain(self, seconds: float) -> None:
        """Takes no new connections, answers what is under way, waits for it no longer than that."""
        self.draining = True
        self.shutdown()
        # Threads take turns at once: whoever connects between the last look at the door and its closing is cut off.
        sys.setswitchinterval(1e-5)
        self._take_what_waits()
        self.server_close()
        with self._less_busy:
            self._less_busy.wait_for(lambda: not self._newcomers and not self._under_way, min(seconds, _NEWCOMER_SECONDS))
            self._less_busy.wait_for(lambda: not self._under_way, seconds)

    def _take_what_waits(self) -> None:
        """Who is connected and not yet accepted would be cut off by the close. Not more than can wait: others come all the time."""
        self.socket.setblocking(False)
        for _ in range(self.request_queue_size):
            try:
                request, address = self.get_request()
            except OSError:
                return
            self.process_request(request, address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            traceback.print_exc(file=sys.stderr)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60  # a connection that says nothing for so many seconds is closed
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet
    server: RestServer

    def handle(self) -> None:
        self.close_connection = True
        self.handle_one_request()
        self.server.heard(self.request)
        while not self.close_connection:
            self.handle_one_request()

    def do_GET(self) -> None:
        self._respond(self._get)

    def do_POST(self) -> None:
        self._respond(self._post)

    def _respond(self, work: Callable[[], tuple[int, Any]]) -> None:
        self._body_read = False
        try:
            status, body = work()
        except ServeError as error:
            status, body = error.http_status, {"error": error.message}
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            status, body = 500, {"error": f"{type(error).__name__}: {error}"[:1024]}
        has_body = self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers
        if (has_body and not self._body_read) or self.server.draining:
            self.close_connection = True  # what was not read would be taken for the next request
        self._send(status, body)

    def _send(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def _get(self) -> tuple[int, Any]:
        path = self.path.partition("?")[0]
        if path == "/healthz":
            return 200, {"status": "ok"}
        if path == "/readyz":
            return (200, {"status": "ready"}) if self.server.ready() else (503, {"error": "the model is not ready"})
        match = self._match(path)
        if match["verb"] is None:
            return 200, {"model_version_status": [self._status()]}
        if match["verb"].lower() == "/metadata":
            return 200, rest_json.metadata(self.server.model)
        raise invalid(f"Malformed request: GET {path}")

    def _post(self) -> tuple[int, Any]:
        with self.server.one_call():
            body = self._body()
            path = self.path.partition("?")[0]
            match = self._match(path)
            verb = (match["verb"] or "").lower()
            if verb in (":classify", ":regress"):
                raise ServeError(UNIMPLEMENTED, f"{verb[1:]} is not served; use :predict")
            if verb != ":predict":
                raise invalid(f"Malformed request: POST {path}")
            return 200, rest_json.predict(self.server.model, body)

    def _match(self, path: str) -> re.Match[str]:
        match = _MODEL.fullmatch(path)
        if match is None:
            if path.lower().startswith("/v1/"):
                raise invalid(f"Malformed request: {self.command} {path}")
            raise ServeError(NOT_FOUND, f"There is no {path}; the model is under /v1/models/{self.server.model.name}")
        self.server.model.check(match["name"], int(match["version"]) if match["version"] else None, match["label"] or "")
        return match

    def _body(self) -> bytes:
        if "Transfer-Encoding" in self.headers:
            raise ServeError(UNIMPLEMENTED, "chunked bodies are not served; send Content-Length")
        lengths = set(self.headers.get_all("Content-Length", []))
        length = lengths.pop() if len(lengths) == 1 else ""
        if not (length.isascii() and length.isdigit()):
            raise invalid("Content-Length is missing or is no number")
        if len(length) > 12 or int(length) > MAX_BODY:
            raise _too_large("the body")
        data = self.rfile.read(int(length))
        if len(data) < int(length):
            raise ConnectionResetError("the client left in the middle of its request")
        self._body_read = True
        encoding = self.headers.get("Content-Encoding", "identity").lower()
        if encoding == "identity":
            return data
        if encoding != "gzip":
            raise ServeError(UNIMPLEMENTED, f"Content-Encoding {encoding} is not served")
        return _inflate(data)

    def _status(self) -> dict[str, Any]:
        state = "AVAILABLE" if self.server.ready() else "UNLOADING"
        return {"version": str(self.server.model.version), "state": state, "status": {"error_code": "OK", "error_message": ""}}

    def handle_expect_100(self) -> bool:
        """Told at once: the client holds its body back until it hears this."""
        self.send_response_only(100)
        self.end_headers()
        self.wfile.flush()
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """The base class calls this for what it cannot parse; its answer would be HTML."""
        self.close_connection = True
        self.request_version = self.protocol_version  # not known yet, and the oldest would get no head
        self._send(code, {"error": message or explain or f"HTTP {code}"})

    def version_string(self) -> str:
        return "trainyard"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """A line a request would fill the log."""


def _inflate(data: bytes) -> bytes:
    """A small body may inflate to any size: never beyond the limit."""
    try:
        stream = zlib.decompressobj(31)
        plain = stream.decompress(data, MAX_BODY + 1)
    except zlib.error as error:
        raise invalid("the body is not gzip") from error
    if len(plain) > MAX_BODY:
        raise _too_large("the inflated body")
    if not stream.eof:
        raise invalid("the gzip body is cut short")
    return plain


def _too_large(what: str) -> ServeError:
    return ServeError(RESOURCE_EXHAUSTED, f"{what} exceeds {MAX_BODY} bytes", http_status=413)


def start(model: Model, host: str, port: int, ready: Callable[[], bool], *, share: bool) -> RestServer:
    """Raises OSError if the port is taken."""
    server = RestServer((host, port), model, ready, share=share)
    threading.Thread(target=lambda: server.serve_forever(poll_interval=0.1), name="rest", daemon=True).start()
    return server
