"""Events of trainyard.datasets in, documents and facts out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from services.chassis.handler import Command, Emit, InvalidMessage
from services.chassis.store import Documents
from services.dataset import domain
from services.dataset.domain import Asked, Fact
from services.dataset.shelf import Shelf
from trainyard._cloudevents import Received
from trainyard.dataset.v1.dataset_pb2 import (
    Dataset,
    DatasetRejected,
    DatasetUnregistered,
    DatasetVersionRegistered,
    RegisterDataset,
    UnregisterDataset,
)
from trainyard.event.v1.artifact_pb2 import Failure

TOPIC = "trainyard.datasets"


@dataclass(frozen=True)
class Probed:
    """What the worker found for a submission: all of the files, listed or in a list that is named, with the steps; or what went wrong."""

    submission_id: str
    found: Dataset | Failure
    at: datetime


class DatasetHandler:
    answers = (RegisterDataset, UnregisterDataset)

    def react(self, event: Received, documents: Documents) -> Iterable[Emit]:
        request = event.message
        if not isinstance(request, RegisterDataset | UnregisterDataset):
            return []
        if why := _unusable(event, request):
            raise InvalidMessage(why)
        known = Shelf(documents).known(request.name, request.submission_id)
        if isinstance(request, UnregisterDataset):
            return _emits(domain.decide_unregister(known, request))
        return _emits(domain.decide(known, _asked(event, request)))

    def apply(self, event: Received, documents: Documents) -> None:
        shelf = Shelf(documents)
        match event.message:
            case RegisterDataset() as request if not _unusable(event, request):
                _fold(shelf, request, _asked(event, request))
            case DatasetVersionRegistered() | DatasetRejected() | DatasetUnregistered() as fact:
                _fold(shelf, fact, fact, event.causation_id)

    def command(self, command: Command, documents: Documents) -> Iterable[Emit]:
        probed: Probed = command.payload
        shelf = Shelf(documents)
        pending = shelf.pending(probed.submission_id)
        if pending is None:
            return []
        known = shelf.known(pending.request.name, probed.submission_id)
        return _emits(domain.conclude(known, probed.found, probed.at))

    def reset(self, documents: Documents) -> None:
        """Nothing is kept in memory."""


def _fold(shelf: Shelf, message: RegisterDataset | Fact, event: Asked | Fact, cause_id: str = "") -> None:
    before = shelf.known(message.name, message.submission_id)
    after = domain.evolve(before, event, cause_id)
    if after is before:
        return
    shelf.keep(message.submission_id, before, after)
    if isinstance(event, DatasetVersionRegistered):
        shelf.add(event)
    if isinstance(event, DatasetUnregistered):
        shelf.take_off(event.name)


def _unusable(event: Received, request: RegisterDataset | UnregisterDataset) -> str:
    """Why the request can only become a dead letter; "" for one that will be answered."""
    if why := domain.unanswerable(request):
        return why
    if event.key != request.name:
        return f"the record's key {event.key[:200]!r} must be the dataset's name {request.name[:200]!r}: order within a key is what counts"
    return ""


def _asked(event: Received, request: RegisterDataset) -> Asked:
    return Asked(request, event.event_id, event.correlation_id or event.key)


def _emits(facts: Iterable[Fact]) -> list[Emit]:
    return [Emit(TOPIC, fact.name, fact) for fact in facts]
