"""What a run leaves behind, into the object store: every file with its digest, below a prefix that carries the epoch."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from services.trainer_agent.adapters.patience import when_it_answers
from trainyard import _artifacts, _transfer
from trainyard._errors import UserErrorException
from trainyard._objects import Objects
from trainyard._paths import safe_relpath
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet

T = TypeVar("T")
# A list that an event has no room for is an object of its own: this bounds that object, and the time to the run's end.
MOST_FILES = 100_000
_WARNING_CHARACTERS = 500


class OutputStore:
    def __init__(self, objects: Objects, retry_seconds: float = 600.0) -> None:
        self._objects = objects
        self._retry_seconds = retry_seconds

    def upload(
        self, run_id: str, epoch: int, folders: Sequence[tuple[str, Path]], stopped: Callable[[], bool], node_index: int = 0
    ) -> tuple[list[Artifact], list[str]]:
        """Files below each (prefix, folder), and what was left out. Nodes beside the first write below a prefix of their own: files of one
        path are not one another's. A store that is away is waited for; raises PlatformUnavailableException."""
        warnings: list[str] = []
        found = sorted((path, file) for prefix, folder in folders for path, file in plain_files(prefix, folder, warnings))
        if len(found) > MOST_FILES:
            what = f"{len(found)} files are more than {MOST_FILES}"
            warnings.insert(0, f"{what}: {len(found) - MOST_FILES} were not saved, those after {found[MOST_FILES - 1][0]!r}")
        below = _prefix(run_id, epoch, node_index)

        def one(item: tuple[str, Path]) -> Artifact | None:
            path, file = item
            try:
                return self._one(f"{below}/{path}", path, file, stopped)
            except OSError as error:
                # One file that cannot be read does not take the others with it.
                warnings.append(f"{path!r} was not saved: {error.strerror}")
                return None

        saved = [artifact for artifact in _transfer.side_by_side(one, found[:MOST_FILES]) if artifact is not None]
        return saved, [warning[:_WARNING_CHARACTERS] for warning in warnings]

    def file(self, run_id: str, epoch: int, path: str, file: Path, stopped: Callable[[], bool]) -> Artifact:
        """One file, which need be none of the outputs. Raises OSError, PlatformUnavailableException."""
        return self._one(f"{_prefix(run_id, epoch, 0)}/{path}", path, file, stopped)

    def listed(
        self, run_id: str, epoch: int, files: Iterable[Artifact], stopped: Callable[[], bool], node_index: int = 0, sharers: int = 1
    ) -> ArtifactSet:
        """For the report; a long list comes as an object of its own. sharers: how many nodes save files of this attempt; the event of its
        end has room for all their lists. Raises PlatformUnavailableException."""
        by_path = {file.path: file for file in files}
        whole = ArtifactSet(files=[by_path[path] for path in sorted(by_path)])

        def written() -> ArtifactSet:
            made: ArtifactSet = _artifacts.for_event(self._objects, _prefix(run_id, epoch, node_index), whole, sharers)
            return made

        return self._patiently(written, stopped)

    def _one(self, key: str, path: str, file: Path, stopped: Callable[[], bool]) -> Artifact:
        sent = self._patiently(lambda: _transfer.send(self._objects, key, file), stopped)
        return Artifact(path=path, size_bytes=sent.size, sha256=sent.sha256, object_key=key)

    def _patiently(self, work: Callable[[], T], stopped: Callable[[], bool]) -> T:
        return when_it_answers(work, self._retry_seconds, stopped)


def _prefix(run_id: str, epoch: int, node_index: int) -> str:
    return f"runs/{run_id}/{epoch}" + (f"/nodes/{node_index}" if node_index else "")


def plain_files(prefix: str, folder: Path, warnings: list[str]) -> Iterator[tuple[str, Path]]:
    """Plain files only: a link may lead anywhere, the folder itself included; a socket or pipe has no content. Names travel in Unicode's
    form C, as most systems write them."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        warnings.append(f"{prefix!r} was not saved: it is a link or no folder any more")
        return
    seen: set[str] = set()
    for here, inner, names in os.walk(folder):
        for name in [*(it for it in inner if (Path(here) / it).is_symlink()), *names]:
            file = Path(here) / name
            path = unicodedata.normalize("NFC", f"{prefix}/{file.relative_to(folder).as_posix()}")
            try:
                if not stat.S_ISREG(file.lstat().st_mode):
                    warnings.append(f"{path!r} was not saved: it is a link or no plain file")
                    continue
                if safe_relpath(path) in seen:
                    warnings.append(f"{path!r} was saved once: two files have that name, in different forms of Unicode")
                    continue
                seen.add(path)
                yield path, file
            except UserErrorException:
                what = "no backslash, control character, %2e, %2f, %5c or %25, and no dot or space at an end"
                warnings.append(f"{path!r} was not saved: its name cannot travel; in a name there is {what}")
