"""The checkpoint folder of a run that goes on, mirrored: whole sets only, each told once its contents lie in the object store."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from services.trainer_agent.adapters.checkpoints import Checkpoints
from services.trainer_agent.adapters.outputs import MOST_FILES, plain_files
from services.trainer_agent.checkpoint_sets import Seen, chosen, is_index, quiet
from services.trainer_agent.restored import seen
from trainyard._errors import TrainyardException
from trainyard._gang import is_elastic

log = structlog.get_logger()
DEFAULT_FOLDER = "outputs"
_INDEX_BYTES = 1 << 20
_ATTEMPTS = 3
# A file that was written to less than so long before its writer was ended may be half of what it was to become.
_SETTLED_NS = 1_000_000_000


def is_wanted(offer: Any) -> bool:
    """Where an attempt may begin with what the one before has saved."""
    spec = offer.spec
    return bool(spec.max_restarts or spec.checkpoint_folder or is_elastic(spec.distribution) or offer.preemptible)


class Mirror:
    """`saved(set)` is called on the loop, for every set that differs from the last. Nothing that happens here ends the run."""

    def __init__(
        self, store: Checkpoints, prefix: str, folder: Path, staging: Path, saved: Callable[[Any], None], stopped: Callable[[], bool]
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._folder = folder
        self._staging = staging
        self._saved = saved
        self._stopped = stopped
        self._over = asyncio.Event()
        self._settled_ns: int | None = None
        self._before: Mapping[str, Seen] = {}
        self._kept: dict[str, tuple[Seen, Any]] = {}
        """By path: what was saved last."""
        self._sent: set[str] = set()
        self._told: dict[str, str] = {}

    def end(self, last_write_ns: int | None) -> None:
        """No rank of this node writes any more: one last look. Files written to after that time count as torn; None = none is."""
        self._settled_ns = (1 << 62) if last_write_ns is None else last_write_ns - _SETTLED_NS
        self._over.set()

    async def run(self, every_seconds: float) -> None:
        """Until `end`, and the last look after it."""
        is_over = False
        while not is_over:
            try:
                async with asyncio.timeout(every_seconds):
                    is_over = await self._over.wait()
            except TimeoutError:
                pass
            if self._stopped():
                return
            try:
                found = await asyncio.to_thread(self._look)
            except (TrainyardException, OSError) as error:
                log.warning("no checkpoint was saved", folder=str(self._folder), reason=str(error)[:500])
            except Exception:
                log.exception("no checkpoint was saved", folder=str(self._folder))
            else:
                if found is not None and not self._stopped():
                    self._saved(found)

    def _look(self) -> Any:
        """The set to be told, or None."""
        before = self._before
        for _ in range(_ATTEMPTS):
            try:
                indexes = self._indexes()
                self._before = now = self._scan()
                return self._take(now, chosen(now, self._quiet(before, now), indexes, os.path.realpath(self._folder)))
            except (FileNotFoundError, _Changed):
                # The script has removed what it had just named: by now it names something newer.
                continue
            finally:
                shutil.rmtree(self._staging, ignore_errors=True)
        return None

    def _take(self, now: Mapping[str, Seen], paths: Sequence[str] | None) -> Any:
        if not paths:
            return None
        staged = self._stage([path for path in paths if path not in self._kept or self._kept[path][0] != now[path]], now)
        for artifact in self._store.save(self._prefix, staged, self._sent, self._stopped):
            self._kept[artifact.path] = now[artifact.path], artifact
        # What is being written to stays in the set as it was saved last.
        self._kept = {path: it for path, it in self._kept.items() if path in now}
        artifacts = [artifact for _, artifact in self._kept.values()]
        told = {artifact.path: artifact.sha256 for artifact in artifacts}
        if told == self._told:
            return None
        listed = self._store.listed(self._prefix, artifacts, self._stopped)
        self._told = told
        return listed

    def _quiet(self, before: Mapping[str, Seen], now: Mapping[str, Seen]) -> frozenset[str]:
        settled = self._settled_ns
        return quiet(before, now) | {path for path, it in now.items() if settled is not None and it.mtime_ns <= settled}

    def _scan(self) -> dict[str, Seen]:
        found = {path: seen(file) for path, file in self._files()}
        if len(found) > MOST_FILES:
            raise OSError(f"{len(found)} files are more than {MOST_FILES}")
        return found

    def _files(self) -> Iterator[tuple[str, Path]]:
        return ((path.partition("/")[2], file) for path, file in plain_files(DEFAULT_FOLDER, self._folder, []))

    def _indexes(self) -> dict[str, str]:
        return {path: text for path, file in self._files() if is_index(path) and (text := _text(file))}

    def _stage(self, paths: Sequence[str], now: Mapping[str, Seen]) -> list[tuple[str, Path]]:
        """Links to the files as they were seen: what the script removes or replaces from here on stays what it was."""
        self._staging.mkdir()
        staged = []
        for number, path in enumerate(paths):
            link = self._staging / str(number)
            os.link(self._folder / path, link, follow_symlinks=False)
            if seen(link) != now[path]:
                raise _Changed(path)
            staged.append((path, link))
        return staged


class _Changed(OSError):
    """A file is not any more what it was seen to be."""


def _text(file: Path) -> str:
    """Empty where it is no text of a sane size."""
    handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as stream:
        content = stream.read(_INDEX_BYTES + 1)
    try:
        return content.decode() if len(content) <= _INDEX_BYTES else ""
    except UnicodeDecodeError:
        return ""
