"""Checkpoints in the object store: contents once an attempt, named by their digests; put back with every digest checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from services.trainer_agent.adapters.patience import when_it_answers
from services.trainer_agent.checkpoint_sets import INDEX, with_names_of
from services.trainer_agent.ports import PreparationFailed
from services.trainer_agent.restored import Placed, seen
from trainyard import _artifacts, _transfer
from trainyard._objects import ObjectMissing, Objects
from trainyard._paths import SHA256, below, sha256_file
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet

T = TypeVar("T")
# What a run may be given of the platform's store, whoever asks: what runs have left behind.
_READABLE = ("runs/", "uploads/")


class Checkpoints:
    def __init__(self, objects: Objects, retry_seconds: float = 600.0) -> None:
        self._objects = objects
        self._retry_seconds = retry_seconds

    def save(self, prefix: str, files: Sequence[tuple[str, Path]], sent: set[str], stopped: Callable[[], bool]) -> list[Artifact]:
        """Each (path, file), in order. `sent` has the digests of what lies below the prefix already, and gets those that are added.

        Raises OSError, ChangedWhileSent, PlatformUnavailableException, and Stopped soon after `stopped()`.
        """

        def one(item: tuple[str, Path]) -> Artifact:
            path, file = item
            _transfer.go_on_unless(stopped)
            digest = sha256_file(file)
            key = f"{prefix}/blobs/{digest}"
            if digest not in sent:
                self._patiently(lambda: _transfer.send(self._objects, key, file, sha256=digest), stopped)
                sent.add(digest)
            return Artifact(path=path, size_bytes=file.stat().st_size, sha256=digest, object_key=key)

        return _transfer.side_by_side(one, files)

    def listed(self, prefix: str, files: Sequence[Any], stopped: Callable[[], bool]) -> ArtifactSet:
        """A set that fits an event."""
        whole = ArtifactSet(files=sorted(files, key=_path))
        found: ArtifactSet = self._patiently(lambda: _artifacts.for_event(self._objects, prefix, whole), stopped)
        return found

    def restore(self, checkpoint: Any, folder: Path, stopped: Callable[[], bool]) -> dict[Path, Placed]:
        """All files of the set below the folder; returns them as they lie there now. Raises PreparationFailed, TrainyardException, OSError."""
        try:
            files = self._patiently(lambda: _artifacts.resolve(self._objects, checkpoint), stopped).files
            _transfer.side_by_side(lambda file: self._fetch(file, folder, stopped), files)
        except ObjectMissing as error:
            raise PreparationFailed(
                "CheckpointMissing", f"The checkpoint is not whole in the object store: {error}", error.target
            ) from error
        except _transfer.WrongBytes as error:
            raise PreparationFailed("CheckpointCorrupt", f"The checkpoint is damaged in the object store: {error}", error.target) from error
        digests = {below(folder, file.path): file.sha256 for file in files}
        for index in (path for path in digests if path.name == INDEX):
            if _name_anew(index):
                digests[index] = sha256_file(index)
        return {path: Placed(seen(path), digest) for path, digest in digests.items()}

    def _fetch(self, file: Any, folder: Path, stopped: Callable[[], bool]) -> None:
        if not SHA256.match(file.sha256) or not file.object_key.startswith(_READABLE) or ".." in file.object_key.split("/"):
            what = f"The checkpoint's file {file.path[:200]!r} names no content that a run may have: {file.object_key[:200]!r}."
            raise PreparationFailed("CheckpointCorrupt", what, file.path)
        target = below(folder, file.path)

        def receive() -> None:
            _transfer.go_on_unless(stopped)
            _transfer.receive(self._objects, file.object_key, target, size=file.size_bytes, sha256=file.sha256)

        self._patiently(receive, stopped)

    def _patiently(self, work: Callable[[], T], stopped: Callable[[], bool]) -> T:
        return when_it_answers(work, self._retry_seconds, stopped)


def _path(file: Any) -> str:
    return str(file.path)


def _name_anew(index: Path) -> bool:
    """Whether that changed it."""
    try:
        content = index.read_text("utf-8")
    except UnicodeDecodeError:
        return False

    def is_there(name: str) -> bool:
        return index.with_name(f"{name}.index").exists() or index.with_name(name).is_file()

    renamed = with_names_of(content, is_there)
    if renamed == content:
        return False
    index.write_text(renamed, "utf-8")
    return True
