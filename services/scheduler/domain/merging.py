"""The outputs of several nodes as those of one run.

What a node has written counts before what any node was given to begin with, or the copies of an older file would win over the file that
one of them has renewed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from services.scheduler.domain.gang import in_order
from services.scheduler.domain.state import Member, Run
from trainyard._artifacts import count, is_listed, together
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
    merged: ArtifactSet = together(*sets, *_restored(run))
    return merged


def _restored(run: Run) -> list[ArtifactSet]:
    """What nobody has written anew. The first node that was given it says what is still there: what rank 0 has removed is on the other
    nodes still. Of an elastic gang all count, the latest first, since who comes later is given more."""
    given = [it.restored for it in in_order(run.members) if it.restored is not None]
    return given[::-1] if run.is_elastic else given[:1]


def complaints(run: Run) -> Iterator[str]:
    """Which paths several nodes have written differently, in words, and whose could not be compared."""
    if conflict := _conflicts(run):
        yield conflict
    if unread := _unread(run):
        yield unread


def _unread(run: Run) -> str:
    """Lists that lie elsewhere are not read here: a decision does no I/O."""
    saved = [it for it in in_order(run.members) if count(it.outputs)]
    unread = [it for it in saved if not is_listed(it.outputs)]
    if len(saved) < 2 or not unread:
        return ""
    said = ", ".join(f"{it.node_index} ({it.agent_id})" for it in unread[:_PATHS])
    more = f" and {len(unread) - _PATHS} more" if len(unread) > _PATHS else ""
    what = (
        f"It was not looked whether nodes have written different files under one path, since these have saved too many for that: node "
        f"{said}{more}. Where they have, the file of the lowest node counts. Put the rank into the names of files that differ, or pack them."
    )
    return what[:3000]


def _conflicts(run: Run) -> str:
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
