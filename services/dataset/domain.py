"""What a request to register a dataset leads to. Pure: what was found at the URLs, and when, comes in as an argument."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePosixPath

from trainyard import _file_lists, _steps, _stored_sources
from trainyard._errors import UserErrorException
from trainyard._sources import mounted_path
from trainyard.dataset.v1.dataset_pb2 import (
    Dataset,
    DatasetRejected,
    DatasetUnregistered,
    DatasetVersionRegistered,
    RegisterDataset,
    SourceFile,
    Step,
    UnregisterDataset,
)
from trainyard.event.v1.artifact_pb2 import Failure

MAX_URLS = 10_000
MAX_TAGS = 50
MAX_DESCRIPTION = 3_000
# A record of the log holds 1 MiB, its key and headers included.
MAX_EVENT_BYTES = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9 ._]{0,254}\Z")

Fact = DatasetVersionRegistered | DatasetRejected | DatasetUnregistered


@dataclass(frozen=True)
class Asked:
    """A request on its way to an answer, and the event that brought it."""

    request: RegisterDataset
    event_id: str
    correlation_id: str


@dataclass(frozen=True)
class Answer:
    """What a submission led to: a version, or a failure with version 0. `event_id` is the request that was answered."""

    name: str
    version: int
    event_id: str
    failure: Failure | None = None


@dataclass(frozen=True)
class Known:
    """All that counts for a request: its name's latest version (0: none yet), whether the name was taken off the lists since, and what the
    submission has come to."""

    latest: int = 0
    pending: Asked | None = None
    answer: Answer | None = None
    is_unregistered: bool = False


def unanswerable(request: RegisterDataset | UnregisterDataset) -> str:
    """Why no answer could name this request; "" if one can."""
    if not 1 <= len(request.submission_id) <= 128 or not request.submission_id.isprintable():
        return "submission_id must be 1-128 printable characters: it is what a repeat is known by"
    if len(request.name) > 255:
        return f"the dataset's name has {len(request.name)} characters; at most 255 are allowed"
    if request.ByteSize() > MAX_EVENT_BYTES:
        return f"the request has {request.ByteSize()} bytes; one event holds {MAX_EVENT_BYTES}: register fewer URLs in one dataset"
    return ""


def decide(known: Known, asked: Asked) -> list[Fact]:
    """The answer that can be given at once; none while the URLs must be looked at, or where the submission is known."""
    if known.answer is not None or known.pending is not None:
        return []
    failure = invalid(asked.request) or _taken(known, asked.request)
    return [_rejected(asked.request, failure)] if failure is not None else []


def decide_unregister(known: Known, request: UnregisterDataset) -> list[Fact]:
    if known.answer is not None:
        return []
    if not known.latest or known.is_unregistered:
        failure = Failure(code="DatasetNotFound", message=f"There is no dataset {request.name[:255]!r}.", target=request.name[:255])
        return [DatasetRejected(submission_id=request.submission_id, name=request.name, failure=failure)]
    return [DatasetUnregistered(submission_id=request.submission_id, name=request.name, latest_version=known.latest)]


def conclude(known: Known, found: Dataset | Failure, at: datetime) -> list[Fact]:
    """The answer to what is pending, by what was found; rules that others may have changed meanwhile are looked at again.

    `found`: the files, or the name of their list, and the steps that they go through.
    """
    if known.pending is None:
        return []
    request = known.pending.request
    failure = found if isinstance(found, Failure) else _taken(known, request)
    if failure is not None:
        return [_rejected(request, failure)]
    assert isinstance(found, Dataset)
    fact = _registered(request, known.latest + 1, found)
    fact.registered_at.FromDatetime(at)
    if fact.ByteSize() > MAX_EVENT_BYTES:
        what = f"The dataset's tags and transformations take {fact.ByteSize()} bytes with its files; one event holds {MAX_EVENT_BYTES}."
        return [_rejected(request, _wrong(f"{what} Give it shorter ones.", "tags"))]
    return [fact]


def evolve(known: Known, event: Asked | Fact, cause_id: str = "") -> Known:
    """`cause_id` is the event that a fact answers. The first answer of a submission counts, and versions have no holes."""
    match event:
        case _ if known.answer is not None:
            return known
        case Asked() if known.pending is None and invalid(event.request) is None:
            return replace(known, pending=event)
        case DatasetVersionRegistered() if event.version == known.latest + 1:
            return Known(event.version, None, Answer(event.name, event.version, cause_id))
        case DatasetUnregistered() if event.latest_version == known.latest and known.latest:
            return replace(known, pending=None, answer=Answer(event.name, known.latest, cause_id), is_unregistered=True)
        case DatasetRejected():
            return replace(known, pending=None, answer=Answer(event.name, 0, cause_id, event.failure))
    return known


def invalid(request: RegisterDataset) -> Failure | None:
    """What is wrong with the request itself, whatever is known."""
    if not _NAME.match(request.name):
        rule = "1-255 letters, digits, spaces and . _ -, with a letter or digit first"
        return _wrong(f"{request.name!r} is no dataset name. It must have {rule}.", "name")
    if len(request.description) > MAX_DESCRIPTION:
        return _wrong(f"The description has {len(request.description)} characters; at most {MAX_DESCRIPTION} are allowed.", "description")
    if len(request.tags) > MAX_TAGS:
        return _wrong(f"The dataset has {len(request.tags)} tags; at most {MAX_TAGS} are allowed.", "tags")
    if trouble := _steps.wrong(request.steps):
        return _wrong(f"The transformations cannot be applied: {trouble}.", "steps")
    ways = (("urls", bool(request.urls)), ("manifest_key", bool(request.manifest_key)), ("based_on", bool(request.based_on)))
    if len(named := [field for field, is_there in ways if is_there]) > 1:
        return _wrong(f"The request has {' and '.join(named)}; it must have one of them.", named[0])
    if request.based_on:
        return None
    if request.manifest_key:
        return _wrong_list(request)
    if not 1 <= len(request.urls) <= MAX_URLS:
        return _wrong(f"The dataset has {len(request.urls)} URLs; 1 to {MAX_URLS} are allowed.", "urls")
    return wrong_urls(request.urls)


def _wrong_list(request: RegisterDataset) -> Failure | None:
    if trouble := _file_lists.fault(request):
        return _wrong(f"The list of the dataset's URLs cannot be found: {trouble}.", "manifest_key")
    if request.count > _file_lists.MOST_ENTRIES_IN_LIST:
        most = _file_lists.MOST_ENTRIES_IN_LIST
        return _wrong(f"The dataset has {request.count} URLs; {most} at most are allowed. Make several datasets of them.", "count")
    return None


def wrong_urls(asked: Sequence[str]) -> Failure | None:
    """What is wrong with these URLs as those of one dataset."""
    if not asked:
        return _wrong("The dataset has no URLs.", "urls")
    urls: dict[str, str] = {}
    for url in asked:
        try:
            if _stored_sources.is_stored(url):
                _stored_sources.parse(url)
                continue
            path = mounted_path(url)
        except UserErrorException as error:
            return _wrong(f"{error.message} What to do: {error.hint}.", error.target)
        if path in urls:
            return _wrong(f"{urls[path]!r} and {url!r} would both lie at {path!r} on a node. Give each file a path of its own.", url)
        urls[path] = url
    for path, url in urls.items():
        folder = next((str(parent) for parent in PurePosixPath(path).parents if str(parent) in urls), None)
        if folder is not None:
            return _wrong(f"{url!r} would lie below {urls[folder]!r}, which is a file. Give each file a path of its own.", url)
    return None


def _taken(known: Known, request: RegisterDataset) -> Failure | None:
    if not known.latest or request.create_new_version or known.is_unregistered:
        return None
    what = f"Dataset {request.name!r} exists; its latest version is {known.latest}."
    return Failure(code="AlreadyExists", message=f"{what} To add a version, set create_new_version.", target=request.name)


def no_base(request: RegisterDataset) -> Failure:
    what = f"There is no dataset {request.based_on[:255]!r} with a version {request.based_on_version}, which this one is based on."
    return _wrong(what, "based_on")


def nothing_left(files: Sequence[SourceFile], steps: Sequence[Step]) -> Failure | None:
    if _steps.apply(files, steps):
        return None
    told = ", ".join(map(_steps.told, steps)) or "its sources are read"
    return _wrong(f"The dataset has no file left after {told}.", "steps" if steps else "urls")


def _registered(request: RegisterDataset, version: int, found: Dataset) -> DatasetVersionRegistered:
    return DatasetVersionRegistered(
        submission_id=request.submission_id,
        name=request.name,
        version=version,
        description=request.description,
        tags=request.tags,
        files=found.files,
        steps=found.steps,
        manifest_key=found.manifest_key,
        manifest_sha256=found.manifest_sha256,
        count=found.count,
        total_bytes=found.total_bytes,
        based_on=request.based_on,
        based_on_version=request.based_on_version,
    )


def _rejected(request: RegisterDataset, failure: Failure) -> DatasetRejected:
    return DatasetRejected(submission_id=request.submission_id, name=request.name, failure=failure)


def _wrong(message: str, target: str) -> Failure:
    return Failure(code="UserError", message=message[:3000], target=target[:1000])
