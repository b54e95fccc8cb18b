"""A model, its versions and aliases, as their facts tell it. Total and a function of the set of facts, like a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from google.protobuf.message import Message

from services.history.domain.moment import Fact, in_order
from trainyard import _model_version
from trainyard.history.v1.history_pb2 import ModelRef, Turn
from trainyard.model.v1.model_pb2 import (
    AliasMoved,
    ModelFilesRemoved,
    ModelStage,
    ModelVersion,
    ModelVersionDeleted,
    ModelVersionRegistered,
    ModelVersionUpdated,
    StageChanged,
)

FACTS: tuple[type[Message], ...] = (
    ModelVersionRegistered,
    AliasMoved,
    StageChanged,
    ModelVersionUpdated,
    ModelVersionDeleted,
    ModelFilesRemoved,
)
MOST = 1_000


@dataclass
class Told:
    """`turns` go with the versions that they are about."""

    versions: dict[int, ModelVersion] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    turns: list[tuple[frozenset[int], Turn]] = field(default_factory=list)

    def number_of(self, asked: ModelRef) -> int | None:
        """The version that is meant, if there is one; by its number a deleted one too."""
        if asked.alias:
            return self.aliases.get(asked.alias)
        there = [number for number, version in self.versions.items() if not version.HasField("deleted_at")]
        number = asked.version or max(there, default=0)
        return number if number in self.versions else None

    def shown(self, number: int) -> ModelVersion:
        version = ModelVersion()
        version.CopyFrom(self.versions[number])
        version.aliases[:] = sorted(alias for alias, points_at in self.aliases.items() if points_at == number)
        return version

    def turns_of(self, number: int) -> list[Turn]:
        return [turn for versions, turn in self.turns if number in versions][-MOST:]


def tell(facts: Iterable[Fact]) -> Told:
    told = Told()
    for fact in in_order(facts):
        about = _evolve(told, fact.message)
        turn = Turn(what=fact.message.DESCRIPTOR.name, why=_why(fact.message))
        turn.at.FromMilliseconds(fact.spot.at)
        told.turns.append((frozenset(about), turn))
    return told


def _evolve(told: Told, message: Message) -> set[int]:
    """Returns the versions that it is about."""
    match message:
        case ModelVersionRegistered():
            told.versions.setdefault(message.version, _model_version.registered(message))
        case AliasMoved():
            told.aliases.pop(message.alias, None)
            if message.version:
                told.aliases[message.alias] = message.version
            return {message.version, message.previous_version} - {0}
        case StageChanged() | ModelVersionUpdated() | ModelVersionDeleted() if (known := told.versions.get(message.version)) is not None:
            told.versions[message.version] = _model_version.after(known, message)
            if isinstance(message, ModelVersionDeleted):
                told.aliases = {alias: number for alias, number in told.aliases.items() if number != message.version}
    return {getattr(message, "version", 0)} - {0}


def _why(message: Message) -> str:
    match message:
        case AliasMoved() if not message.version:
            return f"alias {message.alias} was taken away from version {message.previous_version}"
        case AliasMoved():
            before = f"version {message.previous_version}" if message.previous_version else "nowhere"
            return f"alias {message.alias} points at version {message.version}, and pointed {'at ' if message.previous_version else ''}{before}"
        case StageChanged():
            return ModelStage.Name(message.stage).removeprefix("MODEL_STAGE_").capitalize() if message.stage in ModelStage.values() else ""
        case ModelVersionDeleted() if message.aliases:
            return f"with the aliases {', '.join(message.aliases[:20])}"
        case ModelFilesRemoved():
            return f"{message.files} files, {message.size_bytes} bytes"
    return ""
