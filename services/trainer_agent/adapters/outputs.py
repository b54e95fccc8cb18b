"""What a run leaves behind, into the object store: every file with its digest, below a prefix that carries the epoch."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trainyard._errors import PlatformUnavailableException, UserErrorException
from trainyard._objects import Objects
from trainyard._paths import safe_relpath, sha256_file
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet

_PARALLEL = 8
# The list of files travels in one message of at most a megabyte.
MOST_FILES = 3000


class OutputStore:
    def __init__(self, objects: Objects, retry_seconds: float = 600.0) -> None:
        self._objects = objects
        self._retry_seconds = retry_seconds

    def save(self, run_id: str, epoch: int, folders: list[tuple[str, Path]], stopped: Callable[[], bool]) -> tuple[ArtifactSet, list[str]]:
        """Files below each (prefix, folder), and what was left out. A store that is away is waited for; raises PlatformUnavailableException."""
        warnings: list[str] = []
        found = sorted((path, file) for prefix, folder in folders for path, file in plain_files(prefix, folder, warnings))
        if len(found) > MOST_FILES:
            warnings.append(f"{len(found)} files are more than {MOST_FILES}; those after {found[MOST_FILES - 1][0]!r} were not saved")
        prefix = f"runs/{run_id}/{epoch}"
        with ThreadPoolExecutor(_PARALLEL) as pool:
            saved = list(pool.map(lambda item: self._one(f"{prefix}/{item[0]}", item[0], item[1], stopped), found[:MOST_FILES]))
        return ArtifactSet(files=saved), warnings

    def _one(self, key: str, path: str, file: Path, stopped: Callable[[], bool]) -> Artifact:
        deadline, pause = time.monotonic() + self._retry_seconds, 0.2
        while True:
            try:
                self._objects.put_file(key, file)
                return Artifact(path=path, size_bytes=file.stat().st_size, sha256=sha256_file(file), object_key=key)
            except PlatformUnavailableException:
                if stopped() or time.monotonic() >= deadline:
                    raise
                time.sleep(pause)
                pause = min(pause * 2, 5.0)


def plain_files(prefix: str, folder: Path, warnings: list[str]) -> Iterator[tuple[str, Path]]:
    """Plain files only: a link may lead anywhere, a socket or pipe has no content."""
    for here, _, names in os.walk(folder):
        for name in names:
            file = Path(here) / name
            path = f"{prefix}/{file.relative_to(folder).as_posix()}"
            try:
                if not stat.S_ISREG(file.lstat().st_mode):
                    warnings.append(f"{path!r} was not saved: it is a link or no plain file")
                    continue
                yield safe_relpath(path), file
            except UserErrorException:
                warnings.append(f"{path!r} was not saved: its name has characters that are not allowed")
