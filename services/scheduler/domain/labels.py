"""Tags, properties and late files of a run: what a request adds, or why it is refused. Of any run, before and after its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from services.scheduler.domain.facts import Fact, about_run
from services.scheduler.domain.failures import failure
from services.scheduler.domain.fencing import epoch_of
from services.scheduler.domain.state import Run
from trainyard._artifacts import listed
from trainyard._errors import UserErrorException
from trainyard._paths import SHA256, safe_relpath
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet, Failure
from trainyard.job.v1 import job_pb2 as job

LABELS, NAME, VALUE, FILES, ALL_FILES = 50, 255, 3_000, 3_000, 10_000
# The offer of a run carries its specification and, as they are by then, its labels: in one event, beside little else.
OFFER_BYTES, _ENTRY_BYTES = 1_020_000, 16

CONFLICT, TAKEN = "PropertyIsSet", "PathIsTaken"


def answer(run: Run, request: Any, fenced: Failure | None = None) -> Iterator[Fact]:
    """A fact that says what is new, also where nothing is; or a warning that says why nothing was taken. `fenced`: who asks may not."""
    why = fenced or refusal(run, request)
    if why is not None:
        yield about_run(job.RunWarned(run_id=run.id, message=why.message))
        return
    match request:
        case job.TagRun():
            removed = sorted({name for name in request.removed if name in run.tags and name not in request.set})
            yield about_run(job.RunTagged(run_id=run.id, set=request.set, removed=removed))
        case job.AddRunProperties():
            epoch = epoch_of(run, request)
            yield about_run(job.RunPropertiesAdded(run_id=run.id, properties=_new_properties(run, request), epoch=epoch))
        case job.AddRunFiles():
            known, epoch = listed(run.all_files()), epoch_of(run, request)
            new = (file for file in request.files.files if file.path not in known or _gives_way(run, file.path, epoch))
            fresh = sorted(new, key=lambda file: file.path)
            yield about_run(job.RunFilesAdded(run_id=run.id, files=ArtifactSet(files=fresh), epoch=epoch))


def refusal(run: Run, request: Any) -> Failure | None:
    """Why the whole request is refused: nothing of it is taken then."""
    match request:
        case job.TagRun():
            tags = {name: value for name, value in run.tags.items() if name not in request.removed} | dict(request.set)
            return (
                wrong(request.set, "tag")
                or _too_many(run.tags, request.set, request.removed, "tags")
                or too_large(run.spec, tags, run.properties, "tags", run.checkpoint.ByteSize())
            )
        case job.AddRunProperties():
            return (
                wrong(request.properties, "property")
                or _changed(run, request)
                or _too_many(run.properties, request.properties, (), "properties")
                or too_large(
                    run.spec, run.tags, {**run.properties, **_new_properties(run, request)}, "properties", run.checkpoint.ByteSize()
                )
            )
        case job.AddRunFiles():
            return next(_wrong_files(run, request.files.files, epoch_of(run, request)), None)
    return None


def wrong(labels: Mapping[str, str], what: str) -> Failure | None:
    """What is wrong with names and values, whatever the run has."""
    plural = {"tag": "tags", "property": "properties"}[what]
    if len(labels) > LABELS:
        return failure("UserError", f"{len(labels)} {plural} are more than {LABELS}.", plural)
    for name, value in labels.items():
        if not 1 <= len(name) <= NAME or not name.isprintable():
            return failure("UserError", f"{name[:80]!r} is no name of a {what}: 1 to {NAME} printable characters.", name)
        if len(value) > VALUE:
            return failure("UserError", f"The {what} {name!r} has {len(value)} characters; at most {VALUE} are kept.", name)
    return None


def _too_many(known: Mapping[str, str], more: Mapping[str, str], removed: Any, plural: str) -> Failure | None:
    count = len((known.keys() - set(removed)) | more.keys())
    if count <= LABELS:
        return None
    return failure("UserError", f"The run would have {count} {plural}, and {LABELS} is the most.", plural)


def too_large(spec: Any, tags: Mapping[str, str], properties: Mapping[str, str], target: str, more_bytes: int = 0) -> Failure | None:
    """An offer that no topic takes would hold up every run. `more_bytes`: the checkpoint that goes with it."""
    labels = sum(len(name.encode()) + len(value.encode()) + _ENTRY_BYTES for it in (tags, properties) for name, value in it.items())
    size = spec.ByteSize() + labels + more_bytes
    if size <= OFFER_BYTES:
        return None
    return failure(
        "UserError", f"The specification, tags, properties and checkpoint take {size} bytes together; {OFFER_BYTES} is the most.", target
    )


def _new_properties(run: Run, request: Any) -> dict[str, str]:
    epoch = epoch_of(run, request)
    gives_way = {name for name, by in run.properties_by.items() if _is_over(run, by, epoch)}
    return {name: value for name, value in request.properties.items() if name not in run.properties or name in gives_way}


def _gives_way(run: Run, path: str, epoch: int) -> bool:
    """An upload; what an attempt left behind as its output is no upload."""
    return _is_over(run, run.files_by.get(path, 0), epoch) and path not in listed(run.outputs)


def _is_over(run: Run, by: int, epoch: int) -> bool:
    """What an attempt made that is over gives way to a later one, which runs the same script: until the run has ended."""
    return 0 < by < epoch and not run.is_terminal


def _changed(run: Run, request: Any) -> Failure | None:
    new = _new_properties(run, request)
    for name, value in request.properties.items():
        if name not in new and run.properties[name] != value:
            what = f"The property {name!r} of run {run.id} is {run.properties[name][:200]!r} and never changes. Use a tag for what changes."
            return failure(CONFLICT, what, name)
    return None


def _wrong_files(run: Run, files: Any, epoch: int) -> Iterator[Failure]:
    if not 1 <= len(files) <= FILES:
        yield failure("UserError", f"A request adds 1 to {FILES} files; this one has {len(files)}.", "files")
    replaced = sum(_gives_way(run, file.path, epoch) for file in files)
    if len(run.files.files) + len(files) - replaced > ALL_FILES:
        yield failure(
            "UserError", f"Run {run.id} has {len(run.files.files)} files apart from its outputs; {ALL_FILES} is the most.", "files"
        )
    # Who adds files looks for the others: a list that lies elsewhere cannot be read here.
    known = listed(run.all_files())
    seen: set[str] = set()
    for file in files:
        try:
            safe_relpath(file.path)
            safe_relpath(file.object_key)
        except UserErrorException as error:
            yield failure("UserError", error.message, file.path)
            continue
        if file.path in seen:
            yield failure("UserError", f"{file.path!r} stands there twice.", file.path)
        seen.add(file.path)
        if not SHA256.match(file.sha256):
            yield failure("UserError", f"{file.path!r} has no SHA-256 of 64 lower-case hex digits.", file.path)
        if not file.object_key.startswith(f"uploads/{run.id}/"):
            yield failure("UserError", f"{file.path!r} does not lie below uploads/{run.id}/ in the object store.", file.path)
        other = known.get(file.path)
        if other is not None and other.sha256 != file.sha256 and not _gives_way(run, file.path, epoch):
            yield failure(TAKEN, f"Run {run.id} has a file {file.path!r} with other content; files of a run never change.", file.path)


def evolve(run: Run, message: Any) -> dict[str, Any] | None:
    """What a fact about labels changes of the run; None for any other fact."""
    match message:
        case job.RunTagged():
            kept = {name: value for name, value in run.tags.items() if name not in message.removed}
            return {"tags": {**kept, **message.set}}
        case job.RunPropertiesAdded():
            counted = {
                name: text for name, text in message.properties.items() if _counts(name in run.properties, run.properties_by, name, message)
            }
            by = {**run.properties_by, **dict.fromkeys(counted, message.epoch)} if message.epoch else run.properties_by
            return {"properties": {**run.properties, **counted}, "properties_by": by}
        case job.RunFilesAdded():
            files: dict[str, Artifact] = {file.path: file for file in run.files.files}
            added = {file.path: file for file in message.files.files if _counts(file.path in files, run.files_by, file.path, message)}
            files.update(added)
            by = {**run.files_by, **dict.fromkeys(added, message.epoch)} if message.epoch else run.files_by
            return {"files": ArtifactSet(files=[files[path] for path in sorted(files)]), "files_by": by}
    return None


def _counts(is_known: bool, by: Mapping[str, int], name: str, message: Any) -> bool:
    """The first that was told counts, or a later attempt's where an attempt had made it."""
    return not is_known or 0 < by.get(name, 0) < message.epoch
