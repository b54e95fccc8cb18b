"""What a request to register an environment leads to. Pure: what is known and the time come in as arguments."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime

from trainyard._times import as_utc
from trainyard.environment.v1.environment_pb2 import (
    EnvironmentRejected,
    EnvironmentVersion,
    EnvironmentVersionRegistered,
    RegisterEnvironment,
)
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.job.v1.spec_pb2 import EnvironmentSpec

MAX_PACKAGES = 500
MAX_VARIABLES = 1_000
MAX_SPECIFICATION = 64 << 10
# A record of the log holds 1 MiB, its key and headers included.
MAX_EVENT_BYTES = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]{0,254}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_CURATED = "azureml-"

Fact = EnvironmentVersionRegistered | EnvironmentRejected


@dataclass(frozen=True)
class Answer:
    """What a submission led to: a version, or a failure with version 0. `event_id` is the request that was answered."""

    name: str
    version: int
    event_id: str
    failure: Failure | None = None


@dataclass(frozen=True)
class Known:
    """All that counts for a request: its environment's latest version (None: none yet), and what its submission has come to."""

    latest: EnvironmentVersion | None = None
    answer: Answer | None = None

    @property
    def number(self) -> int:
        return 0 if self.latest is None else self.latest.version


def unanswerable(request: RegisterEnvironment) -> str:
    """Why no answer could name this request; "" if one can."""
    if not 1 <= len(request.submission_id) <= 128 or not request.submission_id.isprintable():
        return "submission_id must be 1-128 printable characters: it is what a repeat is known by"
    if len(request.name) > 255:
        return f"the environment's name has {len(request.name)} characters; at most 255 are allowed"
    if request.ByteSize() > MAX_EVENT_BYTES:
        return f"the request has {request.ByteSize()} bytes; one event holds {MAX_EVENT_BYTES}"
    return ""


def decide(known: Known, request: RegisterEnvironment, at: datetime) -> list[Fact]:
    """One answer a submission: a new version, the latest where it holds the same definition, or a rejection."""
    if known.answer is not None:
        return []
    failure = invalid(request)
    if failure is not None:
        return [EnvironmentRejected(submission_id=request.submission_id, name=request.name, failure=failure)]
    if known.latest is not None and _bare(known.latest.definition) == _bare(request.definition):
        return [_registered(request, known.latest.version, as_utc(known.latest.registered_at))]
    return [_registered(request, known.number + 1, at)]


def evolve(known: Known, fact: Fact, cause_id: str) -> Known:
    """`cause_id` is the event that the fact answers. The first answer of a submission counts, and versions have no holes."""
    if known.answer is not None:
        return known
    match fact:
        case EnvironmentVersionRegistered() if 1 <= fact.version <= known.number:
            return replace(known, answer=Answer(fact.name, fact.version, cause_id))
        case EnvironmentVersionRegistered() if fact.version == known.number + 1:
            return Known(_shown(fact), Answer(fact.name, fact.version, cause_id))
        case EnvironmentRejected():
            return replace(known, answer=Answer(fact.name, 0, cause_id, fact.failure))
    return known


def invalid(request: RegisterEnvironment) -> Failure | None:
    """What is wrong with the request itself, whatever is known. Packages are looked at by whoever builds them."""
    wanted = request.definition
    if not _NAME.match(request.name):
        rule = "1-255 letters, digits and . _ -, with a letter or digit first"
        return _wrong(f"{request.name!r} is no name of an environment. It must have {rule}.", "name")
    if request.name.lower().startswith(_CURATED):
        return _wrong(f"{request.name!r} begins as curated environments do. Choose another name, for instance by clone().", "name")
    if wanted.framework not in ("", "none", "tensorflow"):
        return _wrong(f"framework {wanted.framework[:100]!r} is none of: tensorflow, none.", "framework")
    if len(wanted.pip_packages) > MAX_PACKAGES:
        return _wrong(f"{len(wanted.pip_packages)} packages are more than {MAX_PACKAGES}.", "pip_packages")
    if len(wanted.conda_specification) > MAX_SPECIFICATION:
        return _wrong(
            f"The conda specification has {len(wanted.conda_specification)} characters, more than {MAX_SPECIFICATION}.",
            "conda_specification",
        )
    if len(wanted.environment_variables) > MAX_VARIABLES:
        return _wrong(f"{len(wanted.environment_variables)} environment variables are more than {MAX_VARIABLES}.", "environment_variables")
    for name, value in wanted.environment_variables.items():
        if not _VARIABLE.match(name) or "\0" in value:
            return _wrong(f"The environment variable {name[:200]!r} cannot be set: its name or value has characters not allowed.", name)
    return None


def _registered(request: RegisterEnvironment, version: int, at: datetime) -> EnvironmentVersionRegistered:
    fact = EnvironmentVersionRegistered(
        submission_id=request.submission_id, name=request.name, version=version, definition=_bare(request.definition)
    )
    fact.definition.name, fact.definition.version = request.name, version
    fact.registered_at.FromDatetime(at)
    return fact


def _bare(definition: EnvironmentSpec) -> EnvironmentSpec:
    """Without the name and the version, which are not part of what it holds."""
    bare = EnvironmentSpec()
    bare.CopyFrom(definition)
    bare.name, bare.version = "", 0
    return bare


def _shown(fact: EnvironmentVersionRegistered) -> EnvironmentVersion:
    return EnvironmentVersion(name=fact.name, version=fact.version, definition=fact.definition, registered_at=fact.registered_at)


def _wrong(message: str, target: str) -> Failure:
    return Failure(code="UserError", message=message[:3000], target=target[:1000])
