"""REST in front of a scoring script: /score, /healthz, /readyz. One thread a connection; connections and bodies have limits."""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import sys
import threading
import traceback
from collections import Counter
from http.server import ThreadingHTTPServer
from typing import Any

from services.serving.access import Access
from services.serving.sampling.sampler import Sampler
from services.serving.scoring_server.bodies import Rooms
from services.serving.scoring_server.handler import JSON, Handler
from services.serving.scoring_server.script import Script

MAX_CONNECTIONS = 256
_HANDSHAKE_SECONDS = 10.0
_LAST_WORDS_SECONDS = 1.0  # a drain waits so long for the next request of connections that are open, and closes them with its answer


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
        self.rooms = Rooms()
        self._open: set[Any] = set()
        self.under_way = 0
        self.answered: Counter[int] = Counter()
        self._changed = threading.Condition()
        self._inherited = listening is not None
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
        head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {JSON}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
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


def _context(file: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return context


def start(
    script: Script, access: Access, sampler: Sampler, host: str, port: int, listening: int | None = None, tls_file: str = ""
) -> ScoringServer:
    """As ScoringServer takes them. Raises OSError if the port is taken."""
    server = ScoringServer((host, port), script, access, sampler, listening, tls_file)
    threading.Thread(target=lambda: server.serve_forever(poll_interval=0.1), name="rest", daemon=True).start()
    return server
