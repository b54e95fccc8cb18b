"""Source folders from the object store: each content once a node, then copied, because a script may write into its own folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.trainer_agent.adapters.blobs import Blobs
from services.trainer_agent.adapters.patience import when_it_answers
from services.trainer_agent.ports import PreparationFailed
from trainyard import _snapshot, _transfer
from trainyard._objects import ObjectMissing, Objects
from trainyard._paths import SHA256, below


class Snapshots:
    def __init__(self, objects: Objects, blobs: Blobs, retry_seconds: float = 600.0) -> None:
        self._objects = objects
        self._blobs = blobs
        self._retry_seconds = retry_seconds

    def unpack(self, snapshot: Any, folder: Path, stopped: Callable[[], bool] = lambda: False) -> tuple[int, int]:
        whole = self._listed(snapshot, stopped)
        for path in whole.empty_folders:
            below(folder, path).mkdir(parents=True, exist_ok=True)
        with self._blobs.use() as lease:
            lease.name(*{file.sha256 for file in whole.files})
            self._blobs.make_room(sum(file.size_bytes for file in whole.files if not self._blobs.path(file.sha256).exists()))
            fetched = _transfer.side_by_side(lambda file: self._one(file, folder, stopped), whole.files)
        return len(whole.files), sum(fetched)

    def _listed(self, snapshot: Any, stopped: Callable[[], bool]) -> Any:
        try:
            return when_it_answers(lambda: _snapshot.listed(self._objects, snapshot), self._retry_seconds, stopped)
        except ObjectMissing as error:
            what = f"The list of the snapshot's files is not in the object store ({snapshot.manifest_key}). Submit the run again."
            raise PreparationFailed("SnapshotMissing", what, snapshot.manifest_key) from error

    def _one(self, file: Any, folder: Path, stopped: Callable[[], bool]) -> bool:
        target = below(folder, file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        _transfer.go_on_unless(stopped)
        blob = self._blobs.get(file.sha256)
        fetched = blob is None
        shutil.copyfile(blob or self._fetch(file, stopped), target)
        target.chmod(0o755 if file.executable else 0o644)
        return fetched

    def _fetch(self, file: Any, stopped: Callable[[], bool]) -> Path:
        """Once a node: who waited for another's copy finds it."""
        if not SHA256.match(file.sha256):
            what = f"{file.path} of the snapshot has no SHA-256 of 64 lower-case hex digits. Submit the run again."
            raise PreparationFailed("SnapshotCorrupt", what, file.path)
        key = f"snapshots/blobs/{file.sha256}"
        with self._blobs.part(file.sha256, stopped) as part:
            try:
                if (blob := self._blobs.get(file.sha256)) is not None:
                    return blob
                when_it_answers(
                    lambda: _transfer.fill(self._objects, key, part, size=file.size_bytes, sha256=file.sha256, stopped=stopped),
                    self._retry_seconds,
                    stopped,
                )
                return self._blobs.take_in(part, file.sha256, is_checked=True)[0]
            except ObjectMissing as error:
                what = f"{file.path} of the snapshot is not in the object store ({key}). Submit the run again."
                raise PreparationFailed("SnapshotMissing", what, file.path) from error
            except _transfer.WrongBytes as error:
                what = f"{file.path} of the snapshot is damaged in the object store: {error}."
                raise PreparationFailed("SnapshotCorrupt", what, file.path) from error
