"""What an endpoint is, and what each fact makes of it."""

from __future__ import annotations

import re
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
    EndpointSlept,
    EndpointStarting,
    EndpointState,
    EndpointUnhealthy,
    EndpointWoken,
    Key,
    Limits,
    ModelReference,
    Scoring,
    Tls,
    TrafficShifted,
    TrafficSplit,
    VersionLoaded,
)
from trainyard.event.v1.artifact_pb2 import Failure

Fact = (
    EndpointStarting
    | EndpointChanged
    | EndpointKeyRegenerated
    | TrafficShifted
    | EndpointProgress
    | VersionLoaded
    | EndpointLive
    | EndpointUnhealthy
    | EndpointSlept
    | EndpointWoken
    | EndpointFailed
    | EndpointDeleted
    | EndpointRejected
)
_REMEMBERED = 10
_MAX_TEXT = 3000
_PLACE = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}:(?P<port>[0-9]{1,5})"
_ADDRESS, _URI = re.compile(_PLACE), re.compile(rf"https?://{_PLACE}/[!-~]*")


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
    tls: Tls | None = None

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
class Second:
    """A deployment beside the one that answers, which takes a part of its calls while it is up."""

    deployment: Deployment
    split: TrafficSplit
    lived: bool = False
    up: bool = False
    grpc_address: str = ""
    scoring_uri: str = ""


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
    second: Second | None = None
    asleep: bool = False  # what serves has no server, for want of calls or of memory
    why_asleep: str = ""
    memory_bytes: int = 0  # that the server of what serves took when it fell asleep last; 0: not known
    numbered: int = 0  # the highest number that any deployment had; 0: see latest

    @property
    def is_starting(self) -> bool:
        """`latest` is on its way."""
        return not self.deleted and self.failure is None and not self.serves(self.latest.number)

    @property
    def highest(self) -> int:
        """Number of the newest deployment, the second one among them."""
        return max(self.numbered, self.latest.number)

    @property
    def certificates(self) -> list[Tls]:
        """That its deployments speak TLS by, or will."""
        second = self.second.deployment if self.second is not None else None
        return [it.tls for it in (self.latest, self.serving, second) if it is not None and it.tls is not None]

    def is_second(self, deployment: int) -> bool:
        return self.second is not None and self.second.deployment.number == deployment

    def serves(self, deployment: int) -> bool:
        return self.serving is not None and self.serving.number == deployment


def _is_reachable(fact: EndpointLive) -> bool:
    """Anybody may write to the log: what is no address leads nobody anywhere."""
    found = [_URI.fullmatch(fact.scoring_uri), *([_ADDRESS.fullmatch(fact.grpc_address)] if fact.grpc_address else [])]
    return all(it is not None and int(it["port"]) < 1 << 16 for it in found)


def evolve(endpoint: Endpoint | None, fact: Fact) -> Endpoint | None:
    """The endpoint after a fact. Total: what does not fit leaves it as it is, so that a repeat changes nothing."""
    if isinstance(fact, EndpointStarting):
        return _started(endpoint, fact)
    if endpoint is None or endpoint.deleted:
        return endpoint
    if isinstance(fact, EndpointLive) and not _is_reachable(fact):
        return endpoint
    if isinstance(fact, TrafficShifted):
        return _shifted(endpoint, fact)
    if isinstance(fact, EndpointLive | EndpointUnhealthy | EndpointFailed) and endpoint.is_second(fact.deployment):
        return _second_changed(endpoint, fact)
    match fact:
        case EndpointProgress() if fact.deployment == endpoint.latest.number and endpoint.failure is None:
            return replace(endpoint, why=fact.why)
        case EndpointLive() if endpoint.is_starting and fact.deployment == endpoint.latest.number:
            lived = (*endpoint.lived, endpoint.latest)[-_REMEMBERED:]
            return _up(replace(endpoint, serving=endpoint.latest, lived=lived, why="", second=None, memory_bytes=0), fact)
        case EndpointLive() if endpoint.serves(fact.deployment):
            return _up(replace(endpoint, why="" if fact.deployment == endpoint.latest.number else endpoint.why), fact)
        case EndpointUnhealthy() if endpoint.serves(fact.deployment):
            return replace(endpoint, up=False, why=fact.why if fact.deployment == endpoint.latest.number else endpoint.why)
        case EndpointSlept() if endpoint.serves(fact.deployment):
            return replace(endpoint, asleep=True, up=False, why_asleep=fact.why[:_MAX_TEXT], memory_bytes=fact.memory_bytes)
        case EndpointWoken() if endpoint.serves(fact.deployment):
            return replace(endpoint, asleep=False)
        case EndpointFailed():
            return _failed(endpoint, fact)
        case EndpointChanged():
            return replace(endpoint, settings=fact.settings)
        case EndpointKeyRegenerated():
            return replace(endpoint, keys_made=_made_anew(endpoint.keys_made, fact.key, fact.generation))
        case EndpointDeleted():
            return _silent(replace(endpoint, deleted=True, why="", numbered=endpoint.highest))
    return endpoint


def _started(endpoint: Endpoint | None, fact: EndpointStarting) -> Endpoint | None:
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
        tls=fact.tls if fact.HasField("tls") else None,
    )
    if endpoint is not None and fact.deployment <= endpoint.highest:
        return endpoint
    if fact.HasField("beside"):
        if endpoint is None or endpoint.deleted or endpoint.serving is None:
            return endpoint
        return replace(endpoint, second=Second(latest, fact.beside), numbered=fact.deployment)
    if endpoint is None or endpoint.deleted:
        return Endpoint(fact.endpoint, latest, why="accepted", settings=fact.settings, born=fact.deployment, created_at=fact.at)
    settings = fact.settings if fact.HasField("settings") else endpoint.settings
    return replace(endpoint, latest=latest, why="accepted", failure=None, settings=settings)


def _up(endpoint: Endpoint, fact: EndpointLive) -> Endpoint:
    return replace(endpoint, up=True, asleep=False, grpc_address=fact.grpc_address, scoring_uri=fact.scoring_uri)


def _failed(endpoint: Endpoint, fact: EndpointFailed) -> Endpoint:
    if endpoint.serves(fact.deployment):
        endpoint = _silent(endpoint)
    if fact.deployment == endpoint.latest.number and endpoint.failure is None:
        return replace(endpoint, failure=fact.failure, why=fact.failure.message)
    return endpoint


def _silent(endpoint: Endpoint) -> Endpoint:
    return replace(endpoint, serving=None, up=False, grpc_address="", scoring_uri="", second=None, asleep=False)


def _second_changed(endpoint: Endpoint, fact: EndpointLive | EndpointUnhealthy | EndpointFailed) -> Endpoint:
    second = endpoint.second
    assert second is not None
    match fact:
        case EndpointLive():
            up = replace(second, lived=True, up=True, grpc_address=fact.grpc_address, scoring_uri=fact.scoring_uri)
            return replace(endpoint, second=up)
        case EndpointUnhealthy():
            return replace(endpoint, second=replace(second, up=False))
    why = f"{second.deployment.title} (deployment {second.deployment.number}) beside it failed: {fact.failure.message}"
    return replace(endpoint, second=None, why=why[:3000])


def _shifted(endpoint: Endpoint, fact: TrafficShifted) -> Endpoint:
    if not fact.deployment:
        return replace(endpoint, second=None)
    if endpoint.second is None or not endpoint.is_second(fact.deployment):
        return endpoint
    return replace(endpoint, second=replace(endpoint.second, split=fact.split))


def _made_anew(made: tuple[int, int], key: Key, generation: int) -> tuple[int, int]:
    primary, secondary = made
    if key == KEY_PRIMARY:
        return max(primary, generation), secondary
    return (primary, max(secondary, generation)) if key == KEY_SECONDARY else made


def wanted(endpoint: Endpoint) -> list[Deployment]:
    """The deployments that should have a server: what answers, what stands beside it, and what is to take its place."""
    serving = [endpoint.serving] if endpoint.serving is not None and not endpoint.asleep else []
    serving += [endpoint.second.deployment] if endpoint.second is not None else []
    return [*serving, endpoint.latest] if endpoint.is_starting else serving


def state_of(endpoint: Endpoint) -> EndpointState:
    if endpoint.deleted:
        return ENDPOINT_STATE_DELETED
    if endpoint.failure is not None:
        return ENDPOINT_STATE_FAILED
    if endpoint.is_starting:
        return ENDPOINT_STATE_TRANSITIONING
    return ENDPOINT_STATE_HEALTHY if endpoint.up or endpoint.asleep else ENDPOINT_STATE_UNHEALTHY


def why_of(endpoint: Endpoint) -> str:
    """In words, with what answers in the meantime."""
    if endpoint.asleep and endpoint.failure is None and not endpoint.is_starting:
        return f"asleep: {endpoint.why_asleep or 'nobody called'}; the next call through the door starts it"
    older = endpoint.serving
    if older is None or older.number == endpoint.latest.number:
        return endpoint.why
    doing = "answers meanwhile" if endpoint.up else "sleeps meanwhile" if endpoint.asleep else "is being brought back meanwhile"
    return f"{endpoint.why.rstrip('.')}; {older.title} (deployment {older.number}) {doing}"
