"""What an endpoint is, and what each fact makes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from trainyard.endpoint.v1.endpoint_pb2 import (
    ENDPOINT_STATE_DELETED,
    ENDPOINT_STATE_FAILED,
    ENDPOINT_STATE_HEALTHY,
    ENDPOINT_STATE_TRANSITIONING,
    ENDPOINT_STATE_UNHEALTHY,
    EndpointDeleted,
    EndpointFailed,
    EndpointLive,
    EndpointProgress,
    EndpointRejected,
    EndpointStarting,
    EndpointState,
    EndpointUnhealthy,
    VersionLoaded,
)
from trainyard.event.v1.artifact_pb2 import Failure

Fact = (
    EndpointStarting
    | EndpointProgress
    | VersionLoaded
    | EndpointLive
    | EndpointUnhealthy
    | EndpointFailed
    | EndpointDeleted
    | EndpointRejected
)


@dataclass(frozen=True)
class Deployment:
    """One attempt to put a version behind an endpoint; the number fences its servers."""

    number: int
    model: str
    version: int
    submission_id: str

    @property
    def model_id(self) -> str:
        return f"{self.model}:{self.version}"


@dataclass(frozen=True)
class Endpoint:
    """`latest` is what was asked for last. `serving` is what answers, or is being brought back: `latest` once it went live, its
    predecessor until then. `failure` is why `latest` will not go live, or went down for good."""

    name: str
    latest: Deployment
    why: str = ""
    failure: Failure | None = None
    serving: Deployment | None = None
    up: bool = False
    grpc_address: str = ""
    scoring_uri: str = ""
    deleted: bool = False

    @property
    def is_starting(self) -> bool:
        """`latest` is on its way."""
        return not self.deleted and self.failure is None and not self.serves(self.latest.number)

    def serves(self, deployment: int) -> bool:
        return self.serving is not None and self.serving.number == deployment


def evolve(endpoint: Endpoint | None, fact: Fact) -> Endpoint | None:
    """The endpoint after a fact. Total: what does not fit leaves it as it is, so that a repeat changes nothing."""
    if isinstance(fact, EndpointStarting):
        return _started(endpoint, fact)
    if endpoint is None or endpoint.deleted:
        return endpoint
    match fact:
        case EndpointProgress() if fact.deployment == endpoint.latest.number and endpoint.failure is None:
            return replace(endpoint, why=fact.why)
        case EndpointLive() if endpoint.is_starting and fact.deployment == endpoint.latest.number:
            return _up(replace(endpoint, serving=endpoint.latest, why=""), fact)
        case EndpointLive() if endpoint.serves(fact.deployment):
            return _up(replace(endpoint, why="" if fact.deployment == endpoint.latest.number else endpoint.why), fact)
        case EndpointUnhealthy() if endpoint.serves(fact.deployment):
            return replace(endpoint, up=False, why=fact.why if fact.deployment == endpoint.latest.number else endpoint.why)
        case EndpointFailed():
            return _failed(endpoint, fact)
        case EndpointDeleted():
            return _silent(replace(endpoint, deleted=True, why=""))
    return endpoint


def _started(endpoint: Endpoint | None, fact: EndpointStarting) -> Endpoint:
    latest = Deployment(fact.deployment, fact.model, fact.version, fact.submission_id)
    if endpoint is None:
        return Endpoint(fact.endpoint, latest, why="accepted")
    if fact.deployment <= endpoint.latest.number:
        return endpoint
    return replace(endpoint, latest=latest, why="accepted", failure=None, deleted=False)


def _up(endpoint: Endpoint, fact: EndpointLive) -> Endpoint:
    return replace(endpoint, up=True, grpc_address=fact.grpc_address, scoring_uri=fact.scoring_uri)


def _failed(endpoint: Endpoint, fact: EndpointFailed) -> Endpoint:
    if endpoint.serves(fact.deployment):
        endpoint = _silent(endpoint)
    if fact.deployment == endpoint.latest.number and endpoint.failure is None:
        return replace(endpoint, failure=fact.failure, why=fact.failure.message)
    return endpoint


def _silent(endpoint: Endpoint) -> Endpoint:
    return replace(endpoint, serving=None, up=False, grpc_address="", scoring_uri="")


def wanted(endpoint: Endpoint) -> list[Deployment]:
    """The deployments that should have a server: what answers, and what is to take its place."""
    serving = [endpoint.serving] if endpoint.serving is not None else []
    return [*serving, endpoint.latest] if endpoint.is_starting else serving


def state_of(endpoint: Endpoint) -> EndpointState:
    if endpoint.deleted:
        return ENDPOINT_STATE_DELETED
    if endpoint.failure is not None:
        return ENDPOINT_STATE_FAILED
    if endpoint.is_starting:
        return ENDPOINT_STATE_TRANSITIONING
    return ENDPOINT_STATE_HEALTHY if endpoint.up else ENDPOINT_STATE_UNHEALTHY


def why_of(endpoint: Endpoint) -> str:
    """In words, with what answers in the meantime."""
    older = endpoint.serving
    if older is None or older.number == endpoint.latest.number:
        return endpoint.why
    doing = "answers meanwhile" if endpoint.up else "is being brought back meanwhile"
    return f"{endpoint.why.rstrip('.')}; {older.model_id} (deployment {older.number}) {doing}"
