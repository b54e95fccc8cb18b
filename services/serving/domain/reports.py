"""What the servers report, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.serving.domain.endpoint import Deployment, Endpoint, Fact, Second
from trainyard.endpoint.v1.endpoint_pb2 import (
    EndpointFailed,
    EndpointLive,
    EndpointProgress,
    EndpointSlept,
    EndpointUnhealthy,
    TrafficShifted,
    VersionLoaded,
)
from trainyard.event.v1.artifact_pb2 import Failure

_MAX_TEXT = 3000


@dataclass(frozen=True)
class Progressed:
    endpoint: str
    deployment: int
    why: str


@dataclass(frozen=True)
class CameUp:
    """A server has loaded what the deployment serves and answered a first call."""

    endpoint: str
    deployment: int
    digest: str
    signatures: tuple[str, ...]
    grpc_address: str
    scoring_uri: str
    at: datetime


@dataclass(frozen=True)
class WentDown:
    endpoint: str
    deployment: int
    why: str


@dataclass(frozen=True)
class GaveUp:
    endpoint: str
    deployment: int
    failure: Failure


@dataclass(frozen=True)
class WentIdle:
    """Nobody called for as long as its limits say, or others need the memory."""

    endpoint: str
    deployment: int
    why: str = ""
    memory_bytes: int = 0  # that its server takes; 0: not known


Report = Progressed | CameUp | WentDown | GaveUp | WentIdle


def may_sleep(endpoint: Endpoint, deployment: int) -> bool:
    """That deployment answers, and nothing else is being done with its endpoint."""
    return endpoint.serves(deployment) and endpoint.up and endpoint.second is None and not endpoint.is_starting


def conclude(endpoint: Endpoint | None, report: Report) -> list[Fact]:
    """What a report leads to. One of a deployment that is no longer wanted leads to nothing."""
    if endpoint is None or endpoint.deleted:
        return []
    number = report.deployment
    starts = endpoint.is_starting and endpoint.latest.number == number
    serves = endpoint.serves(number) and not endpoint.asleep  # a word of before its sleep may be late
    if (second := endpoint.second) is not None and second.deployment.number == number:
        return _of_second(endpoint, second, report)
    match report:
        case Progressed() if starts or (serves and not endpoint.up):
            told = number == endpoint.latest.number and report.why != endpoint.why
            return [EndpointProgress(endpoint=endpoint.name, deployment=number, why=report.why[:_MAX_TEXT])] if told else []
        case CameUp() if starts:
            return [_loaded(endpoint.latest, report), _live(report)]
        case CameUp() if serves and not endpoint.up:
            return [_live(report)]
        case WentDown() if serves and endpoint.up:
            return [EndpointUnhealthy(endpoint=endpoint.name, deployment=number, why=report.why[:_MAX_TEXT])]
        case WentIdle() if may_sleep(endpoint, number):
            return [EndpointSlept(endpoint=endpoint.name, deployment=number, why=report.why[:_MAX_TEXT], memory_bytes=report.memory_bytes)]
        case GaveUp() if starts or serves:
            return [EndpointFailed(endpoint=endpoint.name, deployment=number, failure=report.failure)]
    return []


def _of_second(endpoint: Endpoint, second: Second, report: Report) -> list[Fact]:
    """The first time that it answers the traffic shifts."""
    number = report.deployment
    match report:
        case CameUp() if not second.lived:
            shifted = TrafficShifted(
                submission_id=second.deployment.submission_id, endpoint=endpoint.name, deployment=number, split=second.split
            )
            shifted.at.FromDatetime(report.at)
            return [_loaded(second.deployment, report), _live(report), shifted]
        case CameUp() if not second.up:
            return [_live(report)]
        case WentDown() if second.up:
            return [EndpointUnhealthy(endpoint=endpoint.name, deployment=number, why=report.why[:_MAX_TEXT])]
        case GaveUp():
            return [EndpointFailed(endpoint=endpoint.name, deployment=number, failure=report.failure)]
    return []


def _loaded(deployment: Deployment, report: CameUp) -> VersionLoaded:
    return VersionLoaded(
        endpoint=report.endpoint,
        deployment=deployment.number,
        model=deployment.model,
        version=deployment.version,
        digest=report.digest,
        signatures=report.signatures,
    )


def _live(report: CameUp) -> EndpointLive:
    fact = EndpointLive(
        endpoint=report.endpoint, deployment=report.deployment, grpc_address=report.grpc_address, scoring_uri=report.scoring_uri
    )
    fact.at.FromDatetime(report.at)
    return fact
