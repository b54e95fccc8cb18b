"""Which model versions endpoints use, folded from trainyard.endpoints: what is deployed, and what somebody has asked to deploy.

Cautious where it cannot know: a version counts as used rather than as free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from google.protobuf.message import Message

from trainyard.endpoint.v1.endpoint_pb2 import (
    DeployEndpoint,
    EndpointChanged,
    EndpointDeleted,
    EndpointFailed,
    EndpointLive,
    EndpointRejected,
    EndpointStarting,
    RollBackEndpoint,
    TrafficShifted,
    UpdateEndpoint,
    UpdateTraffic,
)

Request = DeployEndpoint | UpdateEndpoint | RollBackEndpoint | UpdateTraffic
FACTS: tuple[type[Message], ...] = (
    EndpointStarting,
    EndpointLive,
    EndpointFailed,
    EndpointDeleted,
    EndpointRejected,
    EndpointChanged,
    TrafficShifted,
)


@dataclass(frozen=True)
class Use:
    """Of a version, or of whatever an alias of the model points at."""

    model: str
    version: int = 0
    alias: str = ""

    def is_of(self, model: str, version: int, aliases: Mapping[str, int]) -> bool:
        """`aliases` are the model's, with the versions that they point at."""
        return self.model == model and version == (aliases.get(self.alias, 0) if self.alias else self.version)


@dataclass(frozen=True)
class Deployment:
    """`number` fences: older ones say nothing any more."""

    number: int
    uses: tuple[Use, ...]


@dataclass(frozen=True)
class Asked:
    """A deployment that was asked for and not answered. To roll back: to anything that was live before."""

    endpoint: str
    uses: tuple[Use, ...]
    rolls_back: bool = False


@dataclass(frozen=True)
class Endpoint:
    """`latest` is what was decided last, `serving` what answers meanwhile; None: it failed, or the endpoint was deleted. `newest`
    is the newest number that was seen. `beside` takes a part of the calls of the one that answers. `follows` is an alias, with the
    version that it pointed at when the latest was decided."""

    name: str
    newest: int = 0
    latest: Deployment | None = None
    serving: Deployment | None = None
    was_live: tuple[Use, ...] = ()
    follows: Use | None = None
    beside: Deployment | None = None


def evolve(endpoint: Endpoint, fact: Message) -> Endpoint:
    """The endpoint after one of the FACTS; whatever does not count leaves it as it is."""
    match fact:
        case EndpointStarting() if fact.deployment > endpoint.newest and fact.HasField("beside"):
            return replace(endpoint, newest=fact.deployment, beside=Deployment(fact.deployment, uses_of(fact)))
        case EndpointStarting() if fact.deployment > endpoint.newest:
            follows = Use(fact.model, fact.alias_version, fact.alias) if fact.alias else None
            return replace(endpoint, newest=fact.deployment, latest=Deployment(fact.deployment, uses_of(fact)), follows=follows)
        case EndpointLive() if endpoint.latest is not None and fact.deployment == endpoint.latest.number:
            was_live = tuple(dict.fromkeys([*endpoint.was_live, *endpoint.latest.uses]))
            took_over = endpoint.serving is None or endpoint.serving.number != fact.deployment
            return replace(endpoint, serving=endpoint.latest, was_live=was_live, beside=None if took_over else endpoint.beside)
        case EndpointFailed():
            latest, serving = _unless(endpoint.latest, fact.deployment), _unless(endpoint.serving, fact.deployment)
            beside = _unless(endpoint.beside, fact.deployment) if serving is not None else None
            return replace(endpoint, latest=latest, serving=serving, beside=beside)
        case TrafficShifted() if not fact.deployment:
            return replace(endpoint, beside=None)
        case EndpointDeleted():
            return replace(endpoint, latest=None, serving=None, was_live=(), follows=None, beside=None)
    return endpoint


def asked_by(request: Request) -> Asked:
    match request:
        case DeployEndpoint():
            first = Use(request.model, request.version, request.alias)
            return Asked(request.endpoint, (first, *(Use(it.model, it.version) for it in request.more_models)))
        case UpdateEndpoint():
            named = [Use(it.model, it.version, request.alias if not place else "") for place, it in enumerate(request.models)]
            return Asked(request.endpoint, tuple(named))
        case UpdateTraffic():
            return Asked(request.endpoint, (Use(request.beside.model, request.beside.version),) if request.HasField("beside") else ())
    return Asked(request.endpoint, (), rolls_back=True)


def uses_of(fact: EndpointStarting) -> tuple[Use, ...]:
    """The versions, whichever alias led to them."""
    return (Use(fact.model, fact.version), *(Use(it.model, it.version) for it in fact.more_models))


def is_answerable(request: Request, key: str) -> bool:
    """Whether the serving service will answer it; of any other it makes a dead letter."""
    named = 1 <= len(request.submission_id) <= 128 and request.submission_id.isprintable()
    return named and len(request.endpoint) <= 255 and key == request.endpoint


def told(endpoint: Endpoint, model: str, version: int, aliases: Mapping[str, int]) -> Iterator[str]:
    """How it uses the version, in words; nothing where it does not."""
    for deployment, how in ((endpoint.latest, "has"), (endpoint.serving, "answers with"), (endpoint.beside, "splits its calls with")):
        if deployment is not None and any(use.is_of(model, version, aliases) for use in deployment.uses):
            yield f"endpoint {endpoint.name!r} {how} it (deployment {deployment.number})"
            return
    # The alias has moved, maybe more than once, and the deployments that follow were not heard of yet.
    follows = endpoint.follows
    if follows is not None and follows.model == model and aliases.get(follows.alias, 0) not in (0, follows.version):
        yield f"endpoint {endpoint.name!r} is about to follow {model}@{follows.alias}"


def told_asked(asked: Asked, endpoint: Endpoint | None, model: str, version: int, aliases: Mapping[str, int]) -> Iterator[str]:
    """As `told`, of a deployment that was asked for; `endpoint`: its own, where there is one."""
    uses = endpoint.was_live if asked.rolls_back and endpoint is not None else asked.uses
    if endpoint is not None and endpoint.serving is not None and endpoint.serving.uses:
        # Who asks for a split may leave the model's name out.
        uses = tuple(it if it.model or not it.version else replace(it, model=endpoint.serving.uses[0].model) for it in uses)
    if any(use.is_of(model, version, aliases) for use in uses):
        yield f"endpoint {asked.endpoint!r} is about to be deployed with it"


def _unless(deployment: Deployment | None, number: int) -> Deployment | None:
    return None if deployment is not None and deployment.number == number else deployment
