"""Which files of the node's cache may go when it is full: those not used for longest, and never one in use.

In use is what a living process holds a lease on, and what has a second hard link (data mounted for a run). A lease is a file that is
locked for as long as its process lives, so that after a kill it counts no more; naming a digest in it and evicting exclude each other
by the lock on `gate`.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from trainyard._paths import SHA256

log = structlog.get_logger()


class Lease:
    """Digests that one user of the cache needs."""

    def __init__(self, file: Path, gate: Path) -> None:
        self._path = file
        self._gate = gate
        self._handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def name(self, *digests: str) -> None:
        """From here on they are in use, whether they are there yet or not."""
        with _locked(self._gate, fcntl.LOCK_SH):
            os.write(self._handle, "".join(f"{digest}\n" for digest in digests).encode())

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._handle)


@dataclass(frozen=True)
class _Kept:
    path: Path
    size: int
    used_at: float
    is_linked: bool


class Room:
    def __init__(self, folder: Path, budget_bytes: int) -> None:
        self._folder = folder
        self.budget_bytes = budget_bytes

    def lease(self) -> Lease:
        (self._folder / "leases").mkdir(parents=True, exist_ok=True)
        # An evictor that finds the file before it is locked would take it for a dead one's.
        with _locked(self._folder / "gate", fcntl.LOCK_SH):
            return Lease(self._folder / "leases" / uuid.uuid4().hex, self._folder / "gate")

    def make(self, size: int) -> bool:
        """See Blobs.make_room."""
        if not self.budget_bytes:
            return True
        self._folder.mkdir(parents=True, exist_ok=True)
        with _locked(self._folder / "gate", fcntl.LOCK_EX):
            kept = sorted(self._kept(), key=lambda file: file.used_at)
            over = sum(file.size for file in kept) + size - self.budget_bytes
            if over <= 0:
                return True
            used = self._in_use()
            gone = 0
            for file in kept:
                if over <= 0:
                    break
                if file.is_linked or file.path.name in used or not _remove(file.path):
                    continue
                over -= file.size
                gone += 1
        if gone:
            log.info("made room in the cache", files=gone, budget=self.budget_bytes)
        return over <= 0

    def _kept(self) -> Iterator[_Kept]:
        for shelf in self._folder.iterdir():
            if not shelf.is_dir() or shelf.name == "leases":
                continue
            with os.scandir(shelf) as entries:
                for entry in entries:
                    if SHA256.match(entry.name):
                        try:
                            status = entry.stat(follow_symlinks=False)
                            yield _Kept(Path(entry.path), status.st_size, _used_at(entry.path, status.st_mtime), status.st_nlink > 1)
                        except FileNotFoundError:
                            continue

    def _in_use(self) -> set[str]:
        """Leases of the dead are swept away on the way."""
        used: set[str] = set()
        folder = self._folder / "leases"
        for file in folder.iterdir() if folder.is_dir() else ():
            with _opened(file) as handle:
                if handle is None:
                    continue
                if _lock_at_once(handle):
                    file.unlink(missing_ok=True)
                else:
                    used.update(file.read_text().splitlines())
        return used


def _used_at(path: str, otherwise: float) -> float:
    try:
        return os.stat(f"{path}.seen").st_mtime
    except FileNotFoundError:
        return otherwise


def _remove(path: Path) -> bool:
    """False for a part that somebody fills."""
    with _opened(path) as handle:
        if handle is None or not _lock_at_once(handle):
            return False
        path.unlink(missing_ok=True)
    for suffix in (".seen", ".tag"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return True


def _lock_at_once(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, kind)
        yield
    finally:
        os.close(handle)
