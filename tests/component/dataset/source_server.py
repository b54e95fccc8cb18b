"""An HTTP server with every kind of file that a dataset may name: sound, absent, cut short, elsewhere, slow."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FILES = {
    "train.gz": b"\x1f\x8b training images",
    "test.gz": b"\x1f\x8b test images",
    "empty.txt": b"",
    "big.bin": b"0123456789abcdef" * 65536,
}


class SourceServer:
    """`/files/...` are sound. `/gated/...` send their head and first bytes, and the rest once `gate` is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self._came = threading.Semaphore(0)
        self._standing = 0
        self.most_at_once = 0
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{path}"

    def stand_at_gate(self) -> None:
        with self.lock:
            self._standing += 1
            self.most_at_once = max(self.most_at_once, self._standing)
        self._came.release()
        self.gate.wait(60)
        with self.lock:
            self._standing -= 1

    def reached(self, count: int = 1) -> None:
        """Waits until so many more requests stand at the gate."""
        for _ in range(count):
            assert self._came.acquire(timeout=60)

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def etag(name: str) -> str:
    return f'"{hashlib.md5(FILES[name]).hexdigest()}"'


@contextmanager
def serving() -> Iterator[SourceServer]:
    server = SourceServer()
    try:
        yield server
    finally:
        server.close()


def _handler(server: SourceServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with server.lock:
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
            try:
                self._answer(*self.path.strip("/").partition("?")[0].split("/", 1))
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def _answer(self, kind: str, name: str = "") -> None:
            match kind:
                case "files" if name in FILES:
                    self._send(FILES[name], {"ETag": etag(name)})
                case "gated":
                    self._head(200, {"Content-Length": "4"})
                    self.wfile.write(b"ab")
                    server.stand_at_gate()
                    self.wfile.write(b"cd")
                case "truncated":
                    self._head(200, {"Content-Length": "20"})
                    self.wfile.write(b"only ten b")
                    self.close_connection = True
                case "compressed":
                    self._send(b"\x1f\x8bnot really gzip", {"Content-Encoding": "gzip"})
                case "redirect":
                    hops, _, target = name.partition("/")
                    self._redirect(f"/{target}" if hops == "1" else f"/redirect/{int(hops) - 1}/{target}")
                case "loop":
                    self._redirect("/loop")
                case "elsewhere":
                    self._redirect("ftp://127.0.0.1/a")
                case "nonsense":
                    self.wfile.write(b"\x00\x01 no HTTP at all\r\n\r\n")
                    self.close_connection = True
                case _:
                    self._head(404, {"Content-Length": "0"})

        def _send(self, body: bytes, headers: dict[str, str]) -> None:
            self._head(200, {"Content-Length": str(len(body)), **headers})
            self.wfile.write(body)

        def _redirect(self, to: str) -> None:
            self._head(302, {"Location": to, "Content-Length": "0"})

        def _head(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """The tests say what went wrong."""

    return Handler
