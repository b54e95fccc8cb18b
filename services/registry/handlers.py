"""Events of trainyard.models, trainyard.jobs and trainyard.environments in, documents and facts out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.chassis.handler import Command, Emit, InvalidMessage
from services.chassis.store import Documents
from services.registry import environment_handlers
from services.registry.domain import registration, runs
from services.registry.domain.registration import Asked, Fact
from services.registry.domain.runs import Run
from services.registry.shelf import Shelf
from trainyard._cloudevents import Received
from trainyard.environment.v1.environment_pb2 import RegisterEnvironment
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.model.v1.model_pb2 import ModelVersionRegistered, ModelVersionRejected, RegisterModelVersion

TOPIC = "trainyard.models"
JOBS = "trainyard.jobs"


@dataclass(frozen=True)
class Checked:
    """What the worker found for a submission: the run as it looked at it, and what the object store lacks of its files."""

    submission_id: str
    run: Run | None
    missing: Failure | None
    at: datetime


class RegistryHandler:
    answers = (RegisterModelVersion, RegisterEnvironment)

    def react(self, event: Received, documents: Documents) -> Iterable[Emit]:
        request = event.message
        if isinstance(request, RegisterEnvironment):
            return environment_handlers.react(event, request, documents)
        if not isinstance(request, RegisterModelVersion):
            return []
        if why := _unusable(event, request):
            raise InvalidMessage(why)
        known = Shelf(documents).known(request.model, request.submission_id)
        return _emits(registration.decide(known, _asked(event, request)))

    def apply(self, event: Received, documents: Documents) -> None:
        shelf = Shelf(documents)
        environment_handlers.apply(event, documents)
        match event.message:
            case RegisterModelVersion() as request if not _unusable(event, request):
                _fold(shelf, request, _asked(event, request))
            case ModelVersionRegistered() | ModelVersionRejected() as fact:
                _fold(shelf, fact, fact, event.causation_id)
            case message if event.topic == JOBS and isinstance(message, runs.FACTS):
                _fold_run(shelf, message)

    def command(self, command: Command, documents: Documents) -> Iterable[Emit]:
        checked: Checked = command.payload
        shelf = Shelf(documents)
        pending = shelf.pending(checked.submission_id)
        if pending is None:
            return []
        known = shelf.known(pending.request.model, checked.submission_id)
        return _emits(registration.conclude(known, checked.run, checked.missing, checked.at))

    def reset(self, documents: Documents) -> None:
        """Nothing is kept in memory."""


def _fold(shelf: Shelf, message: RegisterModelVersion | Fact, event: Asked | Fact, cause_id: str = "") -> None:
    before = shelf.known(message.model, message.submission_id)
    after = registration.evolve(before, event, cause_id)
    if after is before:
        return
    shelf.keep(message.submission_id, before, after)
    if isinstance(event, ModelVersionRegistered):
        shelf.add(event)


def _fold_run(shelf: Shelf, message: Any) -> None:
    before = shelf.run(message.run_id)
    after = runs.evolve(before, message)
    if after is not None and after is not before:
        shelf.keep_run(after)


def _unusable(event: Received, request: RegisterModelVersion) -> str:
    """Why the request can only become a dead letter; "" for one that will be answered."""
    if why := registration.unanswerable(request):
        return why
    if event.key != request.model:
        return f"the record's key {event.key[:200]!r} must be the model's name {request.model[:200]!r}: order within a key is what counts"
    return ""


def _asked(event: Received, request: RegisterModelVersion) -> Asked:
    return Asked(request, event.event_id, event.correlation_id or event.key)


def _emits(facts: Iterable[Fact]) -> list[Emit]:
    return [Emit(TOPIC, fact.model, fact) for fact in facts]
