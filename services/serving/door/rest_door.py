"""REST through the door: /v1/models/NAME..., /v2/models/NAME... by the model's name, and /endpoints/NAME/... for each endpoint, code too."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import threading
from collections.abc import Mapping

from services.serving.door import about, peek
from services.serving.door.grpc_door import Shadows
from services.serving.door.routes import AWAKE_SECONDS, ENDPOINT_HEADER, Backend, NoRoute, NotAwake, Refused, Table
from services.serving.model_server.http_messages import Answer, Request, json_answer
from services.serving.model_server.rest_front import RestServer
from services.serving.pinned import context_for

_BY_MODEL = re.compile(r"(?i)/v[12]/models/(?P<model>[^/:]+)(?:/versions/(?P<version>[^/:]+))?")
_BY_ENDPOINT = re.compile(r"/endpoints/(?P<endpoint>[a-z][-a-z0-9]{2,31})(?P<rest>/.*)")
# The body comes without its encoding, and each connection has its own ways.
_NOT_PASSED_ON = frozenset(
    ("connection", "content-encoding", "content-length", "host", "keep-alive", "te", "transfer-encoding", "upgrade", "expect")
)
_NOT_PASSED_BACK = frozenset(("connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"))
_SECONDS = 120.0


class Connections(threading.local):
    """Kept ones to each server, of one thread."""

    def __init__(self) -> None:
        self.open: dict[tuple[str, str], http.client.HTTPConnection] = {}

    def ask(self, backend: Backend, request: Request, target: str) -> Answer:
        """Raises OSError and http.client.HTTPException where the server does not answer."""
        headers = {name: value for name, value in request.headers.items() if name not in _NOT_PASSED_ON}
        kept = self.open.pop(_key(backend), None)
        try:
            return self._once(kept or _connection(backend), backend, request, target, headers)
        except (ConnectionError, ssl.SSLEOFError):
            # Closed while it was idle, or by a server that goes: nothing was answered, and the server or its successor takes a new one.
            return self._once(_connection(backend), backend, request, target, headers)

    def _once(
        self, connection: http.client.HTTPConnection, backend: Backend, request: Request, target: str, headers: Mapping[str, str]
    ) -> Answer:
        try:
            connection.request(request.method, target, request.body if request.method == "POST" else None, dict(headers))
            got = connection.getresponse()
            body = got.read()
        except BaseException:
            connection.close()
            raise
        if got.will_close:
            connection.close()
        else:
            self.open[_key(backend)] = connection
        back = {name: value for name, value in got.getheaders() if name.lower() not in _NOT_PASSED_BACK}
        return Answer(got.status, body, back)


def _key(backend: Backend) -> tuple[str, str]:
    return backend.rest, backend.certificate


def _connection(backend: Backend) -> http.client.HTTPConnection:
    if backend.certificate:
        return http.client.HTTPSConnection(backend.rest, timeout=_SECONDS, context=context_for(backend.certificate))
    return http.client.HTTPConnection(backend.rest, timeout=_SECONDS)


class RestDoor:
    def __init__(self, table: Table, shadows: Shadows) -> None:
        self._table = table
        self._shadows = shadows
        self._connections = Connections()

    def __call__(self, request: Request) -> Answer:
        if request.path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
            return Answer(200, b'{"status": "ok"}')
        path = request.path.rstrip("/").lower()
        if path == "/v2" and request.method == "GET":
            return json_answer(200, about.server())
        if path == "/v2/repository/index" and request.method == "POST":
            return json_answer(200, about.index(self._table.listed(), ready=_wants_ready(request.body)))
        try:
            return self._pass(request)
        except NotAwake as error:
            return _error(503, str(error))
        except Refused as error:
            return _error(401, str(error))
        except NoRoute as error:
            return _error(404, str(error))
        except (OSError, http.client.HTTPException) as error:
            return _error(503, f"the server does not answer: {type(error).__name__}: {error}")

    def _pass(self, request: Request) -> Answer:
        target, version = request.target, None
        if (match := _BY_ENDPOINT.match(target)) is not None:
            route, target = self._table.by_endpoint(match["endpoint"]), match["rest"]
            if (inside := _BY_MODEL.match(target.partition("?")[0])) is not None and not route.has_code:
                version = peek.version_in(inside["version"] or "")
        elif (match := _BY_MODEL.match(request.path)) is not None:
            route = self._table.by_model(match["model"], request.headers.get(ENDPOINT_HEADER) or "")
            version = peek.version_in(match["version"] or "")
        else:
            raise NoRoute(f"there is no {request.path[:200]}; models are under /v1/models/NAME, /v2/models/NAME, and /endpoints/NAME/")
        route = self._table.awake(route, AWAKE_SECONDS, request.headers.get("authorization"))
        chosen, copy = self._table.choose(route, request.headers.get, version)
        if copy is not None:
            backend, path = copy, target
            self._shadows.send(lambda: self._connections.ask(backend, request, path), len(request.body))
        return self._told(self._connections.ask(chosen, request, target), chosen)

    @staticmethod
    def _told(answer: Answer, backend: Backend) -> Answer:
        return Answer(answer.status, answer.body, {**answer.headers, "trainyard-deployment": str(backend.deployment)})


def _wants_ready(body: bytes) -> bool:
    """Whether only models that run are asked for; what cannot be read asks for all."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(told, dict) and told.get("ready") is True


def _error(status: int, why: str) -> Answer:
    return Answer(status, json.dumps({"error": why}).encode())


def start(table: Table, shadows: Shadows, host: str, port: int) -> RestServer:
    """Raises OSError if the port is taken."""
    return RestServer({"": RestDoor(table, shadows)}, host, port, calls_at_once=64)
