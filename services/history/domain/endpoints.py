"""An endpoint as its facts tell it: which deployments answered when, with which models. Total, like a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from google.protobuf.message import Message

from services.history.domain.moment import Fact, in_order
from trainyard.endpoint.v1 import endpoint_pb2 as pb
from trainyard.history.v1.history_pb2 import ModelRef, Service, Turn

FACTS: tuple[type[Message], ...] = (
    pb.EndpointStarting,
    pb.VersionLoaded,
    pb.EndpointLive,
    pb.EndpointUnhealthy,
    pb.EndpointSlept,
    pb.EndpointWoken,
    pb.EndpointFailed,
    pb.TrafficShifted,
    pb.EndpointDeleted,
)


@dataclass
class Told:
    services: list[Service] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)


def tell(facts: Iterable[Fact]) -> Told:
    told = Told()
    started: dict[int, list[ModelRef]] = {}
    seconds: set[int] = set()
    # What answers, and what takes a part of its calls.
    first: Service | None = None
    second: Service | None = None
    for fact in in_order(facts):
        message, at = fact.message, fact.spot.at
        match message:
            case pb.EndpointStarting():
                named = [ModelRef(model=message.model, version=message.version), *(_ref(it) for it in message.more_models)]
                started[message.deployment] = [ref for ref in named if ref.model]
                if message.HasField("beside"):
                    seconds.add(message.deployment)
            case pb.EndpointLive() if message.deployment in seconds:
                if second is None and first is not None:
                    second = _begin(told, message, started, at)
            case pb.EndpointLive() if message.deployment in started and (first is None or first.deployment < message.deployment):
                _end(at, first, second)
                first, second = _begin(told, message, started, at), None
            case pb.EndpointFailed() if first is not None and first.deployment == message.deployment:
                _end(at, first, second)
                first = second = None
            case pb.EndpointFailed() if second is not None and second.deployment == message.deployment:
                _end(at, second)
                second = None
            case pb.TrafficShifted() if not message.deployment:
                _end(at, second)
                second = None
            case pb.EndpointDeleted():
                _end(at, first, second)
                first = second = None
        turn = Turn(what=message.DESCRIPTOR.name, why=_why(message)[:1000])
        turn.at.FromMilliseconds(at)
        told.turns.append(turn)
    return told


def _begin(told: Told, message: pb.EndpointLive, started: dict[int, list[ModelRef]], at: int) -> Service:
    service = Service(endpoint=message.endpoint, deployment=message.deployment, models=started[message.deployment])
    getattr(service, "from").FromMilliseconds(at)
    told.services.append(service)
    return service


def _end(at: int, *services: Service | None) -> None:
    for service in services:
        if service is not None:
            service.until.FromMilliseconds(at)


def _ref(reference: pb.ModelReference) -> ModelRef:
    return ModelRef(model=reference.model, version=reference.version)


def _why(message: Message) -> str:
    match message:
        case pb.EndpointStarting():
            return (
                f"deployment {message.deployment}: {message.model}:{message.version}"
                if message.model
                else f"deployment {message.deployment}"
            )
        case pb.EndpointUnhealthy():
            return message.why
        case pb.EndpointFailed():
            return message.failure.message
        case pb.TrafficShifted():
            share = f"{message.split.percent:g} % of the calls" if message.deployment else "all calls go to one"
            return f"deployment {message.deployment} takes {share}" if message.deployment else share
        case pb.VersionLoaded() | pb.EndpointLive() | pb.EndpointSlept() | pb.EndpointWoken():
            return f"deployment {message.deployment}"
    return ""
