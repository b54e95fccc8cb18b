"""What is wrong with a request, or nothing. Every limit stands in the protos as well."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from services.scheduler.domain import labels, validate_gang
from services.scheduler.domain.failures import failure
from services.scheduler.domain.times import seconds
from trainyard import _file_lists, _steps
from trainyard._errors import UserErrorException
from trainyard._paths import RUN_ID, SHA256, safe_relpath
from trainyard.event.v1.artifact_pb2 import Failure

POOL = re.compile(r"[a-zA-Z][-a-zA-Z0-9]{1,31}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
SPECIFICATION = 64 << 10
_URL = re.compile(r"https?://[^\s@/]+(/\S*)?\Z")
_STORED = re.compile(r"(datastores/blobs|runs|uploads)/[^\0]+\Z")
INLINE_BYTES = 512 << 10
# The specification travels on in facts and offers, which say more than the request did and must fit into a message as well.
SPEC_BYTES = 960 << 10
SNAPSHOT_FILES, ARGUMENTS, PACKAGES, INPUT_FILES, DISPLAY_NAME, FRAMEWORK = 2_000, 1_000, 500, 10_000, 255, 100
# Ten years: what the protobuf type can say beyond that overflows every clock.
LONGEST_SECONDS = 10 * 366 * 86_400
# The platform's own names: a script finds its run by them.
_RESERVED = ("TRAINYARD_", "AZUREML_RUN_", "AZUREML_ARM_")


def submission(request: Any) -> Failure | None:
    """The first thing at fault of a SubmitRun, whose compute target is looked up elsewhere."""
    found = next(_faults(request), None)
    if found is None:
        return None
    target, what = found
    return failure("UserError", what, target)


def _faults(request: Any) -> Iterator[tuple[str, str]]:
    spec = request.spec
    yield from _experiment_faults(request)
    if spec.ByteSize() > SPEC_BYTES:
        yield (
            "spec",
            f"The specification has {spec.ByteSize()} bytes, more than {SPEC_BYTES}; put large things into a snapshot or a dataset.",
        )
    yield from _source_faults(spec)
    if len(spec.arguments) > ARGUMENTS:
        yield "arguments", f"{len(spec.arguments)} arguments are more than {ARGUMENTS}."
    yield from _input_faults(spec)
    if len(spec.framework) > FRAMEWORK or not spec.framework.isprintable():
        yield "framework", f"framework {spec.framework[:FRAMEWORK]!r} is no name: at most {FRAMEWORK} printable characters."
    yield from _environment_faults(spec.environment)
    if spec.HasField("max_duration") and not 0 < seconds(spec.max_duration) <= LONGEST_SECONDS:
        yield "max_duration", f"max_duration must be more than zero and at most {LONGEST_SECONDS} s."
    yield from _label_faults(spec)
    yield from validate_gang.faults(spec, _files(spec.source))
    if (large := labels.too_large(spec, spec.tags, spec.properties, "spec")) is not None:
        yield large.target, large.message


def offer_too_large(spec: Any, checkpoint: Any) -> Failure | None:
    """With the files that the run resumes from."""
    return labels.too_large(spec, spec.tags, spec.properties, "resume_from", checkpoint.ByteSize())


def opening(request: Any) -> Failure | None:
    """The first thing at fault of an OpenRun, whose parent is looked up elsewhere."""
    found = next(_opening_faults(request), None)
    return None if found is None else failure("UserError", found[1], found[0])


def _opening_faults(request: Any) -> Iterator[tuple[str, str]]:
    yield from _experiment_faults(request)
    if request.ByteSize() > SPEC_BYTES:
        yield (
            "source",
            f"The request has {request.ByteSize()} bytes, more than {SPEC_BYTES}; upload a snapshot, or keep less in tags and properties.",
        )
    if request.HasField("source"):
        yield from _folder_faults(request.source)
    yield from _label_faults(request)


def _experiment_faults(request: Any) -> Iterator[tuple[str, str]]:
    if not RUN_ID.match(request.experiment):
        yield "experiment", f"experiment {request.experiment[:200]!r} is no name: letters or digits first, then also - and _, at most 128."


def _label_faults(holder: Any) -> Iterator[tuple[str, str]]:
    for found, what in ((holder.tags, "tag"), (holder.properties, "property")):
        wrong = labels.wrong(found, what)
        if wrong is not None:
            yield wrong.target, wrong.message
    if len(holder.display_name) > DISPLAY_NAME:
        yield "display_name", f"The display name has {len(holder.display_name)} characters; at most {DISPLAY_NAME} are kept."


def _source_faults(spec: Any) -> Iterator[tuple[str, str]]:
    if spec.source.WhichOneof("where") is None:
        yield "source", "The run has no source: give a snapshot or inline files."
        return
    yield from _folder_faults(spec.source)
    paths = _paths(spec.source)
    if spec.command:
        yield from _command_faults(spec)
    elif not spec.entry_script or (spec.entry_script not in paths and not spec.source.snapshot.manifest_key):
        there = ", ".join(sorted(path for path in paths if path.endswith(".py"))[:10]) or "no Python file"
        yield spec.entry_script or "entry_script", f"The entry script {spec.entry_script!r} is not in the source; there is: {there}."


def _folder_faults(source: Any) -> Iterator[tuple[str, str]]:
    size = sum(len(content) for content in source.inline.files.values())
    if size > INLINE_BYTES:
        yield "source", f"The inline source has {size} bytes, more than {INLINE_BYTES}; upload a snapshot instead."
    if source.snapshot.manifest_key:
        yield from _manifest_faults(source.snapshot)
        return
    paths = _paths(source)
    if source.WhichOneof("where") == "snapshot" and len(paths) > SNAPSHOT_FILES:
        yield "source", f"The snapshot has {len(paths)} files, more than {SNAPSHOT_FILES}."
    for file in source.snapshot.files:
        if not SHA256.match(file.sha256):
            yield file.path, f"The snapshot's {file.path!r} has no SHA-256 of 64 lower-case hex digits."
    yield from _path_faults(paths, "source")


def _paths(source: Any) -> list[str]:
    if source.WhichOneof("where") == "inline":
        return list(source.inline.files)
    return [*(file.path for file in source.snapshot.files), *source.snapshot.empty_folders]


def _files(source: Any) -> list[str]:
    """As far as they are listed."""
    return list(source.inline.files) or [file.path for file in source.snapshot.files]


def _manifest_faults(snapshot: Any) -> Iterator[tuple[str, str]]:
    """Its files are read, and looked at again, where they are unpacked."""
    if not SHA256.match(snapshot.manifest_sha256) or snapshot.manifest_key != f"snapshots/trees/{snapshot.manifest_sha256}":
        yield "source", "The snapshot's manifest_key is not 'snapshots/trees/<manifest_sha256>'."
    if snapshot.files or snapshot.empty_folders:
        yield "source", "The snapshot lists its files and names a manifest; it must do one of both."


def _command_faults(spec: Any) -> Iterator[tuple[str, str]]:
    if spec.entry_script or spec.arguments:
        yield "command", "A run has a command or an entry script with arguments, not both."
    if len(spec.command) > ARGUMENTS:
        yield "command", f"The command has {len(spec.command)} words, more than {ARGUMENTS}."
    if not spec.command[0] or any("\0" in word for word in spec.command):
        yield "command", "The command begins with an empty word, or has a NUL character."


def _path_faults(paths: list[str], what: str) -> Iterator[tuple[str, str]]:
    for path in paths:
        try:
            safe_relpath(path)
        except UserErrorException as error:
            yield path[:200], f"{what}: {error.message}"
    seen = set(paths)
    if len(seen) < len(paths):
        yield what, f"{what}: a path stands there twice."
    folders = {path[: index.start()] for path in seen for index in re.finditer("/", path)}
    for path in sorted(folders & seen)[:1]:
        yield path, f"{what}: {path!r} is a file and a folder at once."


def _input_faults(spec: Any) -> Iterator[tuple[str, str]]:
    names = [item.name for item in spec.inputs]
    for item in spec.inputs:
        if not _VARIABLE.match(item.name):
            yield item.name[:200], f"The input name {item.name[:200]!r} is none: a letter or _, then letters, digits and _."
        if item.manifest_key:
            if trouble := "files stand beside manifest_key" if item.files else _file_lists.fault(item):
                yield item.name, f"The input {item.name!r}: {trouble}."
        elif not item.files:
            yield item.name, f"The input {item.name!r} has no files."
        if len(item.files) > INPUT_FILES:
            yield item.name, f"The input {item.name!r} has {len(item.files)} files, more than {INPUT_FILES}."
        for file in item.files:
            if file.object_key:
                yield from _stored_faults(item, file)
            elif not _URL.match(file.url):
                yield item.name, f"The input {item.name!r}: {file.url[:200]!r} is no http(s) URL without credentials."
            if file.sha256 and not SHA256.match(file.sha256):
                yield item.name, f"The input {item.name!r}: {file.path!r} has no SHA-256 of 64 lower-case hex digits."
        yield from _path_faults([file.path for file in item.files], f"input {item.name!r}")
        if trouble := _steps.wrong(item.steps):
            yield item.name, f"The input {item.name!r}: {trouble}."
        if "\0" in item.path_on_compute or ".." in item.path_on_compute.split("/"):
            yield item.name, f"The input {item.name!r}: path_on_compute {item.path_on_compute[:200]!r} must not have '..' in it."
    if len(set(names)) < len(names):
        yield "inputs", "Two inputs have one name."
    for argument in spec.arguments:
        if argument.WhichOneof("value") == "input" and argument.input not in names:
            yield argument.input[:200], f"An argument names the input {argument.input[:200]!r}, which the run does not have."
        if "\0" in argument.text:
            yield "arguments", "An argument has a NUL character."


def _stored_faults(item: Any, file: Any) -> Iterator[tuple[str, str]]:
    if not file.url.startswith("datastore://") or not _STORED.match(file.object_key) or ".." in file.object_key.split("/"):
        yield item.name, f"The input {item.name!r}: {file.object_key[:200]!r} is no file of a datastore or of a run."
    if not file.sha256:
        yield item.name, f"The input {item.name!r}: {file.path!r} lies in the object store, but has no SHA-256."


def _environment_faults(environment: Any) -> Iterator[tuple[str, str]]:
    if environment.framework not in ("", "none", "tensorflow"):
        yield "framework", f"framework {environment.framework[:100]!r} is none of: tensorflow, none."
    if len(environment.pip_packages) > PACKAGES:
        yield "pip_packages", f"{len(environment.pip_packages)} packages are more than {PACKAGES}."
    if len(environment.conda_specification) > SPECIFICATION:
        yield (
            "conda_specification",
            f"The conda specification has {len(environment.conda_specification)} characters, more than {SPECIFICATION}.",
        )
    if len(environment.interpreter_path) > 4096 or "\0" in environment.interpreter_path:
        yield "interpreter_path", "interpreter_path is no path: it is too long, or has a NUL character."
    for name, value in environment.environment_variables.items():
        if not _VARIABLE.match(name) or "\0" in value:
            yield (
                name[:200],
                f"The environment variable {name[:200]!r} cannot be set: its name or value has characters that are not allowed.",
            )
        if name.startswith(_RESERVED):
            yield name, f"The environment variable {name} is the platform's own."
