"""Events of trainyard.endpoints and trainyard.models in, documents and facts out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from services.chassis.handler import Command, Emit, InvalidMessage
from services.chassis.store import Documents
from services.serving.domain import asking, decisions, endpoint, reports
from services.serving.domain.asking import Request
from services.serving.domain.endpoint import Fact
from services.serving.domain.model_version import ModelVersion
from services.serving.domain.reports import CameUp, GaveUp, Progressed, WentDown, WentIdle
from services.serving.shelf import Answer, Asked, Shelf
from trainyard._cloudevents import Received
from trainyard.endpoint.v1.endpoint_pb2 import (
    DeleteEndpoint,
    DeployEndpoint,
    EndpointChanged,
    EndpointDeleted,
    EndpointFailed,
    EndpointKeyRegenerated,
    EndpointLive,
    EndpointProgress,
    EndpointRejected,
    EndpointSlept,
    EndpointStarting,
    EndpointUnhealthy,
    EndpointWoken,
    RegenerateEndpointKey,
    RollBackEndpoint,
    TrafficShifted,
    UpdateEndpoint,
    UpdateTraffic,
    WakeEndpoint,
)
from trainyard.model.v1.model_pb2 import AliasMoved, ModelChangeRejected, ModelVersionDeleted, ModelVersionLeaving, ModelVersionRegistered

TOPIC = "trainyard.endpoints"
MODELS = "trainyard.models"
_CHANGES = (
    EndpointStarting,
    EndpointChanged,
    EndpointKeyRegenerated,
    TrafficShifted,
    EndpointProgress,
    EndpointLive,
    EndpointUnhealthy,
    EndpointSlept,
    EndpointWoken,
    EndpointFailed,
    EndpointDeleted,
)


@dataclass(frozen=True)
class Decide:
    """All that was said of the models before the request is known here: the request may be answered."""

    request: Request
    at: datetime


@dataclass(frozen=True)
class Follow:
    """The alias that the endpoint follows may have moved."""

    endpoint: str
    at: datetime


class ServingHandler:
    answers = (DeployEndpoint, UpdateEndpoint, RollBackEndpoint, UpdateTraffic, RegenerateEndpointKey, DeleteEndpoint)

    def react(self, event: Received, documents: Documents) -> Iterable[Emit]:
        match event.message:
            case DeployEndpoint() | UpdateEndpoint() | RollBackEndpoint() | UpdateTraffic() as request:
                return _emits(_first_look(event, request, Shelf(documents)))
            case RegenerateEndpointKey() as request:
                return _emits(_make_key(event, request, Shelf(documents)))
            case WakeEndpoint() as request if event.key == request.endpoint:
                return _emits(decisions.decide_wake(Shelf(documents).endpoint(request.endpoint)))
            case DeleteEndpoint() as request:
                return _emits(_delete(event, request, Shelf(documents)))
        return []

    def apply(self, event: Received, documents: Documents) -> None:
        shelf = Shelf(documents)
        message = event.message
        match message:
            case DeployEndpoint() | UpdateEndpoint() | RollBackEndpoint() | UpdateTraffic() if not _unusable(event, message):
                key = f"{event.partition:05}-{event.offset:019}"
                shelf.wait(key, Asked.of(message, event.event_id, event.correlation_id or event.key))
            case EndpointRejected():
                shelf.give(message.submission_id, Answer(message.endpoint, event_id=event.causation_id, failure=message.failure))
            case EndpointStarting():
                given = Answer(message.endpoint, deployment=message.deployment, event_id=event.causation_id)
                shelf.give(message.submission_id, given)
            case EndpointChanged() | TrafficShifted():
                shelf.give(message.submission_id, Answer(message.endpoint, event_id=event.causation_id, changed=True))
            case ModelVersionRegistered():
                shelf.add(
                    ModelVersion(
                        message.model,
                        message.version,
                        message.framework_version,
                        message.artifacts,
                        tuple(message.operations),
                        cpu_cores=message.requirements.cpus,
                        memory_bytes=message.requirements.memory_bytes,
                    )
                )
            case AliasMoved():
                shelf.move(message.model, message.alias, message.version, event.event_id)
            case ModelVersionLeaving():
                shelf.leave(message.model, message.version, message.submission_id)
            case ModelChangeRejected():
                shelf.stay(message.submission_id)
            case ModelVersionDeleted():
                for alias in message.aliases:
                    shelf.move(message.model, alias, 0, event.event_id)
        # Only what could have been deployed: names become file names, and anybody may write to the log.
        if isinstance(message, _CHANGES) and not asking.name_fault(message.endpoint):
            before = shelf.endpoint(message.endpoint)
            after = endpoint.evolve(before, message)
            if after is not None and after is not before:
                shelf.keep(after)

    def command(self, command: Command, documents: Documents) -> Iterable[Emit]:
        shelf = Shelf(documents)
        match command.payload:
            case Decide(request, at):
                answer = shelf.answer(request.submission_id)
                if answer is None or answer.is_given:
                    return []
                return _emits([decisions.decide(request, shelf.endpoint(request.endpoint), shelf.known(request), at)])
            case Follow(name, at):
                followed = shelf.endpoint(name)
                points_at = shelf.alias(followed.latest.model, followed.latest.alias) if followed is not None else 0
                return _emits(decisions.follow_alias(followed, points_at, at))
            case Progressed() | CameUp() | WentDown() | GaveUp() | WentIdle() as report:
                return _emits(reports.conclude(shelf.endpoint(report.endpoint), report))
        raise TypeError(f"no command of this service: {command.payload!r}")

    def reset(self, documents: Documents) -> None:
        """Nothing is kept in memory."""


def _first_look(event: Received, request: Request, shelf: Shelf) -> list[Fact]:
    """The answer that can be given at once; the others wait for what is known of the model. Raises InvalidMessage."""
    if why := _unusable(event, request):
        raise InvalidMessage(why)
    refused = asking.invalid(request)
    return [refused] if refused is not None and shelf.is_open(request.submission_id, event.event_id) else []


def _delete(event: Received, request: DeleteEndpoint, shelf: Shelf) -> list[Fact]:
    """Raises InvalidMessage where there is nothing to delete."""
    if event.key != request.endpoint:
        raise InvalidMessage(_wrong_key(event.key, request.endpoint))
    facts = decisions.decide_delete(shelf.endpoint(request.endpoint), shelf.waiting(request.endpoint))
    if not facts:
        raise InvalidMessage(f"there is no endpoint {request.endpoint[:100]!r}")
    return facts


def _make_key(event: Received, request: RegenerateEndpointKey, shelf: Shelf) -> list[Fact]:
    """Raises InvalidMessage where there is no such endpoint or key."""
    if event.key != request.endpoint:
        raise InvalidMessage(_wrong_key(event.key, request.endpoint))
    facts = decisions.decide_key(shelf.endpoint(request.endpoint), request.key)
    if not facts:
        raise InvalidMessage(f"there is no endpoint {request.endpoint[:100]!r}, or no key {request.key}")
    return facts


def _unusable(event: Received, request: Request) -> str:
    """Why the request can only become a dead letter; "" for one that will be answered."""
    if why := asking.unanswerable(request):
        return why
    return "" if event.key == request.endpoint else _wrong_key(event.key, request.endpoint)


def _wrong_key(key: str, name: str) -> str:
    return f"the record's key {key[:100]!r} must be the endpoint's name {name[:100]!r}: order within a key is what counts"


def _emits(facts: Iterable[Fact]) -> list[Emit]:
    return [Emit(TOPIC, fact.endpoint, fact, correlation_id=fact.endpoint) for fact in facts]
