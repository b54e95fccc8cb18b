"""What stands against a request to change a registered version: in itself, and by what is known. Pure."""

from __future__ import annotations

import re
from math import isfinite

from services.registry.domain import uploads
from services.registry.domain.model import Request, State, failure_of, id_of, pointing, wrong
from services.registry.domain.registration import MAX_DESCRIPTION, MAX_EVENT_BYTES, MAX_TAGS
from trainyard._paths import SHA256
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.model.v1.model_pb2 import (
    DeleteModelVersion,
    ModelStage,
    ModelVersionUpdated,
    SetAlias,
    SetStage,
    UpdateModelVersion,
)

MAX_ALIASES = 100
_ALIAS = re.compile(r"[A-Za-z][-A-Za-z0-9_.]{0,62}\Z")
_TOLD = 10


def unanswerable(request: Request) -> str:
    """Why no answer could name this request; "" if one can."""
    if not 1 <= len(request.submission_id) <= 128 or not request.submission_id.isprintable():
        return "submission_id must be 1-128 printable characters: it is what a repeat is known by"
    if len(request.model) > 255:
        return f"the model's name has {len(request.model)} characters; at most 255 are allowed"
    return ""


def objection(state: State, request: Request) -> Failure | None:
    """None: nothing that is known stands against it."""
    return _invalid(request) or _absent(state, request) or _refused(state, request)


def _invalid(request: Request) -> Failure | None:
    """What is wrong with it, whatever is known."""
    if not isinstance(request, SetAlias) and not request.version:
        return wrong("The request names no version. Give a registered one, from 1.", "version")
    match request:
        case SetAlias() if not _ALIAS.match(request.alias) or request.alias == "latest":
            rule = '1-63 letters, digits and . _ -, with a letter first, and not "latest", which every model has by itself'
            return wrong(f"{request.alias[:100]!r} is no alias. It must have {rule}.", "alias")
        case SetStage() if request.stage not in ModelStage.values() or not request.stage:
            return wrong(f"{request.stage} is no stage. Give one of {', '.join(ModelStage.keys()[1:])}.", "stage")
        case UpdateModelVersion():
            return _invalid_update(request)
    return None


def _invalid_update(request: UpdateModelVersion) -> Failure | None:
    if len(request.description) > MAX_DESCRIPTION:
        return wrong(f"The description has {len(request.description)} characters; at most {MAX_DESCRIPTION} are allowed.", "description")
    if not isfinite(request.requirements.cpus) or request.requirements.cpus < 0:
        return wrong(f"requirements.cpus is {request.requirements.cpus:g}; it must be 0 (no wish) or more.", "requirements")
    if request.digest and not SHA256.match(request.digest):
        return wrong(f"{request.digest[:100]!r} is no digest; one has 64 lower-case hex digits.", "digest")
    return uploads.invalid_datasets(request.datasets)


def _absent(state: State, request: Request) -> Failure | None:
    if isinstance(request, SetAlias) and not request.version:
        return None
    if state.is_there:
        return None
    if not state.latest:
        what = f"There is no model {request.model!r}. `trainyard model list` shows what there is."
        return failure_of("ModelNotFound", what, request.model)
    if state.version is not None:
        what = f"{id_of(request)} was deleted; its number is never given again. `trainyard model list --name {request.model}` shows what there is."
        return failure_of("ModelNotFound", what, id_of(request))
    what = f"Model {request.model!r} has no version {request.version}; the last that was registered is {state.latest}."
    return failure_of("ModelNotFound", what, id_of(request))


def _refused(state: State, request: Request) -> Failure | None:
    """By what is known of a version that is there."""
    match request:
        case SetAlias() if not request.version and request.alias not in state.aliases:
            there = ", ".join(sorted(state.aliases)) or "none"
            what = f"Model {request.model!r} has no alias {request.alias!r}; its aliases are: {there}."
            return failure_of("ModelNotFound", what, f"{request.model}@{request.alias}")
        case SetAlias() if request.version and request.alias not in state.aliases and len(state.aliases) >= MAX_ALIASES:
            return wrong(f"Model {request.model!r} has {MAX_ALIASES} aliases, and that is the most. Take one away first.", "alias")
        case SetAlias() if request.version and state.leaving:
            return _being_deleted(request)
        case UpdateModelVersion():
            return _changes_what_is_fixed(state, request)
        case DeleteModelVersion() if state.leaving:
            return _being_deleted(request)
        case DeleteModelVersion():
            return pointed_at(state, request)
    return None


def _being_deleted(request: Request) -> Failure:
    return failure_of("ModelLeaving", f"{id_of(request)} is being deleted. Ask again in a moment.", id_of(request))


def _changes_what_is_fixed(state: State, request: UpdateModelVersion) -> Failure | None:
    version = state.version
    assert version is not None
    if request.digest and request.digest != version.digest:
        what = (
            f"The files of {id_of(request)} never change. They have the digest {version.digest}, the request means {request.digest}. "
            "Register the other files as a new version."
        )
        return failure_of("ModelImmutable", what, id_of(request))
    for name, value in request.properties.items():
        if version.properties.get(name, value) != value:
            what = f"Property {name[:200]!r} of {id_of(request)} is {version.properties[name][:500]!r} and never changes; {value[:500]!r} was asked for. Use a tag."
            return failure_of("ModelImmutable", what, name)
    return None


def pointed_at(state: State, request: DeleteModelVersion) -> Failure | None:
    aliases = pointing(state.aliases, request.version)
    if not aliases or request.with_aliases:
        return None
    named = ", ".join(f"{request.model}@{alias}" for alias in aliases[:_TOLD])
    more = f" and {len(aliases) - _TOLD} more" if len(aliases) > _TOLD else ""
    what = f"{named}{more} points at {id_of(request)}. Move the alias first, or delete it together with the version."
    return failure_of("ModelInUse", what, id_of(request))


def too_much(state: State, fact: ModelVersionUpdated) -> Failure | None:
    """What a version would grow to. A run may have read more datasets than anybody may name."""
    for name, entries in (("tags", fact.tags), ("properties", fact.properties)):
        if len(entries) > MAX_TAGS:
            return wrong(f"The version would have {len(entries)} {name}; at most {MAX_TAGS} are allowed.", name)
    known = len(state.version.lineage.datasets) if state.version is not None else 0
    if len(fact.datasets) > max(uploads.MAX_DATASETS, known):
        return wrong(f"The version would name {len(fact.datasets)} datasets; at most {uploads.MAX_DATASETS} are allowed.", "datasets")
    if fact.ByteSize() > MAX_EVENT_BYTES:
        return wrong(f"Tags, properties and texts take {fact.ByteSize()} bytes; one event holds {MAX_EVENT_BYTES}.", "tags")
    return None
