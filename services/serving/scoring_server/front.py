"""REST in front of a scoring script: /score, /healthz, /readyz. One thread a connection; connections and bodies have limits."""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import sys
import threading
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from services.serving.access import Access
from services.serving.sampling.call import SCRIPT, Body, Call
from services.serving.sampling.sampler import Sampler
from services.serving.scoring_server.script import Answered, Asked, NotText, RunFailed, Script

MAX_BODY = 64 * 1024 * 1024
MAX_CONNECTIONS = 256
_LARGE_BODY, _LARGE_BODIES = 1 << 20, 8  # so many large ones at a time are in memory
_BODY_SECONDS, _LEAST_BYTES_A_SECOND = 10.0, 64 << 10  # how slowly a body may come
_HANDSHAKE_SECONDS = 10.0
_LAST_WORDS_SECONDS = 1.0  # a drain waits so long for the next request of connections that are open, and closes them with its answer
_JSON = "application/json"
_FAILED = {"x-ms-run-function-failed": "True"}
_NONE: Mapping[str, str] = {}


class Refused(Exception):
    """The answer to a request that is not taken."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class ScoringServer(ThreadingHTTPServer):
    """Several may take from one socket that listens, so that a successor can take over."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        script: Script,
        access: Access,
        sampler: Sampler,
        listening: int | None = None,
        tls_file: str = "",
    ) -> None:
        """`listening`: the descriptor of a socket that listens already. `tls_file`: certificates and key in PEM. Raises OSError if somebody
        else has the port, or it is no such socket."""
        super().__init__(address, Handler, bind_and_activate=False)
        self.script = script
        self.access = access
        self.sampler = sampler
        self.draining = False
        self._open: set[Any] = set()
        self.under_way = 0
        self.answered: Counter[int] = Counter()
        self._changed = threading.Condition()
        self._inherited = listening is not None
        self._large = threading.Semaphore(_LARGE_BODIES)
        self._tls = _context(tls_file) if tls_file else None
        try:
            if listening is None:
                self.server_bind()
                self.server_activate()
            else:
                self.socket.close()
                self.socket = socket.socket(fileno=listening)
                self._is_at()
        except OSError as error:
            self.server_close()
            raise OSError(f"REST port {address[0]}:{address[1]} is taken: {error}") from error
        self.socket.setblocking(False)  # another may have taken what there was to take

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def server_bind(self) -> None:
        """The base class would ask the name service who we are, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self._is_at()

    def _is_at(self) -> None:
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            full = len(self._open) >= MAX_CONNECTIONS
            if not full:
                self._open.add(request)
        if not full:
            return super().process_request(request, client_address)
        body = json.dumps({"error": f"{MAX_CONNECTIONS} connections are open, which is all this server takes"}).encode()
        head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {_JSON}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        request.settimeout(1.0)
        try:
            request.sendall(head.encode() + body)
        finally:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            if (spoken := self._secured(request)) is not None:
                super().process_request_thread(spoken, client_address)
        finally:
            with self._changed:
                self._open.discard(request)
                self._changed.notify_all()

    def _secured(self, request: socket.socket) -> socket.socket | None:
        """None where the other end never spoke TLS; the connection is closed then."""
        if self._tls is None:
            return request
        try:
            request.settimeout(_HANDSHAKE_SECONDS)
            return self._tls.wrap_socket(request, server_side=True)
        except OSError:
            self.shutdown_request(request)
            return None

    def begin(self) -> None:
        with self._changed:
            self.under_way += 1

    def end(self, status: int) -> None:
        with self._changed:
            self.answered[status] += 1
            self.under_way -= 1
            self._changed.notify_all()

    def room(self, length: int) -> AbstractContextManager[object]:
        """For a body of that length, and for what the script makes of it."""
        return self._large if length > _LARGE_BODY else nullcontext()

    def drain(self, seconds: float) -> None:
        """Takes no new connections, answers what is under way and what those who are connected ask next, waits no longer than that."""
        self.draining = True
        self.shutdown()
        if not self._inherited:
            self._take_what_waits()
        self.server_close()
        with self._changed:
            self._changed.wait_for(lambda: not self._open, min(seconds, _LAST_WORDS_SECONDS))
            self._changed.wait_for(lambda: not self.under_way, seconds)

    def _take_what_waits(self) -> None:
        # Threads take turns at once: whoever connects between the last look at the queue and its closing is cut off.
        sys.setswitchinterval(1e-5)
        for _ in range(self.request_queue_size):
            try:
                request, address = self.get_request()
            except OSError:
                break
            self.process_request(request, address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError | ssl.SSLError):
            traceback.print_exc(file=sys.stderr)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60  # a connection that says nothing for so many seconds is closed
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet
    server: ScoringServer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/score":
            self._call()
        elif path in ("/", "/healthz", "/readyz"):
            self._send(200, json.dumps({"status": "ok" if path != "/readyz" else "ready"}).encode())
        elif path == "/metrics":
            # The one figure that the model server tells under this name too: by it the platform sees whether anybody calls.
            text = "".join(
                f':tensorflow:serving:request_count{{status="{status}"}} {count}\n'
                for status, count in sorted(self.server.answered.items())
            )
            # A call counts when it is answered, which may take long.
            text += f"trainyard_serving_under_way {self.server.under_way}\n{self.server.sampler.metrics()}"
            self._send(200, text.encode(), {"Content-Type": "text/plain; version=0.0.4"})
        else:
            self.close_connection = True
            self._refuse(*self._nowhere(path))

    def do_POST(self) -> None:
        self._call()

    def do_OPTIONS(self) -> None:
        self._call()

    def _call(self) -> None:
        self.server.begin()
        status = 500
        try:
            answered = self._score()
            status = answered.status
            self._send(status, answered.body, answered.headers)
        except Refused as error:
            self.close_connection = True  # what was not read would be taken for the next request
            status = error.status
            self._refuse(status, str(error))
        finally:
            self.server.end(status)

    def _score(self) -> Answered:
        path = self.path.partition("?")[0]
        if path != "/score":
            raise Refused(*self._nowhere(path))
        if why := self.server.access.refusal(self.headers.get("Authorization")):
            raise Refused(401, why)
        length, encoding = self._announced()
        # A small one may inflate to the most there is.
        with self.server.room(length if encoding == "identity" else MAX_BODY):
            asked = Asked(self.command, self.path, dict(self.headers.items()), self._body(length, encoding))
            at, begin = time.time_ns(), time.perf_counter_ns()
            answered = self._answer(asked)
            sampler = self.server.sampler
            if sampler.rate and sampler.chosen():
                sampler.take(_sampled(asked, answered, at, time.perf_counter_ns() - begin))
            return answered

    def _answer(self, asked: Asked) -> Answered:
        """Raises Refused."""
        try:
            return self.server.script.run(asked)
        except NotText as error:
            raise Refused(400, str(error)) from error
        except RunFailed as error:
            return Answered(500 if error.is_the_answers_fault else 502, _told(str(error)), _FAILED)

    def _nowhere(self, path: str) -> tuple[int, str]:
        return 404, f"There is no {path}; the scoring script answers under /score"

    def _refuse(self, status: int, why: str) -> None:
        self._send(status, _told(why))

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] = _NONE) -> None:
        if self.server.draining:
            self.close_connection = True
        self.send_response(status)
        if not any(name.lower() == "content-type" for name in headers):
            self.send_header("Content-Type", _JSON)
        for name, value in headers.items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body if status not in (204, 304) else b"")
        self.wfile.flush()

    def _announced(self) -> tuple[int, str]:
        """Length and encoding of the body. Raises Refused."""
        if "Transfer-Encoding" in self.headers:
            raise Refused(501, "chunked bodies are not served; send Content-Length")
        lengths = set(self.headers.get_all("Content-Length", []))
        if not lengths and self.command != "POST":
            return 0, "identity"
        length = lengths.pop() if len(lengths) == 1 else ""
        if not (length.isascii() and length.isdigit()):
            raise Refused(400, "Content-Length is missing or is no number")
        if len(length) > 12 or int(length) > MAX_BODY:
            raise Refused(413, f"the body exceeds {MAX_BODY} bytes")
        encoding = self.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("identity", "gzip"):
            raise Refused(501, f"Content-Encoding {encoding} is not served")
        return int(length), encoding

    def _body(self, length: int, encoding: str) -> bytes:
        """Decoded. Raises Refused; ConnectionResetError and TimeoutError where it does not come, or too slowly: it holds room."""
        parts, missing = [], length
        until = time.monotonic() + _BODY_SECONDS + length / _LEAST_BYTES_A_SECOND
        while missing:
            self.connection.settimeout(max(0.01, until - time.monotonic()))
            block = self.rfile.read1(min(missing, _LARGE_BODY))
            if not block:
                raise ConnectionResetError("the client left in the middle of its request")
            parts.append(block)
            missing -= len(block)
        self.connection.settimeout(self.timeout)
        return b"".join(parts) if encoding == "identity" else _inflate(b"".join(parts))

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
        self._refuse(code, message or explain or f"HTTP {code}")

    def version_string(self) -> str:
        return "trainyard"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """A line a request would fill the log."""


def _context(file: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return context


def _sampled(asked: Asked, answered: Answered, at_ns: int, latency_ns: int) -> Call:
    """The query is what a GET asks; of other calls it may be anything, a key among it."""
    path = asked.target if asked.method == "GET" else asked.target.partition("?")[0]
    kinds = [
        next((value for name, value in headers.items() if name.lower() == "content-type"), "")
        for headers in (asked.headers, answered.headers)
    ]
    request, response = Body(asked.body, kinds[0]), Body(answered.body, kinds[1] or _JSON)
    return Call(SCRIPT, asked.method, path, answered.status, at_ns, latency_ns, request, response)


def _told(why: str) -> bytes:
    return json.dumps({"error": why}).encode()


def _inflate(data: bytes) -> bytes:
    """A small body may inflate to any size: never beyond the limit."""
    try:
        stream = zlib.decompressobj(31)
        plain = stream.decompress(data, MAX_BODY + 1)
    except zlib.error as error:
        raise Refused(400, "the body is not gzip") from error
    if len(plain) > MAX_BODY:
        raise Refused(413, f"the inflated body exceeds {MAX_BODY} bytes")
    if not stream.eof:
        raise Refused(400, "the gzip body is cut short")
    return plain


def start(
    script: Script, access: Access, sampler: Sampler, host: str, port: int, listening: int | None = None, tls_file: str = ""
) -> ScoringServer:
    """As ScoringServer takes them. Raises OSError if the port is taken."""
    server = ScoringServer((host, port), script, access, sampler, listening, tls_file)
    threading.Thread(target=lambda: server.serve_forever(poll_interval=0.1), name="rest", daemon=True).start()
    return server
