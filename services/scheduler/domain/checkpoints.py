"""What an attempt begins with: files that an earlier one has saved. Lists that lie elsewhere are passed on by name, never read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from services.scheduler.domain import labels, merging
from services.scheduler.domain.state import Member, Run
from trainyard._artifacts import count, is_listed
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet

DEFAULT_FOLDER = "outputs"


def saved(run: Run, member: Member, told: Any) -> Run:
    """After a CheckpointSaved: the newest of the gang's first member counts."""
    first = min((it.node_index for it in run.members if it.in_gang), default=None)
    if member.node_index != first or not _is_newer(run, told) or not _is_of(run, told.checkpoint) or not fits(run, told.checkpoint):
        return run
    return replace(
        run,
        checkpoint=told.checkpoint,
        checkpoint_epoch=told.epoch,
        checkpoint_number=told.number,
        checkpoint_by=told.incarnation,
    )


def _is_newer(run: Run, told: Any) -> bool:
    same = (run.checkpoint_epoch, run.checkpoint_by) == (told.epoch, told.incarnation)
    return count(told.checkpoint) > 0 and (not same or told.number > run.checkpoint_number)


def _is_of(run: Run, files: ArtifactSet) -> bool:
    below = f"runs/{run.id}/"
    parts: list[Any] = [files, *files.parts]
    return all(part.manifest_key.startswith(below) for part in parts if part.manifest_key) and all(
        file.object_key.startswith(below) for part in parts for file in part.files
    )


def fits(run: Run, files: ArtifactSet) -> bool:
    """The list goes into an offer, beside the specification and the labels."""
    return labels.too_large(run.spec, run.tags, run.properties, "", files.ByteSize()) is None


def complaint(run: Run, told: Any) -> str:
    """Why a CheckpointSaved cannot be used, for the user; "" where it can, or is merely late."""
    if not fits(run, told.checkpoint):
        size = told.checkpoint.ByteSize()
        return f"A checkpoint is not used: the list of its files takes {size} bytes, which no offer can carry beside the specification."
    return ""


def after(run: Run) -> dict[str, Any]:
    """What a run keeps for its next attempt once all of this one is saved: its last checkpoint, or else its outputs."""
    if run.checkpoint_epoch == run.epoch and count(run.checkpoint):
        return {}
    found = below(merging.outputs(run), folder_of(run))
    if found is None or not found.files or not fits(run, found):
        return {}
    return {"checkpoint": found, "checkpoint_epoch": run.epoch, "checkpoint_number": 0, "checkpoint_by": ""}


def to_resume(run: Run) -> tuple[ArtifactSet, str]:
    """What another run can begin with, and why that is nothing."""
    if count(run.checkpoint):
        return run.checkpoint, ""
    folder = folder_of(run)
    found = below(run.outputs, folder)
    if found is None:
        return (
            ArtifactSet(),
            f"Run {run.id} saved no checkpoint, and its outputs are too many to be taken for one: this run begins with nothing.",
        )
    if not found.files:
        return found, f"Run {run.id} has saved nothing in {folder!r} to resume from: this run begins with nothing."
    return found, ""


def folder_of(run: Run) -> str:
    folder: str = run.spec.checkpoint_folder or DEFAULT_FOLDER
    return folder.rstrip("/")


def below(files: ArtifactSet, folder: str) -> ArtifactSet | None:
    """Those in the folder, by their path in it; None where the list lies elsewhere."""
    if not is_listed(files):
        return None
    start = f"{folder}/"
    inside = (file for file in files.files if file.path.startswith(start))
    return ArtifactSet(
        files=[
            Artifact(path=file.path[len(start) :], size_bytes=file.size_bytes, sha256=file.sha256, object_key=file.object_key)
            for file in inside
        ]
    )
