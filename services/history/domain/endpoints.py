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
    pb.EndpointFailed,
    pb.EndpointDeleted,
)


@dataclass
class Told:
    services: list[Service] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)


def tell(facts: Iterable[Fact]) -> Told:
    told = Told()
    started: dict[int, list[ModelRef]] = {}
    for fact in in_order(facts):
        message, at = fact.message, fact.spot.at
        going_on = told.services[-1] if told.services and not told.services[-1].HasField("until") else None
        match message:
            case pb.EndpointStarting():
                named = [ModelRef(model=message.model, version=message.version), *(_ref(it) for it in message.more_models)]
                started[message.deployment] = [ref for ref in named if ref.model]
            case pb.EndpointLive() if message.deployment in started and (going_on is None or going_on.deployment < message.deployment):
                _end(going_on, at)
                service = Service(endpoint=message.endpoint, deployment=message.deployment, models=started[message.deployment])
                getattr(service, "from").FromMilliseconds(at)
                told.services.append(service)
            case pb.EndpointFailed() if going_on is not None and going_on.deployment == message.deployment:
                _end(going_on, at)
            case pb.EndpointDeleted():
                _end(going_on, at)
        turn = Turn(what=message.DESCRIPTOR.name, why=_why(message)[:1000])
        turn.at.FromMilliseconds(at)
        told.turns.append(turn)
    return told


def _end(service: Service | None, at: int) -> None:
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
        case pb.VersionLoaded() | pb.EndpointLive():
            return f"deployment {message.deployment}"
    return ""
