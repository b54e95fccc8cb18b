"""Source folders from the object store: each content once a node, then copied, because a script may write into its own folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from services.trainer_agent.adapters.blobs import Blobs, WrongDigest
from services.trainer_agent.adapters.patience import when_it_answers
from services.trainer_agent.ports import PreparationFailed
from trainyard._objects import ObjectMissing, Objects
from trainyard._paths import SHA256, below

_PARALLEL = 8


class Snapshots:
    def __init__(self, objects: Objects, blobs: Blobs, retry_seconds: float = 600.0) -> None:
        self._objects = objects
        self._blobs = blobs
        self._retry_seconds = retry_seconds

    def unpack(self, snapshot: Any, folder: Path, stopped: Callable[[], bool] = lambda: False) -> int:
        with ThreadPoolExecutor(_PARALLEL) as pool:
            return sum(pool.map(lambda file: self._one(file, folder, stopped), snapshot.files))

    def _one(self, file: Any, folder: Path, stopped: Callable[[], bool]) -> bool:
        target = below(folder, file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        blob = self._blobs.get(file.sha256)
        fetched = blob is None
        shutil.copyfile(blob or self._fetch(file, stopped), target)
        target.chmod(0o755 if file.executable else 0o644)
        return fetched

    def _fetch(self, file: Any, stopped: Callable[[], bool]) -> Path:
        if not SHA256.match(file.sha256):
            what = f"{file.path} of the snapshot has no SHA-256 of 64 lower-case hex digits. Submit the run again."
            raise PreparationFailed("SnapshotCorrupt", what, file.path)
        key = f"snapshots/blobs/{file.sha256}"
        with self._blobs.incoming() as incoming:
            try:
                when_it_answers(lambda: self._objects.get_file(key, incoming), self._retry_seconds, stopped)
                return self._blobs.take_in(incoming, file.sha256)[0]
            except ObjectMissing as error:
                what = f"{file.path} of the snapshot is not in the object store ({key}). Submit the run again."
                raise PreparationFailed("SnapshotMissing", what, file.path) from error
            except WrongDigest as error:
                what = f"{file.path} of the snapshot is damaged in the object store: {error}."
                raise PreparationFailed("SnapshotCorrupt", what, file.path) from error
