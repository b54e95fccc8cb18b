"""TensorFlow Serving's REST API, /v1/models/..., and what stands beside it: /healthz, /readyz and metrics."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from services.serving.model_server import proto_json, rest_examples, rest_json
from services.serving.model_server.errors import NOT_FOUND, ServeError, invalid
from services.serving.model_server.grpc_calls import Observe
from services.serving.model_server.http_messages import Answer, Request, json_answer
from services.serving.model_server.metrics import CONTENT_TYPE
from services.serving.model_server.rest_front import Route
from services.serving.model_server.serving_calls import Calls, ManagedModels
from services.serving.model_server.wire import Wire

_WHICH = r"(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_CALL = re.compile(rf"(?i)/v1/models/{_WHICH}:(?P<verb>classify|regress|predict)")
_LOOK = re.compile(rf"(?i)/v1/models(?:/{_WHICH})?(?P<metadata>/metadata)?")
_MAX_VERSION = (1 << 63) - 1
_NAMES = {"predict": "Predict", "classify": "Classify", "regress": "Regress"}


class ServingRoute:
    """A route for /v1."""

    def __init__(self, models: ManagedModels, calls: Calls, wire: Wire, observe: Observe, seconds: float) -> None:
        """`seconds`: what a call has."""
        self._models = models
        self._calls = calls
        self._wire = wire
        self._observe = observe
        self._seconds = seconds

    def __call__(self, request: Request) -> Answer:
        if request.method == "POST" and (match := _CALL.fullmatch(request.path)):
            return self._counted(match, request.body)
        if request.method == "GET" and (match := _LOOK.fullmatch(request.path)):
            return json_answer(200, self._look(match))
        raise invalid(f"Malformed request: {request.method} {request.path}")

    def _counted(self, match: re.Match[str], body: bytes) -> Answer:
        begin, code = time.perf_counter_ns(), 0
        verb = match["verb"].lower()
        try:
            return self._call(verb, match, body, time.monotonic() + self._seconds)
        except ServeError as error:
            code = error.code
            raise
        finally:
            self._observe(match["name"], _NAMES[verb], "REST", code, time.perf_counter_ns() - begin)

    def _call(self, verb: str, match: re.Match[str], body: bytes, deadline: float) -> Answer:
        if verb == "predict":
            with self._models.borrow(match["name"], _version(match), match["label"] or "") as model:
                return Answer(200, rest_json.predict(model, body, deadline), prompt=model.prompt)
        if verb == "classify":
            asked = rest_examples.request(self._wire.ClassificationRequest(), body)
            self._name(asked.model_spec, match)
            return json_answer(200, rest_examples.classes(self._calls.classify(asked, deadline).result))
        asked = rest_examples.request(self._wire.RegressionRequest(), body)
        self._name(asked.model_spec, match)
        return json_answer(200, rest_examples.values(self._calls.regress(asked, deadline).result))

    def _look(self, match: re.Match[str]) -> dict[str, Any]:
        if not match["name"]:
            raise invalid("Missing model name in request.")
        if match["metadata"]:
            asked = self._wire.GetModelMetadataRequest(metadata_field=["signature_def"])
            self._name(asked.model_spec, match)
            return self._metadata(self._calls.metadata(asked))
        asked = self._wire.GetModelStatusRequest()
        self._name(asked.model_spec, match)
        return proto_json.to_json(self._calls.status(asked))

    def _metadata(self, response: Any) -> dict[str, Any]:
        signatures = self._wire.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        spec = {"name": response.model_spec.name, "signature_name": "", "version": str(response.model_spec.version.value)}
        return {"model_spec": spec, "metadata": {"signature_def": proto_json.to_json(signatures)}}

    def _name(self, spec: Any, match: re.Match[str]) -> None:
        spec.name = match["name"]
        version = _version(match)
        if version is not None:
            spec.version.value = version
        elif match["label"]:
            spec.version_label = match["label"]


def _version(match: re.Match[str]) -> int | None:
    if match["version"] is None:
        return None
    if len(match["version"]) > 19 or int(match["version"]) > _MAX_VERSION:
        raise invalid(f"Failed to convert version: {match['version'][:40]} to numeric.")
    return int(match["version"])


def about_the_server(models: ManagedModels, ready: Callable[[], bool], metrics: Callable[[], str], metrics_path: str) -> Route:
    """The route for all paths that no protocol has. `metrics_path`: another one than /metrics."""

    def answer(request: Request) -> Answer:
        path = request.path
        if path == "/healthz":
            return json_answer(200, {"status": "ok"}, prompt=True)
        if path == "/readyz":
            return (
                json_answer(200, {"status": "ready"}, prompt=True) if ready() else json_answer(503, {"error": "not every model is loaded"})
            )
        if request.method == "GET" and path in ("/metrics", metrics_path):
            return Answer(200, metrics().encode(), {"Content-Type": CONTENT_TYPE})
        names = models.names()
        where = f"the model is under /v1/models/{names[0]}" if len(names) == 1 else f"models are under /v1/models/: {', '.join(names)}"
        raise ServeError(NOT_FOUND, f"There is no {path}; {where}")

    return answer
