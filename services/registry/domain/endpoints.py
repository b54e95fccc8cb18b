"""Which model versions endpoints use, folded from trainyard.endpoints: what is deployed, and what somebody has asked to deploy.

Cautious where it cannot know: a version counts as used rather than as free.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from google.protobuf.message import Message

from trainyard.endpoint.v1.endpoint_pb2 import (
    DeleteEndpoint,
    DeployEndpoint,
    EndpointDeleted,
    EndpointFailed,
    EndpointLive,
    EndpointRejected,
    EndpointStarting,
)

REQUESTS: tuple[type[Message], ...] = (DeployEndpoint, DeleteEndpoint)
FACTS: tuple[type[Message], ...] = (EndpointStarting, EndpointLive, EndpointFailed, EndpointDeleted, EndpointRejected)


@dataclass(frozen=True)
class Use:
    """Of a version, or of whatever an alias of the model points at."""

    model: str
    version: int = 0
    alias: str = ""

    def is_of(self, model: str, version: int, pointing: frozenset[str]) -> bool:
        """`pointing` are the aliases that point at the version."""
        return self.model == model and (self.version == version or self.alias in pointing)


@dataclass(frozen=True)
class Deployment:
    """`number` fences: older ones say nothing any more."""

    number: int
    uses: tuple[Use, ...]


@dataclass(frozen=True)
class Asked:
    """A deployment that was asked for and not answered."""

    endpoint: str
    uses: tuple[Use, ...]


@dataclass(frozen=True)
class Endpoint:
    """`latest` is what was decided last, `serving` what answers meanwhile; None: it failed, or the endpoint was deleted. `newest`
    is the newest number that was seen."""

    name: str
    newest: int = 0
    latest: Deployment | None = None
    serving: Deployment | None = None


def evolve(endpoint: Endpoint, fact: Message) -> Endpoint:
    """The endpoint after one of the FACTS; whatever does not count leaves it as it is."""
    match fact:
        case EndpointStarting() if fact.deployment > endpoint.newest:
            return replace(endpoint, newest=fact.deployment, latest=Deployment(fact.deployment, uses_of(fact)))
        case EndpointLive() if endpoint.latest is not None and fact.deployment == endpoint.latest.number:
            return replace(endpoint, serving=endpoint.latest)
        case EndpointFailed():
            return replace(
                endpoint,
                latest=_unless(endpoint.latest, fact.deployment),
                serving=_unless(endpoint.serving, fact.deployment),
            )
        case EndpointDeleted():
            return replace(endpoint, latest=None, serving=None)
    return endpoint


def uses_of(message: EndpointStarting | DeployEndpoint) -> tuple[Use, ...]:
    return (Use(message.model, message.version),)


def is_answerable(request: DeployEndpoint, key: str) -> bool:
    """Whether the serving service will answer it; of any other it makes a dead letter."""
    named = 1 <= len(request.submission_id) <= 128 and request.submission_id.isprintable()
    return named and len(request.endpoint) <= 255 and key == request.endpoint


def told(endpoint: Endpoint, model: str, version: int, pointing: frozenset[str]) -> Iterator[str]:
    """How it uses the version, in words; nothing where it does not."""
    for deployment, how in ((endpoint.latest, "has"), (endpoint.serving, "answers with")):
        if deployment is not None and any(use.is_of(model, version, pointing) for use in deployment.uses):
            yield f"endpoint {endpoint.name!r} {how} it (deployment {deployment.number})"
            return


def _unless(deployment: Deployment | None, number: int) -> Deployment | None:
    return None if deployment is not None and deployment.number == number else deployment
