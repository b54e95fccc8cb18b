"""The cache of environments on this machine: one folder an environment, whole once `.complete` lies in it, and one lock file beside it.

Whoever builds or removes an environment holds its lock alone; whoever uses it shares it. So nothing in use is ever removed, also
where the user is another process, and a process that is killed lets go by itself. Standard library only.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

COMPLETE = ".complete"


def default_cache() -> Path:
    """The folder that agents of this user keep environments, data and wheels in."""
    return Path(os.environ.get("TRAINYARD_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trainyard")


def folder_of(cache: Path, environment_id: str) -> Path:
    return cache / "environments" / environment_id


def lock_of(cache: Path, environment_id: str) -> Path:
    return folder_of(cache, environment_id).with_suffix(".lock")


class Hold:
    """An environment in use: it stays where it is until `release`, or until this process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._close = weakref.finalize(self, os.close, descriptor)

    def release(self) -> None:
        """A second time does nothing."""
        self._close()

    def outlive_exec(self) -> None:
        """It is kept by the program that this process becomes, and by what that starts."""
        os.set_inheritable(self._descriptor, True)


def hold(cache: Path, environment_id: str) -> Hold | None:
    """The environment from now on in use; None where no whole one is there. Waits while somebody removes it."""
    lock = lock_of(cache, environment_id)
    if not folder_of(cache, environment_id).is_dir():
        return None
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    taken = Hold(descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    if not (folder_of(cache, environment_id) / COMPLETE).exists():
        taken.release()
        return None
    os.utime(lock)
    return taken


@dataclass(frozen=True)
class Cached:
    """A whole environment of the cache. `own_bytes` would be free without it: the rest is shared with the wheel cache by hard links."""

    id: str
    requirements: tuple[str, ...]
    size_bytes: int
    own_bytes: int
    last_used: datetime
    in_use: bool


def cached(cache: Path) -> list[Cached]:
    """What is there, last used first."""
    found = [_look(cache, mark.parent.name) for mark in (cache / "environments").glob(f"*/{COMPLETE}")]
    return sorted(found, key=lambda it: (it.last_used, it.id), reverse=True)


def prune(cache: Path, *, unused_since: datetime, ids: Sequence[str] = ()) -> tuple[list[Cached], list[Cached]]:
    """Removes environments last used before that time (of `ids` only, where any are given). (removed, kept because they are in use)"""
    removed, kept = [], []
    for environment in cached(cache):
        if environment.last_used >= unused_since or (ids and environment.id not in ids):
            continue
        with _alone(cache, environment.id) as alone:
            # It may have been used between the look and the lock.
            if alone and _last_used(cache, environment.id) < unused_since:
                # Half gone is as good as gone: without the mark nobody takes it for whole.
                (folder_of(cache, environment.id) / COMPLETE).unlink()
                shutil.rmtree(folder_of(cache, environment.id), ignore_errors=True)
                removed.append(environment)
            else:
                kept.append(environment)
    return removed, kept


def _look(cache: Path, environment_id: str) -> Cached:
    with _alone(cache, environment_id) as alone:
        in_use = not alone
    size, own = _sizes(folder_of(cache, environment_id))
    return Cached(environment_id, _requirements(cache, environment_id), size, own, _last_used(cache, environment_id), in_use)


def _last_used(cache: Path, environment_id: str) -> datetime:
    """The lock is touched by every use; an environment of an earlier time was last used when it was built."""
    marks = (lock_of(cache, environment_id), folder_of(cache, environment_id) / COMPLETE)
    return datetime.fromtimestamp(max((mark.stat().st_mtime for mark in marks if mark.exists()), default=0.0), UTC)


def _requirements(cache: Path, environment_id: str) -> tuple[str, ...]:
    try:
        return tuple((folder_of(cache, environment_id) / "requirements.txt").read_text("utf-8").splitlines())
    except OSError:
        return ()


def _sizes(folder: Path) -> tuple[int, int]:
    size = own = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.lstat(os.path.join(where, name))
            except FileNotFoundError:
                continue
            size += found.st_size
            own += found.st_size if found.st_nlink == 1 else 0
    return size, own


@contextmanager
def _alone(cache: Path, environment_id: str) -> Iterator[bool]:
    """Is nobody else there? If so, nobody comes in before the end of the block."""
    descriptor = os.open(lock_of(cache, environment_id), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
