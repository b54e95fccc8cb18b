"""What requests to change a registered version lead to: aliases, stages, what is said of it, its deletion. Pure; its files never change."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from services.registry.domain import uploads
from services.registry.domain.model import Fact, Leaving, Request, State, failure_of, id_of, pointing
from services.registry.domain.objections import objection, pointed_at, too_much
from services.registry.domain.registration import Answer
from trainyard._model_version import after
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.model.v1.model_pb2 import (
    AliasMoved,
    DatasetRef,
    DeleteModelVersion,
    ModelChangeRejected,
    ModelVersionDeleted,
    ModelVersionLeaving,
    ModelVersionUpdated,
    SetAlias,
    SetStage,
    StageChanged,
    UpdateModelVersion,
)

_TOLD = 10


def decide(state: State, request: Request, at: datetime) -> list[Fact]:
    """The answer; for a deletion that nothing here stands against, that it has begun. Nothing where the submission is known."""
    if state.answer is not None or state.is_pending:
        return []
    failure = objection(state, request)
    if failure is not None:
        return [rejected(request, failure)]
    match request:
        case SetAlias():
            return [_stamped(_moved(state, request), at)]
        case SetStage():
            return [_stamped(_staged(state, request), at)]
        case UpdateModelVersion():
            updated = _stamped(_updated(state, request), at)
            failure = too_much(state, updated)
            return [updated if failure is None else rejected(request, failure)]
        case DeleteModelVersion():
            return [
                ModelVersionLeaving(
                    submission_id=request.submission_id,
                    model=request.model,
                    version=request.version,
                    with_aliases=request.with_aliases,
                )
            ]


def conclude(state: State, leaving: Leaving, users: Collection[str], at: datetime, *, shared: bool = True) -> list[Fact]:
    """The end of a deletion. `users` are the endpoints that serve the version, or are to, in words, by all that was said before now.
    `shared`: another version has its files, or is about to."""
    if state.leaving != leaving.submission_id or state.version is None:
        return []
    request = DeleteModelVersion(
        submission_id=leaving.submission_id, model=leaving.model, version=leaving.version, with_aliases=leaving.with_aliases
    )
    if users:
        told = "; ".join(sorted(users)[:_TOLD]) + (f"; and {len(users) - _TOLD} more" if len(users) > _TOLD else "")
        what = f"{id_of(request)} is in use: {told}. Delete them, or deploy another version there, and delete it then."
        return [rejected(request, failure_of("ModelInUse", what, id_of(request)))]
    if (failure := pointed_at(state, request)) is not None:
        return [rejected(request, failure)]
    fact = ModelVersionDeleted(
        submission_id=request.submission_id,
        model=request.model,
        version=request.version,
        digest=state.version.digest,
        aliases=pointing(state.aliases, request.version),
        files_go=not shared and uploads.are_own(state.version),
    )
    return [_stamped(fact, at)]


def evolve(state: State, fact: Fact, cause_id: str = "") -> State:
    """Total: what does not fit leaves it as it is. The first answer of a submission counts; what is deleted stays so."""
    if state.answer is not None:
        return state
    match fact:
        case ModelChangeRejected():
            leaving = "" if state.leaving == fact.submission_id else state.leaving
            return replace(state, leaving=leaving, answer=Answer(fact.model, 0, cause_id, fact.failure))
        case AliasMoved() if fact.version == 0 or state.is_there:
            aliases = {name: version for name, version in state.aliases.items() if name != fact.alias}
            if fact.version:
                aliases[fact.alias] = fact.version
            return replace(state, aliases=aliases, answer=Answer(fact.model, fact.version or fact.previous_version, cause_id))
        case StageChanged() | ModelVersionUpdated() if state.version is not None and state.is_there:
            return replace(state, version=after(state.version, fact), answer=Answer(fact.model, fact.version, cause_id))
        case ModelVersionLeaving() if state.is_there and not state.leaving:
            return replace(state, leaving=fact.submission_id)
        case ModelVersionDeleted() if state.version is not None and state.is_there:
            version = after(state.version, fact)
            aliases = {name: number for name, number in state.aliases.items() if number != fact.version}
            return replace(state, version=version, aliases=aliases, leaving="", answer=Answer(fact.model, fact.version, cause_id))
    return state


def rejected(request: Request, failure: Failure) -> ModelChangeRejected:
    return ModelChangeRejected(submission_id=request.submission_id, model=request.model, failure=failure)


# -- what follows where nothing stands against it


def _moved(state: State, request: SetAlias) -> AliasMoved:
    return AliasMoved(
        submission_id=request.submission_id,
        model=request.model,
        alias=request.alias,
        version=request.version,
        previous_version=state.aliases.get(request.alias, 0),
    )


def _staged(state: State, request: SetStage) -> StageChanged:
    assert state.version is not None
    return StageChanged(
        submission_id=request.submission_id,
        model=request.model,
        version=request.version,
        stage=request.stage,
        previous_stage=state.version.stage,
    )


def _updated(state: State, request: UpdateModelVersion) -> ModelVersionUpdated:
    version = state.version
    assert version is not None
    tags = {name: value for name, value in version.tags.items() if name not in set(request.remove_tags)}
    requirements = request if request.HasField("requirements") else version
    return ModelVersionUpdated(
        submission_id=request.submission_id,
        model=request.model,
        version=request.version,
        tags=tags | dict(request.tags),
        properties=dict(version.properties) | dict(request.properties),
        description=request.description if request.HasField("description") else version.description,
        requirements=requirements.requirements if requirements.HasField("requirements") else None,
        datasets=_with(version.lineage.datasets, request.datasets),
    )


def _with(there: Iterable[DatasetRef], added: Iterable[DatasetRef]) -> list[DatasetRef]:
    """Each once; what is added comes last, so that the last of a purpose is the one that was named last."""
    new = {(it.name, it.version, it.purpose): it for it in added}
    return [it for it in there if (it.name, it.version, it.purpose) not in new] + list(new.values())


# -- small things


def _stamped(fact: Any, at: datetime) -> Any:
    fact.at.FromDatetime(at)
    return fact
