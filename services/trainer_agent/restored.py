"""What an attempt began with, told apart from what its ranks have written: a copy of an older file is no work of the node that has it.

Kept in memory alone: an agent that dies takes its ranks along, and the next process of it never goes on with an attempt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from services.trainer_agent.checkpoint_sets import Seen
from trainyard.event.v1.artifact_pb2 import Artifact


@dataclass(frozen=True)
class Placed:
    """A file of a checkpoint as it was put back."""

    seen: Seen
    sha256: str


def seen(file: Path) -> Seen:
    """Raises OSError."""
    found = file.lstat()
    return Seen(found.st_size, found.st_mtime_ns, found.st_ino)


def divided(files: Iterable[Artifact], folder: Path, began_with: Mapping[Path, Placed]) -> tuple[list[Artifact], list[Artifact]]:
    """Those that were written, and those that are as they were put back. Paths are relative to `folder`.

    A file that was written anew is written, whatever is in it; a digest beside the time tells what was changed behind a time set back.
    """
    written: list[Artifact] = []
    restored: list[Artifact] = []
    for file in files:
        (restored if _is_untouched(file, began_with, folder) else written).append(file)
    return written, restored


def _is_untouched(file: Artifact, began_with: Mapping[Path, Placed], folder: Path) -> bool:
    placed = began_with.get(folder / file.path)
    if placed is None or placed.sha256 != file.sha256:
        return False
    try:
        return seen(folder / file.path) == placed.seen
    except OSError:
        return False
