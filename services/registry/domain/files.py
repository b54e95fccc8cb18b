"""Which of a run's files a path means, under which paths a model keeps them, and the digest that names them all. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import PurePosixPath

from services.chassis.choices import close_to, told
from services.registry.domain.runs import Run
from trainyard._paths import safe_relpath
from trainyard.event.v1.artifact_pb2 import Artifact, Failure


def plain(path: str) -> str:
    """The path without a leading "./" and a trailing slash. Raises UserErrorException for what could lead elsewhere."""
    return safe_relpath(path.removeprefix("./").removesuffix("/"))


def chosen(run: Run, path: str) -> list[Artifact]:
    """The file, or all files of the folder, under their paths below the folder's parent; sorted. Empty where there is none."""
    path = plain(path)
    parent = f"{PurePosixPath(path).parent}/".removeprefix("./")
    files = [file for file in run.artifacts.files if file.path == path or file.path.startswith(f"{path}/")]
    moved = [
        Artifact(path=file.path.removeprefix(parent), size_bytes=file.size_bytes, sha256=file.sha256, object_key=file.object_key)
        for file in files
    ]
    return sorted(moved, key=lambda file: file.path)


def digest(files: Iterable[Artifact]) -> str:
    """SHA-256 over the sorted "path\\0sha256\\n" lines."""
    lines = sorted(f"{file.path}\0{file.sha256}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def saved_model_of(files: Iterable[Artifact]) -> Artifact | None:
    """The graph of the folder that was registered, where that is a SavedModel."""
    return next((file for file in files if file.path.count("/") == 1 and file.path.endswith("/saved_model.pb")), None)


def not_found(run: Run, path: str) -> Failure:
    """What the run has instead; what looks like the path comes first."""
    there = sorted(file.path for file in run.artifacts.files)
    message = f"Run {run.id} ({run.status}) has no file or folder {path[:300]!r}; its files are: {told(_like(plain(path), there), there)}."
    return Failure(code="ModelPathNotFound", message=message[:3000], target=path[:1000])


def _like(path: str, there: list[str]) -> list[str]:
    """Files that are like the path, or lie in a folder that is."""
    folders = {str(folder) for file in there for folder in PurePosixPath(file).parents if str(folder) != "."}
    alike = close_to(path, folders | set(there))
    return [file for like in alike for file in there if file == like or file.startswith(f"{like}/")]
