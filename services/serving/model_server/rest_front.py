"""REST beside gRPC: /v1/models/..., /healthz, /readyz. One thread a connection; bodies are capped, inflated ones too."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import traceback
import zlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from services.serving.model_server import rest_json
from services.serving.model_server.errors import NOT_FOUND, RESOURCE_EXHAUSTED, UNIMPLEMENTED, ServeError, invalid
from services.serving.model_server.model import Model

MAX_BODY = 64 * 1024 * 1024
_MODEL = re.compile(r"(?i)^/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d{1,18})|/labels/(?P<label>[^/:]+))?(?P<verb>:[a-z]+|/metadata)?$")


class RestServer(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True  # a port in TIME_WAIT may be taken again; a listening one may not
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], model: Model, ready: Callable[[], bool]) -> None:
        super().__init__(address, Handler)
        self.model = model
        self.ready = ready

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError, socket.timeout)):
            traceback.print_exc(file=sys.stderr)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60  # a connection that says nothing for so long is closed
    disable_nagle_algorithm = True
    server: RestServer

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
        except ConnectionError:
            raise
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            status, body = 500, {"error": f"{type(error).__name__}: {error}"}
        if not self._body_read and (self.headers.get("Content-Length", "0") != "0" or self.headers.get("Transfer-Encoding")):
            self.close_connection = True  # what was not read would be taken for the next request
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

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
            return 200, self._metadata()
        raise invalid(f"Malformed request: GET {path}")

    def _post(self) -> tuple[int, Any]:
        body = self._body()
        match = self._match(self.path.partition("?")[0])
        verb = (match["verb"] or "").lower()
        if verb in (":classify", ":regress"):
            raise ServeError(UNIMPLEMENTED, f"{verb[1:]} is not served; use :predict")
        if verb != ":predict":
            raise invalid(f"Malformed request: POST {self.path}")
        request = rest_json.parse(body)
        model = self.server.model
        signature = model.signature(request.get("signature_name", ""))
        results = model.predict(signature.name, rest_json.inputs(request, signature))
        return 200, rest_json.answer(request, results, signature)

    def _match(self, path: str) -> re.Match[str]:
        match = _MODEL.match(path)
        if match is None:
            raise invalid(f"Malformed request: {self.command} {path}") if path.lower().startswith("/v1/") else ServeError(NOT_FOUND, f"no such path: {path}")
        self.server.model.check(match["name"], int(match["version"]) if match["version"] else None, match["label"] or "")
        return match

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding"):
            raise ServeError(UNIMPLEMENTED, "chunked bodies are not served; send Content-Length")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise invalid("Content-Length is missing or not a number")
        if len(length) > 12 or int(length) > MAX_BODY:
            raise ServeError(RESOURCE_EXHAUSTED, f"the body exceeds {MAX_BODY} bytes")
        data = self.rfile.read(int(length))
        if len(data) < int(length):
            raise ConnectionResetError("the client left in the middle of its request")
        self._body_read = True
        encoding = self.headers.get("Content-Encoding", "identity").lower()
        if encoding == "identity":
            return data
        if encoding != "gzip":
            raise ServeError(UNIMPLEMENTED, f"Content-Encoding {encoding} is not served")
        try:
            inflate = zlib.decompressobj(31)
            plain = inflate.decompress(data, MAX_BODY + 1)
        except zlib.error as error:
            raise invalid("the body is not gzip") from error
        if len(plain) > MAX_BODY:
            raise ServeError(RESOURCE_EXHAUSTED, f"the inflated body exceeds {MAX_BODY} bytes")
        if not inflate.eof:
            raise invalid("the gzip body is cut short")
        return plain

    def _status(self) -> dict[str, Any]:
        state = "AVAILABLE" if self.server.ready() else "LOADING"
        return {"version": str(self.server.model.version), "state": state, "status": {"error_code": "OK", "error_message": ""}}

    def _metadata(self) -> dict[str, Any]:
        model = self.server.model

        def tensor(item: Any) -> dict[str, Any]:
            dims = [{"size": str(size), "name": ""} for size in item.shape or ()]
            shape = {"dim": dims, "unknown_rank": item.shape is None}
            return {"dtype": f"DT_{item.tf_dtype.name.upper().replace('FLOAT32', 'FLOAT')}", "tensor_shape": shape, "name": item.name}

        signatures = {
            name: {
                "inputs": {alias: tensor(item) for alias, item in signature.inputs.items()},
                "outputs": {alias: tensor(item) for alias, item in signature.outputs.items()},
                "method_name": signature.method,
            }
            for name, signature in model.signatures.items()
        }
        spec = {"name": model.name, "signature_name": "", "version": str(model.version)}
        return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": signatures}}}

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """The base class calls this for what it cannot parse; its answer would be HTML."""
        data = json.dumps({"error": message or explain or f"HTTP {code}"}).encode()
        self.close_connection = True
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """A line a request would fill the log."""


def start(model: Model, host: str, port: int, ready: Callable[[], bool]) -> tuple[RestServer, int]:
    """Raises OSError if the port is taken."""
    server = RestServer((host, port), model, ready)
    threading.Thread(target=server.serve_forever, name="rest", daemon=True).start()
    return server, int(server.server_address[1])
