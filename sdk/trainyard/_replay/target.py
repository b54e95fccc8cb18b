"""What sampled calls are asked of again: an endpoint that is there, or one that stands for the time of the replay."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc
import httpx

from trainyard._deploying import parsed
from trainyard._endpoint_tls import channel_to, trusting
from trainyard._endpoint_waking import wake
from trainyard._errors import PlatformUnavailableException, WebserviceException
from trainyard._replay import wire

if TYPE_CHECKING:
    from trainyard._webservice import Webservice
    from trainyard._workspace import Workspace

_SECONDS = 90.0
_IDLE_SECONDS = 600  # one that was left behind, its replay having been killed, takes no memory after so long
_ENDPOINTS = "trainyard.endpoints"
_V1 = re.compile(r"(?i)/v1/models/[^/:]+(?:/(?:versions|labels)/[^/:]+)?:(predict|classify|regress)")
_V2 = re.compile(r"(?i)/v2/models/[^/]+(?:/versions/[^/]+)?/infer")
_SCORE = re.compile(r"/score(?:\?[!-~]*)?")
_SCORE_METHODS = ("GET", "POST", "OPTIONS")


class CannotAsk(Exception):
    """The call cannot be made, or nothing came back: why."""


class NobodyThere(CannotAsk):
    """Nobody took the call: it may be made again."""


@dataclass(frozen=True)
class Answer:
    status: int
    payload: Any  # a Payload


class Target:
    """`ask(sample)` makes the call again. Close it at the end."""

    def __init__(self, service: Webservice) -> None:
        """Raises WebserviceException where one that sleeps and speaks TLS, which the door does not, cannot be woken."""
        if service._certificate and not service.scoring_uri:
            wake(service)
        uri = service.scoring_uri or service.door_scoring_uri
        place = urlsplit(uri)
        head, of_model, rest = place.path.rpartition("/v1/models/")
        self._has_code = not of_model
        self._model = rest.partition(":")[0].partition("/")[0]
        self._base = f"{place.scheme}://{place.netloc}{head if of_model else place.path.removesuffix('/score')}"
        self._headers = {**service._access.headers(), "trainyard-endpoint": service.name}
        self._http = httpx.Client(timeout=_SECONDS, verify=trusting(service._certificate))
        address = service.grpc_address or service.door_grpc_address
        self._channel = None if self._has_code else channel_to(address, service._certificate)

    def close(self) -> None:
        """Its connections."""
        self._http.close()
        if self._channel is not None:
            self._channel.close()

    def ask(self, sample: Any) -> Answer:
        """Raises CannotAsk."""
        try:
            return self._ask(sample)
        except NobodyThere:  # a server that goes, or an idle connection that was closed; a successor listens already
            return self._ask(sample)

    def _ask(self, sample: Any) -> Answer:
        if sample.path:
            return self._rest(sample)
        if self._channel is None:
            raise CannotAsk("a script answers there, over REST alone")
        if not wire.is_known(sample.method):
            raise CannotAsk(f"{sample.method[:100]!r} asks no model")
        try:
            request = wire.addressed(sample.method, sample.request.content, self._model)
        except ValueError:
            request = sample.request.content  # what was no request is none again
        return self._rpc(sample.method, request)

    def _rpc(self, method: str, request: bytes) -> Answer:
        from trainyard.endpoint.v1.inference_pb2 import Payload

        assert self._channel is not None
        try:
            content = self._channel.unary_unary(method, bytes, bytes)(request, timeout=_SECONDS, metadata=tuple(self._headers.items()))
        except grpc.RpcError as error:
            told: Any = error
            if told.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise NobodyThere(f"it did not answer: {told.details()}") from error
            return Answer(told.code().value[0], Payload(content=(told.details() or "").encode()))
        return Answer(0, Payload(content=content))

    def _rest(self, sample: Any) -> Answer:
        from trainyard.endpoint.v1.inference_pb2 import Payload

        headers = dict(self._headers)
        if sample.request.content_type.isprintable() and sample.request.content_type.isascii():
            headers["content-type"] = sample.request.content_type or "application/json"
        if sample.request.json_bytes:
            headers["Inference-Header-Content-Length"] = str(sample.request.json_bytes)
        try:
            got = self._http.request(sample.method, self._uri(sample), content=sample.request.content, headers=headers)
        except (httpx.ConnectError, httpx.RemoteProtocolError) as error:
            raise NobodyThere(f"it did not answer: {type(error).__name__}: {error}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CannotAsk(f"it did not answer: {type(error).__name__}: {error}") from error
        length = got.headers.get("Inference-Header-Content-Length", "")
        return Answer(got.status_code, Payload(content=got.content, json_bytes=int(length) if length.isdecimal() else 0))

    def _uri(self, sample: Any) -> str:
        """Anybody may write to the log: no other path is asked for. Raises CannotAsk."""
        if found := _SCORE.fullmatch(sample.path):
            if self._has_code and sample.method in _SCORE_METHODS:
                return self._base + found[0]
            raise CannotAsk("a script was asked, and there a model answers without one")
        if self._has_code:
            raise CannotAsk("a model without a script was asked, and there a script answers")
        if sample.method == "POST" and (found := _V1.fullmatch(sample.path)):
            return f"{self._base}/v1/models/{self._model}:{found[1]}"
        if sample.method == "POST" and _V2.fullmatch(sample.path):
            return f"{self._base}/v2/models/{self._model}/infer"
        raise CannotAsk(f"{sample.method[:10]} {sample.path[:100]!r} asks no model")


@contextmanager
def standing_in(workspace: Workspace, replayed: str, against: str) -> Iterator[Webservice]:
    """An endpoint with the model version ("name:3" or "name@alias") in place of the first model that `replayed` serves, its script and
    all else as there; it is deleted at the end of the block. No caller reaches it without its key, and the door never counts it.

    Raises WebserviceException where it cannot go live.
    """
    from trainyard._webservice import Webservice
    from trainyard.endpoint.v1 import endpoint_pb2

    model, version, alias = parsed(against)
    latest = _latest(workspace, replayed)
    name = f"replay-{uuid.uuid4().hex[:12]}"
    request = endpoint_pb2.DeployEndpoint(
        submission_id=uuid.uuid4().hex,
        endpoint=name,
        model=model,
        version=version,
        alias=alias,
        authentication=endpoint_pb2.AUTHENTICATION_KEY,
        unlisted=True,
        description=f"replays calls of {replayed}; left behind by a replay that was killed, it may be deleted",
    )
    if latest is not None and latest.HasField("scoring"):
        request.scoring.CopyFrom(latest.scoring)
        request.more_models.extend(it for it in latest.more_models if it.model != model)
    if latest is not None:
        request.limits.CopyFrom(latest.limits)
    request.limits.idle_seconds = _IDLE_SECONDS
    request.tags.values["replay-of"] = replayed
    clients = workspace._clients
    service = None
    try:
        message = clients.call(clients.endpoints.DeployEndpoint, request, WebserviceException, timeout=120.0).endpoint
        service = Webservice._from_message(workspace, message)
        service.wait_for_deployment()
        yield service
    finally:
        # Where the answer got lost it may be there all the same.
        with suppress(WebserviceException, PlatformUnavailableException):
            clients.call(clients.endpoints.DeleteEndpoint, endpoint_pb2.DeleteEndpoint(endpoint=name), WebserviceException)


def _latest(workspace: Workspace, endpoint: str) -> Any:
    """What that endpoint was last deployed with, by the log; None where it never was."""
    from trainyard.endpoint.v1.endpoint_pb2 import EndpointStarting

    found = None
    for batch in workspace._events.read([_ENDPOINTS], key=endpoint):
        for record in batch:
            message = record.event.message if record.event is not None else None
            if isinstance(message, EndpointStarting) and message.endpoint == endpoint and not message.HasField("beside"):
                found = message if found is None or message.deployment > found.deployment else found
    return found
