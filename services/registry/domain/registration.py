"""What a request to register a model leads to. Pure: the run, the object store's word and the time come in as arguments."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from math import isfinite

from services.registry.domain import files, uploads
from services.registry.domain.reading import Reading
from services.registry.domain.runs import Run
from trainyard._artifacts import is_listed
from trainyard._errors import UserErrorException
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet, Failure
from trainyard.model.v1.model_pb2 import Lineage, ModelVersionRegistered, ModelVersionRejected, RegisterModelVersion

MAX_TAGS = 50
MAX_DESCRIPTION = 3_000
# A record of the log holds 1 MiB, its key and headers included.
MAX_EVENT_BYTES = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]{0,254}\Z")
NOTHING_READ = Reading()

Fact = ModelVersionRegistered | ModelVersionRejected


@dataclass(frozen=True)
class Asked:
    """A request on its way to an answer, and the event that brought it."""

    request: RegisterModelVersion
    event_id: str
    correlation_id: str


@dataclass(frozen=True)
class Answer:
    """What a submission led to: a version, or a failure with version 0. `event_id` is the request that was answered."""

    model: str
    version: int
    event_id: str
    failure: Failure | None = None


@dataclass(frozen=True)
class Known:
    """All that counts for a request: its model's latest version (0: none yet), what its submission has come to, and the digest of the
    version that it names, where that number was given already."""

    latest: int = 0
    pending: Asked | None = None
    answer: Answer | None = None
    taken: str = ""


def unanswerable(request: RegisterModelVersion) -> str:
    """Why no answer could name this request; "" if one can."""
    if not 1 <= len(request.submission_id) <= 128 or not request.submission_id.isprintable():
        return "submission_id must be 1-128 printable characters: it is what a repeat is known by"
    if len(request.model) > 255:
        return f"the model's name has {len(request.model)} characters; at most 255 are allowed"
    if request.ByteSize() > MAX_EVENT_BYTES:
        return f"the request has {request.ByteSize()} bytes; one event holds {MAX_EVENT_BYTES}"
    return ""


def decide(known: Known, asked: Asked) -> list[Fact]:
    """The answer that can be given at once; none while the run must be looked at, or where the submission is known."""
    if known.answer is not None or known.pending is not None:
        return []
    failure = invalid(asked.request)
    return [_rejected(asked.request, failure)] if failure is not None else []


def conclude(
    known: Known,
    run: Run | None,
    missing: Failure | None,
    at: datetime,
    reading: Reading = NOTHING_READ,
    fenced: Failure | None = None,
) -> list[Fact]:
    """The answer to what is pending, by the run as it was looked at. `missing`: the object store lacks what that run recorded, or has
    what no model may hold. `fenced`: whose script asks is over by now."""
    if known.pending is None:
        return []
    request = known.pending.request
    failure = fenced or refused(run, request) or missing or _other_version(known, request, run)
    if failure is not None:
        return [_rejected(request, failure)]
    fact = _registered(request, known.latest + 1, run, reading)
    fact.registered_at.FromDatetime(at)
    if fact.ByteSize() > MAX_EVENT_BYTES:
        what = f"Listing {len(fact.artifacts.files)} files, tags and properties takes {fact.ByteSize()} bytes; one event holds {MAX_EVENT_BYTES}."
        return [
            _rejected(request, _wrong(f"{what} Register a folder with fewer files.", "files" if uploads.is_upload(request) else "path"))
        ]
    return [fact]


def refused(run: Run | None, request: RegisterModelVersion) -> Failure | None:
    """What stands against it by what the log says of the run. Uploaded files need no run; where they name one, it may go on."""
    if run is None:
        return None if uploads.is_upload(request) and not request.run_id else _unknown(request)
    if uploads.is_upload(request):
        return None
    if not run.has_ended:
        what = f"Run {run.id} is {run.status}: its files are final once it has ended, unless its script registers them."
        return Failure(code="RunNotEnded", message=f"{what} Wait for its completion and register then.", target=run.id[:1000])
    # Of a list that could not be read the caller says what is wrong.
    if is_listed(run.artifacts) and not files.chosen(run, request.path):
        return files.not_found(run, request.path)
    return None


def _other_version(known: Known, request: RegisterModelVersion, run: Run | None) -> Failure | None:
    """What stands against the number that it is to have."""
    number, name = request.version, f"{request.model}:{request.version}"
    if number in (0, known.latest + 1):
        return None
    if number > known.latest:
        return _wrong(
            f"{name} cannot be registered: the next version of {request.model!r} is {known.latest + 1}, without holes.", "version"
        )
    digest = files.digest(chosen_files(run, request))
    what = f"{name} was given already and its files never change. They have the digest {known.taken}, those of the request {digest}."
    again = (
        "The same files need not be registered again." if digest == known.taken else "Leave the version out, and it becomes the next one."
    )
    return Failure(code="ModelImmutable", message=f"{what} {again}"[:3000], target=name[:1000])


def evolve(known: Known, event: Asked | Fact, cause_id: str = "") -> Known:
    """`cause_id` is the event that a fact answers. The first answer of a submission counts, and versions have no holes."""
    match event:
        case _ if known.answer is not None:
            return known
        case Asked() if known.pending is None and invalid(event.request) is None:
            return replace(known, pending=event)
        case ModelVersionRegistered() if event.version == known.latest + 1:
            return Known(latest=event.version, answer=Answer(event.model, event.version, cause_id))
        case ModelVersionRejected():
            return replace(known, pending=None, answer=Answer(event.model, 0, cause_id, event.failure))
    return known


def invalid(request: RegisterModelVersion) -> Failure | None:
    """What is wrong with the request itself, whatever is known."""
    if not _NAME.match(request.model) or ".." in request.model:
        rule = '1-255 letters, digits and . _ -, with a letter or digit first and no ".."'
        return _wrong(f"{request.model!r} is no model name. It must have {rule}.", "model")
    if len(request.description) > MAX_DESCRIPTION:
        return _wrong(f"The description has {len(request.description)} characters; at most {MAX_DESCRIPTION} are allowed.", "description")
    for field, entries in (("tags", request.tags), ("properties", request.properties)):
        if len(entries) > MAX_TAGS:
            return _wrong(f"The model has {len(entries)} {field}; at most {MAX_TAGS} are allowed.", field)
    if not isfinite(request.requirements.cpus) or request.requirements.cpus < 0:
        return _wrong(f"requirements.cpus is {request.requirements.cpus:g}; it must be 0 (no wish) or more.", "requirements")
    if (failure := uploads.invalid_datasets(request.datasets)) is not None:
        return failure
    if uploads.is_upload(request):
        return uploads.invalid(request)
    if not request.run_id:
        return _wrong("The request names no run. Give the id of the run whose files are the model.", "run_id")
    try:
        files.plain(request.path)
    except UserErrorException as error:
        what = "Give a file or folder below the run's files, e.g. 'outputs/model'."
        return _wrong(f"path {request.path[:300]!r} is refused: {error.message} {what}", "path")
    return None


def _unknown(request: RegisterModelVersion) -> Failure:
    what = f"There is no run {request.run_id[:200]!r}. Check the run id; `trainyard run list` shows what there is."
    return Failure(code="RunNotFound", message=what, target=request.run_id[:1000])


def chosen_files(run: Run | None, request: RegisterModelVersion) -> list[Artifact]:
    """The files that are the model: uploaded ones, or those of the run that the path means."""
    if uploads.is_upload(request):
        return sorted(request.files.files, key=lambda file: file.path)
    return files.chosen(run, request.path) if run is not None else []


def _registered(request: RegisterModelVersion, version: int, run: Run | None, reading: Reading) -> ModelVersionRegistered:
    chosen = chosen_files(run, request)
    lineage = uploads.with_datasets(run.lineage if run is not None else Lineage(), request.datasets)
    lineage.epoch = run.epoch if run is not None else 0
    return ModelVersionRegistered(
        submission_id=request.submission_id,
        model=request.model,
        version=version,
        digest=files.digest(chosen),
        artifacts=ArtifactSet(files=chosen),
        lineage=lineage,
        framework=request.framework,
        framework_version=request.framework_version,
        description=request.description,
        tags=request.tags,
        properties=request.properties,
        requirements=request.requirements if request.HasField("requirements") else None,
        signatures=reading.signatures,
        tag_sets=reading.tag_sets,
        operations=reading.operations,
        warnings=reading.warnings,
    )


def _rejected(request: RegisterModelVersion, failure: Failure) -> ModelVersionRejected:
    return ModelVersionRejected(submission_id=request.submission_id, model=request.model, failure=failure)


def _wrong(message: str, target: str) -> Failure:
    return Failure(code="UserError", message=message[:3000], target=target[:1000])
