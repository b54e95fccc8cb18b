"""The outputs of several nodes as those of one run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from services.scheduler.domain.gang import in_order
from services.scheduler.domain.state import Member, Run
from trainyard._artifacts import together
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet

_PLATFORM_LOGS = "azureml-logs/"
_PATHS = 10


def outputs(run: Run) -> ArtifactSet:
    """All members' files by path. Of two with one path the lower node index counts; of the platform's own logs both are kept,
    since every node writes some under one name."""
    taken: dict[str, str] = {}
    sets = []
    for saved, whose in [*((it.outputs, f"node_{it.node_index}") for it in in_order(run.members)), (run.left, "left")]:
        sets.append(_logs_apart(saved, whose, taken))
        taken |= {file.path: file.sha256 for file in sets[-1].files if file.path not in taken}
    merged: ArtifactSet = together(*sets)
    return merged


def conflicts(run: Run) -> str:
    """Which paths several nodes have written differently, in words; "" where none. Of lists that lie elsewhere nothing is known here."""
    first: dict[str, tuple[Member, str]] = {}
    others: dict[str, list[Member]] = {}
    for member in in_order(run.members):
        for file in member.outputs.files:
            owner, digest = first.setdefault(file.path, (member, file.sha256))
            if digest != file.sha256 and not file.path.startswith(_PLATFORM_LOGS):
                others.setdefault(file.path, []).append(member)
    if not others:
        return ""
    said = [f"{path!r} ({_node(first[path][0])} counts, not {_nodes(others[path])})" for path in sorted(others)[:_PATHS]]
    more = f" and {len(others) - _PATHS} more" if len(others) > _PATHS else ""
    what = f"Nodes have written different files under one path: {', '.join(said)}{more}. Put the rank into the names of files that differ."
    return what[:3000]


def _logs_apart(saved: ArtifactSet, whose: str, taken: Mapping[str, str]) -> ArtifactSet:
    """With `whose` in the names of logs that are taken."""
    if not any(_is_taken(file, taken) for file in saved.files):
        return saved
    apart = ArtifactSet()
    apart.CopyFrom(saved)
    for file in apart.files:
        if _is_taken(file, taken):
            path = PurePosixPath(file.path)
            file.path = str(path.with_name(f"{path.stem}_{whose}{path.suffix}"))
    return apart


def _is_taken(file: Artifact, taken: Mapping[str, str]) -> bool:
    return file.path.startswith(_PLATFORM_LOGS) and taken.get(file.path, file.sha256) != file.sha256


def _node(member: Member) -> str:
    return f"node {member.node_index}, {member.agent_id},"


def _nodes(members: list[Member]) -> str:
    shown = " or ".join(f"{it.node_index}" for it in members[:3])
    return f"node {shown}" + (f" or {len(members) - 3} more" if len(members) > 3 else "")
