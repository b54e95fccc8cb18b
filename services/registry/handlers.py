"""Events of trainyard.models, trainyard.jobs, trainyard.endpoints and trainyard.environments in, documents and facts out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.chassis.handler import Command, Emit, InvalidMessage
from services.chassis.store import Documents
from services.registry import environment_handlers
from services.registry.domain import changes, model, objections, registration, runs
from services.registry.domain.model import Leaving, Removal
from services.registry.domain.reading import Reading
from services.registry.domain.registration import NOTHING_READ, Asked, Fact
from services.registry.domain.runs import Run
from services.registry.endpoint_shelf import EndpointShelf
from services.registry.shelf import Shelf
from trainyard._cloudevents import Received
from trainyard.environment.v1.environment_pb2 import RegisterEnvironment
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.model.v1.model_pb2 import (
    AliasMoved,
    DeleteModelVersion,
    ModelChangeRejected,
    ModelFilesRemoved,
    ModelVersionDeleted,
    ModelVersionLeaving,
    ModelVersionRegistered,
    ModelVersionRejected,
    ModelVersionUpdated,
    RegisterModelVersion,
    SetAlias,
    SetStage,
    StageChanged,
    UpdateModelVersion,
)

TOPIC = "trainyard.models"
JOBS = "trainyard.jobs"


@dataclass(frozen=True)
class Checked:
    """What the worker found for a submission: the run as it looked at it, what is wrong with its files, and what they say."""

    submission_id: str
    run: Run | None
    missing: Failure | None
    at: datetime
    reading: Reading = NOTHING_READ


@dataclass(frozen=True)
class LookedAtEndpoints:
    """All that was said of endpoints before the deletion began is known here now."""

    submission_id: str
    at: datetime


@dataclass(frozen=True)
class Removed:
    """The object store has the files no more."""

    submission_id: str


class RegistryHandler:
    answers = (RegisterModelVersion, SetAlias, SetStage, UpdateModelVersion, DeleteModelVersion, RegisterEnvironment)

    def react(self, event: Received, documents: Documents) -> Iterable[Emit]:
        match event.message:
            case RegisterEnvironment() as request:
                return environment_handlers.react(event, request, documents)
            case RegisterModelVersion() as request:
                _demand_key(event, request.model, registration.unanswerable(request))
                known = Shelf(documents).known(request.model, request.submission_id)
                return _emits(registration.decide(known, _asked(event, request)))
            case SetAlias() | SetStage() | UpdateModelVersion() | DeleteModelVersion() as request:
                _demand_key(event, request.model, objections.unanswerable(request))
                state = Shelf(documents).state(request.model, request.version, request.submission_id)
                return _emits(changes.decide(state, request, event.time))
        return []

    def apply(self, event: Received, documents: Documents) -> None:
        shelf = Shelf(documents)
        environment_handlers.apply(event, documents)
        EndpointShelf(documents).apply(event)
        match event.message:
            case RegisterModelVersion() as request if event.key == request.model and not registration.unanswerable(request):
                _fold(shelf, request, _asked(event, request))
            case ModelVersionRegistered() | ModelVersionRejected() as fact:
                _fold(shelf, fact, fact, event.causation_id)
            case AliasMoved() | StageChanged() | ModelVersionUpdated() as fact:
                _fold_change(shelf, fact, fact.version, event.causation_id)
            case ModelVersionDeleted() as fact:
                if _fold_change(shelf, fact, fact.version, event.causation_id) and fact.files_go:
                    shelf.begin_removal(_removal(shelf, fact, event))
            case ModelFilesRemoved() as fact if (removal := shelf.removal(fact.submission_id)) is not None:
                shelf.end_removal(removal)
            case ModelChangeRejected() as fact:
                deletion = shelf.deletion(fact.submission_id)
                _fold_change(shelf, fact, deletion.version if deletion is not None else 0, event.causation_id)
            case ModelVersionLeaving() as fact:
                if _fold_change(shelf, fact, fact.version, event.causation_id):
                    correlation = event.correlation_id or event.key
                    leaving = Leaving(fact.submission_id, fact.model, fact.version, fact.with_aliases, event.causation_id, correlation)
                    shelf.begin_deletion(leaving)
            case message if event.topic == JOBS and isinstance(message, runs.FACTS):
                _fold_run(shelf, message)

    def command(self, command: Command, documents: Documents) -> Iterable[Emit]:
        shelf = Shelf(documents)
        match command.payload:
            case Checked() as checked:
                pending = shelf.pending(checked.submission_id)
                if pending is None:
                    return []
                known = shelf.known(pending.request.model, checked.submission_id)
                by = pending.request.by
                # As it is now, not as it was looked at: reading the files may take long, and an attempt ends meanwhile.
                fenced = runs.over(shelf.run(by.run_id), by)
                return _emits(registration.conclude(known, checked.run, checked.missing, checked.at, checked.reading, fenced))
            case LookedAtEndpoints() as looked if (leaving := shelf.deletion(looked.submission_id)) is not None:
                state = shelf.state(leaving.model, leaving.version, leaving.submission_id)
                users = EndpointShelf(documents).users(leaving.model, leaving.version, state.aliases)
                digest = state.version.digest if state.version is not None else ""
                shared = shelf.shares(digest, but=(leaving.model, leaving.version))
                return _emits(changes.conclude(state, leaving, users, looked.at, shared=shared))
            case Removed() as removed if (removal := shelf.removal(removed.submission_id)) is not None:
                fact = ModelFilesRemoved(
                    submission_id=removal.submission_id,
                    model=removal.model,
                    version=removal.version,
                    digest=removal.digest,
                    files=len(removal.keys),
                    size_bytes=removal.size_bytes,
                )
                return [Emit(TOPIC, fact.model, fact)]
        return []

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


def _fold_change(shelf: Shelf, fact: model.Fact, version: int, cause_id: str) -> bool:
    """Whether it changed anything."""
    before = shelf.state(fact.model, version, fact.submission_id)
    after = changes.evolve(before, fact, cause_id)
    if after is before:
        return False
    shelf.keep_state(fact.model, version, fact.submission_id, before, after)
    return True


def _removal(shelf: Shelf, fact: ModelVersionDeleted, event: Received) -> Removal:
    version = shelf.stored(fact.model, fact.version)
    kept = list(version.artifacts.files) if version is not None else []
    return Removal(
        fact.submission_id,
        fact.model,
        fact.version,
        fact.digest,
        tuple(file.object_key for file in kept),
        sum(file.size_bytes for file in kept),
        event.causation_id,
        event.correlation_id or event.key,
    )


def _demand_key(event: Received, name: str, why: str) -> None:
    """Raises InvalidMessage, which makes a dead letter, for a request that no answer could name."""
    if why:
        raise InvalidMessage(why)
    if event.key != name:
        what = f"the record's key {event.key[:200]!r} must be the model's name {name[:200]!r}"
        raise InvalidMessage(f"{what}: order within a key is what counts")


def _asked(event: Received, request: RegisterModelVersion) -> Asked:
    return Asked(request, event.event_id, event.correlation_id or event.key)


def _emits(facts: Iterable[Fact | model.Fact]) -> list[Emit]:
    return [Emit(TOPIC, fact.model, fact) for fact in facts]
