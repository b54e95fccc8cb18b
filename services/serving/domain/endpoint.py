"""What an endpoint is, and what each fact makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from google.protobuf.timestamp_pb2 import Timestamp

from trainyard.endpoint.v1.endpoint_pb2 import (
    ENDPOINT_STATE_DELETED,
    ENDPOINT_STATE_FAILED,
    ENDPOINT_STATE_HEALTHY,
    ENDPOINT_STATE_TRANSITIONING,
    ENDPOINT_STATE_UNHEALTHY,
    KEY_PRIMARY,
    KEY_SECONDARY,
    EndpointChanged,
    EndpointDeleted,
    EndpointFailed,
    EndpointKeyRegenerated,
    EndpointLive,
    EndpointProgress,
    EndpointRejected,
    EndpointSettings,
    EndpointStarting,
    EndpointState,
    EndpointUnhealthy,
    Key,
    Limits,
    ModelReference,
    Scoring,
    VersionLoaded,
)
from trainyard.event.v1.artifact_pb2 import Failure

Fact = (
    EndpointStarting
    | EndpointChanged
    | EndpointKeyRegenerated
    | EndpointProgress
    | VersionLoaded
    | EndpointLive
    | EndpointUnhealthy
    | EndpointFailed
    | EndpointDeleted
    | EndpointRejected
)
_REMEMBERED = 10


@dataclass(frozen=True)
class Deployment:
    """One attempt to put models behind an endpoint; the number fences its servers."""

    number: int
    model: str
    version: int
    submission_id: str
    alias: str = ""
    alias_version: int = 0  # where the alias pointed when this was decided
    more_models: tuple[ModelReference, ...] = ()
    scoring: Scoring | None = None
    limits: Limits | None = None
    rolled_back_to: int = 0
    at: Timestamp | None = None

    @property
    def model_id(self) -> str:
        return f"{self.model}:{self.version}"

    @property
    def title(self) -> str:
        """What it serves, for people."""
        models = [f"{it.model}:{it.version}" for it in self.models]
        if self.scoring is None:
            return ", ".join(models)
        return " with ".join(filter(None, (self.scoring.entry_script, ", ".join(models))))

    @property
    def models(self) -> list[ModelReference]:
        first = [ModelReference(model=self.model, version=self.version)] if self.model else []
        return [*first, *self.more_models]

    @property
    def origin(self) -> int:
        """The deployment that first had this content."""
        return self.rolled_back_to or self.number


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
    settings: EndpointSettings = field(default_factory=EndpointSettings)
    lived: tuple[Deployment, ...] = ()  # that went live, oldest first; the last few
    born: int = 1  # number of the first deployment since the name was free
    created_at: Timestamp | None = None
    keys_made: tuple[int, int] = (0, 0)  # how often the primary and the secondary key were made anew

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
            lived = (*endpoint.lived, endpoint.latest)[-_REMEMBERED:]
            return _up(replace(endpoint, serving=endpoint.latest, lived=lived, why=""), fact)
        case EndpointLive() if endpoint.serves(fact.deployment):
            return _up(replace(endpoint, why="" if fact.deployment == endpoint.latest.number else endpoint.why), fact)
        case EndpointUnhealthy() if endpoint.serves(fact.deployment):
            return replace(endpoint, up=False, why=fact.why if fact.deployment == endpoint.latest.number else endpoint.why)
        case EndpointFailed():
            return _failed(endpoint, fact)
        case EndpointChanged():
            return replace(endpoint, settings=fact.settings)
        case EndpointKeyRegenerated():
            return replace(endpoint, keys_made=_made_anew(endpoint.keys_made, fact.key, fact.generation))
        case EndpointDeleted():
            return _silent(replace(endpoint, deleted=True, why=""))
    return endpoint


def _started(endpoint: Endpoint | None, fact: EndpointStarting) -> Endpoint:
    latest = Deployment(
        fact.deployment,
        fact.model,
        fact.version,
        fact.submission_id,
        alias=fact.alias,
        alias_version=fact.alias_version,
        more_models=tuple(fact.more_models),
        scoring=fact.scoring if fact.HasField("scoring") else None,
        limits=fact.limits if fact.HasField("limits") else None,
        rolled_back_to=fact.rolled_back_to,
        at=fact.at,
    )
    if endpoint is None or (endpoint.deleted and fact.deployment > endpoint.latest.number):
        return Endpoint(fact.endpoint, latest, why="accepted", settings=fact.settings, born=fact.deployment, created_at=fact.at)
    if fact.deployment <= endpoint.latest.number:
        return endpoint
    settings = fact.settings if fact.HasField("settings") else endpoint.settings
    return replace(endpoint, latest=latest, why="accepted", failure=None, settings=settings)


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


def _made_anew(made: tuple[int, int], key: Key, generation: int) -> tuple[int, int]:
    primary, secondary = made
    if key == KEY_PRIMARY:
        return max(primary, generation), secondary
    return (primary, max(secondary, generation)) if key == KEY_SECONDARY else made


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
    return f"{endpoint.why.rstrip('.')}; {older.title} (deployment {older.number}) {doing}"
