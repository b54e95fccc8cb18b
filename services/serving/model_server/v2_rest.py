"""The Open Inference Protocol and Triton's extensions over REST: /v2/... A request in, an answer out; sockets are the front's affair."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from services.serving.model_server import encoding, v2_about, v2_infer, v2_json
from services.serving.model_server.errors import (
    DEADLINE_EXCEEDED,
    HTTP,
    INTERNAL,
    NOT_FOUND,
    PERMISSION_DENIED,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    UNIMPLEMENTED,
    UNKNOWN,
    ServeError,
    invalid,
)
from services.serving.model_server.grpc_calls import Observe
from services.serving.model_server.http_messages import Answer, Request, json_answer
from services.serving.model_server.served import Models

PREFIX = "/v2"
HEADER_LENGTH = "Inference-Header-Content-Length"
# As Triton maps its codes; what stands for a queue that is full or was too long is its UNAVAILABLE, and all else is 400.
_STATUS = {
    UNKNOWN: 500,
    INTERNAL: 500,
    NOT_FOUND: 404,
    UNAVAILABLE: 503,
    UNIMPLEMENTED: 501,
    PERMISSION_DENIED: 403,
    RESOURCE_EXHAUSTED: 503,
    DEADLINE_EXCEEDED: 503,
}
_MODEL = r"/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?"
_NOT_OFFERED = re.compile(r"/(?:systemsharedmemory|cudasharedmemory|trace|logging)(?:/.*)?|/models/[^/]+/trace/setting")


Work = Callable[["InferenceRoute", Request, Mapping[str, str]], Answer]


class InferenceRoute:
    """A route for /v2."""

    def __init__(self, models: Models, is_ready: Callable[[], bool], observe: Observe, seconds: float) -> None:
        """`seconds`: what a call has."""
        self._models = models
        self._is_ready = is_ready
        self._observe = observe
        self._seconds = seconds

    def __call__(self, request: Request) -> Answer:
        try:
            found = self._respond(request)
        except ServeError as error:
            return json_answer(status_of(error), {"error": error.message})
        return _packed(found, request.headers.get("Accept-Encoding") or "")

    def _respond(self, request: Request) -> Answer:
        path = request.path[len(PREFIX) :].rstrip("/")
        allowed = []
        for method, pattern, work in _ROUTES:
            if match := pattern.fullmatch(path):
                if method == request.method:
                    return work(self, request, {name: unquote(value or "") for name, value in match.groupdict().items()})
                allowed.append(method)
        if allowed:
            wrong = json_answer(405, {"error": f"{PREFIX}{path} is asked by {allowed[0]}"})
            return replace(wrong, headers={"Allow": ", ".join(allowed)})
        if _NOT_OFFERED.fullmatch(path):
            raise ServeError(UNIMPLEMENTED, f"{PREFIX}{path} is not offered by this server; it has {', '.join(v2_about.EXTENSIONS)}")
        raise ServeError(NOT_FOUND, f"There is no {PREFIX}{path}; models are under {PREFIX}/models/")

    def _live(self, _: Request, __: Mapping[str, str]) -> Answer:
        return json_answer(200, {"live": True}, prompt=True)

    def _ready(self, _: Request, __: Mapping[str, str]) -> Answer:
        return _readiness(self._is_ready())

    def _server(self, _: Request, __: Mapping[str, str]) -> Answer:
        return json_answer(200, v2_about.server())

    def _model_ready(self, _: Request, names: Mapping[str, str]) -> Answer:
        return _readiness(v2_infer.is_ready(self._models, names["name"], names["version"]))

    def _model(self, _: Request, names: Mapping[str, str]) -> Answer:
        return json_answer(200, v2_about.model(self._models, names["name"], names["version"]))

    def _config(self, _: Request, names: Mapping[str, str]) -> Answer:
        return json_answer(200, v2_about.config(self._models, names["name"], names["version"]))

    def _statistics(self, _: Request, names: Mapping[str, str]) -> Answer:
        return json_answer(200, v2_about.statistics(self._models, names.get("name", ""), names.get("version", "")))

    def _infer(self, request: Request, names: Mapping[str, str]) -> Answer:
        begin, code = time.perf_counter_ns(), INTERNAL
        try:
            until = time.monotonic() + self._seconds
            asked, form = v2_json.asked(names["name"], names["version"], request.body, _header_length(request), until)
            answered = v2_infer.infer(self._models, asked)
            body, json_bytes = v2_json.answer(answered, form)
            code = 0
        except ServeError as error:
            code = error.code
            raise
        finally:
            self._observe(names["name"], "ModelInfer", "REST", code, time.perf_counter_ns() - begin)
        if json_bytes is None:
            return Answer(200, body, prompt=answered.prompt)
        headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(json_bytes)}
        return Answer(200, body, headers, prompt=answered.prompt)

    def _index(self, request: Request, _: Mapping[str, str]) -> Answer:
        asked = _content(request)
        ready = asked.get("ready", False)
        if not isinstance(ready, bool):
            raise invalid("Unable to parse 'ready': it must be true or false")
        return json_answer(200, v2_about.index(self._models, ready=ready))

    def _load(self, request: Request, names: Mapping[str, str]) -> Answer:
        v2_about.load(self._models, names["name"], _parameters(request))
        return Answer(200)

    def _unload(self, request: Request, names: Mapping[str, str]) -> Answer:
        _parameters(request)
        v2_about.unload(self._models, names["name"])
        return Answer(200)


def _readiness(ready: bool) -> Answer:
    """The status is what the protocol says; KServe's client reads the body, which the protocol leaves open."""
    return json_answer(200 if ready else 400, {"ready": ready}, prompt=True)


def status_of(error: ServeError) -> int:
    """A status that was chosen for this one error (a body too large) stays."""
    usual = HTTP.get(error.code, 500)
    return error.http_status if error.http_status != usual else _STATUS.get(error.code, 400)


def _content(request: Request) -> Mapping[str, Any]:
    return v2_json.parsed_object(request.body) if request.body.strip() else {}


def _parameters(request: Request) -> Mapping[str, Any]:
    parameters = _content(request).get("parameters", {})
    if not isinstance(parameters, dict):
        raise invalid("Unable to parse 'parameters': it must be an object")
    return parameters


def _header_length(request: Request) -> int | None:
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise invalid(f"Unable to parse {HEADER_LENGTH}, got: {text[:100]}")
    if int(text) > len(request.body):
        raise invalid(f"{HEADER_LENGTH} is {text}, and the body has {len(request.body)} bytes")
    return int(text)


def _packed(answer: Answer, accept: str) -> Answer:
    wanted = encoding.accepted(accept) if accept else ""
    packed = encoding.deflate(answer.body, wanted)
    return answer if packed is None else replace(answer, body=packed, headers={**answer.headers, "Content-Encoding": wanted})


def _route(method: str, path: str, work: Work) -> tuple[str, re.Pattern[str], Work]:
    return method, re.compile(path), work


# The first that fits: /models/stats is no model.
_ROUTES = (
    _route("POST", _MODEL + "/infer", InferenceRoute._infer),
    _route("GET", "/health/live", InferenceRoute._live),
    _route("GET", "/health/ready", InferenceRoute._ready),
    _route("GET", "", InferenceRoute._server),
    _route("GET", "/models/stats", InferenceRoute._statistics),
    _route("GET", _MODEL + "/ready", InferenceRoute._model_ready),
    _route("GET", _MODEL + "/config", InferenceRoute._config),
    _route("GET", _MODEL + "/stats", InferenceRoute._statistics),
    _route("GET", _MODEL, InferenceRoute._model),
    _route("POST", "/repository/index", InferenceRoute._index),
    _route("POST", "/repository/models/(?P<name>[^/]+)/load", InferenceRoute._load),
    _route("POST", "/repository/models/(?P<name>[^/]+)/unload", InferenceRoute._unload),
)
