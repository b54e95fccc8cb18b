"""What is wrong with a request, or nothing. Every limit stands in the protos as well."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from services.scheduler.domain.failures import failure
from services.scheduler.domain.times import seconds
from trainyard._errors import UserErrorException
from trainyard._paths import RUN_ID, SHA256, safe_relpath
from trainyard.event.v1.artifact_pb2 import Failure

POOL = re.compile(r"[a-zA-Z][-a-zA-Z0-9]{1,31}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_URL = re.compile(r"https?://[^\s@/]+(/\S*)?\Z")
INLINE_BYTES = 512 << 10
# The specification travels on in facts and offers, which say more than the request did and must fit into a message as well.
SPEC_BYTES = 960 << 10
SNAPSHOT_FILES, ARGUMENTS, TAGS, PACKAGES, INPUT_FILES = 2_000, 1_000, 50, 500, 10_000
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
    if not RUN_ID.match(request.experiment):
        yield "experiment", f"experiment {request.experiment[:200]!r} is no name: letters or digits first, then also - and _, at most 128."
    if spec.ByteSize() > SPEC_BYTES:
        yield (
            "spec",
            f"The specification has {spec.ByteSize()} bytes, more than {SPEC_BYTES}; put large things into a snapshot or a dataset.",
        )
    yield from _source_faults(spec)
    if len(spec.arguments) > ARGUMENTS:
        yield "arguments", f"{len(spec.arguments)} arguments are more than {ARGUMENTS}."
    yield from _input_faults(spec)
    yield from _environment_faults(spec.environment)
    if spec.HasField("max_duration") and not 0 < seconds(spec.max_duration) <= LONGEST_SECONDS:
        yield "max_duration", f"max_duration must be more than zero and at most {LONGEST_SECONDS} s."
    if len(spec.tags) > TAGS:
        yield "tags", f"{len(spec.tags)} tags are more than {TAGS}."


def _source_faults(spec: Any) -> Iterator[tuple[str, str]]:
    match spec.source.WhichOneof("where"):
        case "inline":
            paths = list(spec.source.inline.files)
            size = sum(len(content) for content in spec.source.inline.files.values())
            if size > INLINE_BYTES:
                yield "source", f"The inline source has {size} bytes, more than {INLINE_BYTES}; upload a snapshot instead."
        case "snapshot":
            files = spec.source.snapshot.files
            paths = [file.path for file in files]
            if len(paths) > SNAPSHOT_FILES:
                yield "source", f"The snapshot has {len(paths)} files, more than {SNAPSHOT_FILES}."
            for file in files:
                if not SHA256.match(file.sha256):
                    yield file.path, f"The snapshot's {file.path!r} has no SHA-256 of 64 lower-case hex digits."
        case _:
            yield "source", "The run has no source: give a snapshot or inline files."
            return
    yield from _path_faults(paths, "source")
    if spec.entry_script not in paths:
        there = ", ".join(sorted(path for path in paths if path.endswith(".py"))[:10]) or "no Python file"
        yield spec.entry_script or "entry_script", f"The entry script {spec.entry_script!r} is not in the source; there is: {there}."


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
        if not item.files:
            yield item.name, f"The input {item.name!r} has no files."
        if len(item.files) > INPUT_FILES:
            yield item.name, f"The input {item.name!r} has {len(item.files)} files, more than {INPUT_FILES}."
        for file in item.files:
            if not _URL.match(file.url):
                yield item.name, f"The input {item.name!r}: {file.url[:200]!r} is no http(s) URL without credentials."
            if file.sha256 and not SHA256.match(file.sha256):
                yield item.name, f"The input {item.name!r}: {file.path!r} has no SHA-256 of 64 lower-case hex digits."
        yield from _path_faults([file.path for file in item.files], f"input {item.name!r}")
    if len(set(names)) < len(names):
        yield "inputs", "Two inputs have one name."
    for argument in spec.arguments:
        if argument.WhichOneof("value") == "input" and argument.input not in names:
            yield argument.input[:200], f"An argument names the input {argument.input[:200]!r}, which the run does not have."
        if "\0" in argument.text:
            yield "arguments", "An argument has a NUL character."


def _environment_faults(environment: Any) -> Iterator[tuple[str, str]]:
    if environment.framework not in ("", "none", "tensorflow"):
        yield "framework", f"framework {environment.framework[:100]!r} is none of: tensorflow, none."
    if len(environment.pip_packages) > PACKAGES:
        yield "pip_packages", f"{len(environment.pip_packages)} packages are more than {PACKAGES}."
    for name, value in environment.environment_variables.items():
        if not _VARIABLE.match(name) or "\0" in value:
            yield (
                name[:200],
                f"The environment variable {name[:200]!r} cannot be set: its name or value has characters that are not allowed.",
            )
        if name.startswith(_RESERVED):
            yield name, f"The environment variable {name} is the platform's own."
