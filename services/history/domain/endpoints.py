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
    pb.TrafficShifted,
)


@dataclass
class Told:
    services: list[Service] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    deleted: bool = False

    @property
    def going_on(self) -> list[Service]:
        """Those that answer, or are being brought back."""
        return [it for it in self.services if not it.HasField("until")]


def tell(facts: Iterable[Fact]) -> Told:
    told = Told()
    started: dict[int, list[ModelRef]] = {}
    # The second deployment, which answers a part of the calls while another one goes on.
    beside: set[int] = set()
    second: Service | None = None
    for fact in in_order(facts):
        message, at = fact.message, fact.spot.at
        going_on = next((it for it in reversed(told.services) if it is not second and not it.HasField("until")), None)
        told.deleted = isinstance(message, pb.EndpointDeleted) or (told.deleted and not isinstance(message, pb.EndpointStarting))
        match message:
            case pb.EndpointStarting():
                named = [ModelRef(model=message.model, version=message.version), *(_ref(it) for it in message.more_models)]
                started[message.deployment] = [ref for ref in named if ref.model]
                if message.HasField("beside"):
                    beside.add(message.deployment)
            case pb.EndpointLive() if message.deployment in beside:
                if second is None or second.deployment != message.deployment:
                    _end(second, at)
                    second = _service(message, started[message.deployment], at)
                    told.services.append(second)
            case pb.EndpointFailed() if second is not None and second.deployment == message.deployment:
                _end(second, at)
                second = None
            case pb.TrafficShifted() if not message.deployment:
                _end(second, at)
                second = None
            case pb.EndpointLive() if message.deployment in started and (going_on is None or going_on.deployment < message.deployment):
                _end(going_on, at)
                _end(second, at)
                second = None
                told.services.append(_service(message, started[message.deployment], at))
            case pb.EndpointFailed() if going_on is not None and going_on.deployment == message.deployment:
                _end(going_on, at)
                _end(second, at)
                second = None
            case pb.EndpointDeleted():
                _end(going_on, at)
                _end(second, at)
                second = None
        turn = Turn(what=message.DESCRIPTOR.name, why=_why(message)[:1000])
        turn.at.FromMilliseconds(at)
        told.turns.append(turn)
    return told


def _service(message: pb.EndpointLive, models: list[ModelRef], at: int) -> Service:
    service = Service(endpoint=message.endpoint, deployment=message.deployment, models=models)
    getattr(service, "from").FromMilliseconds(at)
    return service


def _end(service: Service | None, at: int) -> None:
    if service is not None and not service.HasField("until"):
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
            return (
                f"deployment {message.deployment}: {message.split.percent:g} % of the calls"
                if message.deployment
                else "one deployment alone"
            )
        case pb.VersionLoaded() | pb.EndpointLive():
            return f"deployment {message.deployment}"
    return ""
