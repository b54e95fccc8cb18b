"""What a run leaves behind, into the object store: every file with its digest, below a prefix that carries the epoch."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from services.trainer_agent.adapters.patience import when_it_answers
from trainyard._errors import UserErrorException
from trainyard._objects import Objects
from trainyard._paths import safe_relpath, sha256_file
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet

_PARALLEL = 8
# The list of files travels in one message of at most a megabyte, beside warnings and the script's last lines.
MOST_FILES, MOST_LIST_BYTES = 3000, 900 << 10
_WARNING_CHARACTERS = 500
# What the list adds to an entry: its tag and its length.
_FRAME_BYTES = 4


class OutputStore:
    def __init__(self, objects: Objects, retry_seconds: float = 600.0) -> None:
        self._objects = objects
        self._retry_seconds = retry_seconds

    def save(self, run_id: str, epoch: int, folders: list[tuple[str, Path]], stopped: Callable[[], bool]) -> tuple[ArtifactSet, list[str]]:
        """Files below each (prefix, folder), and what was left out. A store that is away is waited for; raises PlatformUnavailableException."""
        warnings: list[str] = []
        found = sorted((path, file) for prefix, folder in folders for path, file in _files(prefix, folder, warnings))
        prefix = f"runs/{run_id}/{epoch}"
        most = _listed([path for path, _ in found], prefix)
        if len(found) > most:
            what = f"{len(found)} files are more than one list takes ({MOST_FILES} files, {MOST_LIST_BYTES >> 10} KiB of names)"
            warnings.insert(0, f"{what}: {len(found) - most} were not saved, those after {found[most - 1][0]!r}")
        with ThreadPoolExecutor(_PARALLEL) as pool:
            saved = list(pool.map(lambda item: self._one(f"{prefix}/{item[0]}", item[0], item[1], stopped), found[:most]))
        return ArtifactSet(files=saved), [warning[:_WARNING_CHARACTERS] for warning in warnings]

    def _one(self, key: str, path: str, file: Path, stopped: Callable[[], bool]) -> Artifact:
        when_it_answers(lambda: self._objects.put_file(key, file), self._retry_seconds, stopped)
        return Artifact(path=path, size_bytes=file.stat().st_size, sha256=sha256_file(file), object_key=key)


def _listed(paths: Sequence[str], prefix: str) -> int:
    """How many of them one message can list."""
    room = MOST_LIST_BYTES
    for count, path in enumerate(paths[:MOST_FILES]):
        entry = Artifact(path=path, object_key=f"{prefix}/{path}", sha256="0" * 64, size_bytes=2**63)
        room -= entry.ByteSize() + _FRAME_BYTES
        if room < 0:
            return count
    return min(len(paths), MOST_FILES)


def _files(prefix: str, folder: Path, warnings: list[str]) -> Iterator[tuple[str, Path]]:
    """Plain files only: a link may lead anywhere, the folder itself included; a socket or pipe has no content."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        warnings.append(f"{prefix!r} was not saved: it is a link or no folder any more")
        return
    for here, inner, names in os.walk(folder):
        for name in [*(it for it in inner if (Path(here) / it).is_symlink()), *names]:
            file = Path(here) / name
            path = f"{prefix}/{file.relative_to(folder).as_posix()}"
            try:
                if not stat.S_ISREG(file.lstat().st_mode):
                    warnings.append(f"{path!r} was not saved: it is a link or no plain file")
                    continue
                yield safe_relpath(path), file
            except UserErrorException:
                warnings.append(f"{path!r} was not saved: its name has characters that are not allowed")
