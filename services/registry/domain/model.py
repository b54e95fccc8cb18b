"""A model as requests to change it meet it: what they are, what they lead to, and all that counts for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.registry.domain.registration import Answer
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.model.v1.model_pb2 import (
    AliasMoved,
    DeleteModelVersion,
    ModelChangeRejected,
    ModelVersion,
    ModelVersionDeleted,
    ModelVersionLeaving,
    ModelVersionUpdated,
    SetAlias,
    SetStage,
    StageChanged,
    UpdateModelVersion,
)

Request = SetAlias | SetStage | UpdateModelVersion | DeleteModelVersion
Fact = AliasMoved | StageChanged | ModelVersionUpdated | ModelVersionLeaving | ModelVersionDeleted | ModelChangeRejected


@dataclass(frozen=True)
class Leaving:
    """A deletion under way, and the event that asked for it."""

    submission_id: str
    model: str
    version: int
    with_aliases: bool
    event_id: str
    correlation_id: str


@dataclass(frozen=True)
class Removal:
    """Files of a deleted version that are to go, by their keys; `event_id` is the event that asked for the deletion."""

    submission_id: str
    model: str
    version: int
    digest: str
    keys: tuple[str, ...]
    size_bytes: int
    event_id: str
    correlation_id: str


@dataclass(frozen=True)
class State:
    """All that counts for a request: the version that it names (deleted ones too; None: there is none of that number), its model's
    latest number and aliases, the submission of a deletion of that version that is under way, and what its own submission came to, or
    whether that is a deletion under way."""

    latest: int = 0
    version: ModelVersion | None = None
    aliases: Mapping[str, int] = field(default_factory=dict)
    leaving: str = ""
    is_pending: bool = False
    answer: Answer | None = None

    @property
    def is_there(self) -> bool:
        return self.version is not None and not self.version.HasField("deleted_at")


def pointing(aliases: Mapping[str, int], version: int) -> list[str]:
    """The aliases that point there, sorted."""
    return sorted(alias for alias, number in aliases.items() if number == version)


def id_of(request: Request) -> str:
    return f"{request.model}:{request.version}"


def wrong(message: str, target: str) -> Failure:
    return failure_of("UserError", message, target)


def failure_of(code: str, message: str, target: str) -> Failure:
    return Failure(code=code, message=message[:3000], target=target[:1000])
