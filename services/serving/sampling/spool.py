"""A folder that one process fills with samples and another one empties. A file belongs to whoever holds its lock, which goes with the
process: what a killed one left behind is taken as it is."""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ELOOP, ENOSPC, ENXIO
from io import FileIO
from pathlib import Path

_SUFFIX = ".samples"
SEGMENT_BYTES = 1 << 20
MOST_BYTES = 16 << 20
"""Of all files of a folder."""
MOST_FILES = 1000
"""Of a folder that are looked at together."""
_MOST_SEGMENT = 2 * SEGMENT_BYTES
_LOOK_SECONDS = 0.25
_NO_FILE = (ELOOP, ENXIO)  # a link, or a socket


class Full(Exception):
    """There is no room for more until somebody takes what is there."""


class Spool:
    """Not thread safe. Errors of the file system come out as OSError."""

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._file: FileIO | None = None
        self._room = 0
        self._looked = float("-inf")

    def append(self, record: bytes) -> None:
        """Raises Full and OSError."""
        if self._room < len(record):
            self.close()  # or nobody could make room
            self._look_for_room(len(record))
        if self._file is None:
            self._file = self._begin()
        at = self._file.tell()
        try:
            if self._file.write(record) != len(record):
                raise OSError(ENOSPC, "the disk is full")
        except OSError:
            self._file.truncate(at)
            self.close()
            raise
        self._room -= len(record)
        if at + len(record) >= SEGMENT_BYTES:
            self.close()

    def close(self) -> None:
        """What was appended may be taken from now on."""
        file, self._file = self._file, None
        if file is not None:
            with file:
                # A process that was forked meanwhile has the same lock: it is given up for both.
                fcntl.flock(file, fcntl.LOCK_UN)

    def _look_for_room(self, wanted: int) -> None:
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            raise Full
        self._looked = time.monotonic()
        self._room = self._most_bytes - sum(size for _, size in _files(self._folder))
        if self._room < wanted:
            raise Full

    def _begin(self) -> FileIO:
        """Under its name only once it is locked, so that nobody takes it before."""
        name = f"{time.time_ns():020}-{os.getpid()}{_SUFFIX}"
        hidden = self._folder / f".{name}"
        file = hidden.open("xb", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            hidden.rename(self._folder / name)
        except BaseException:
            file.close()
            hidden.unlink(missing_ok=True)
            raise
        return file


def closed(folder: Path, most: int = MOST_FILES) -> list[Path]:
    """Files of samples in the order in which they were begun, the first of them, and those under way among them: `taken` tells. Raises
    OSError."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        return [folder / name for name in heapq.nsmallest(most, (it.name for it in entries if _is_of_samples(it.name)))]
    return []


@contextmanager
def taken(path: Path) -> Iterator[bytes | None]:
    """The content of a file that nobody writes any more; it goes at the end of the block, unless that raises. None: not yet, or not any
    more. A script of a user's may have put anything there: what is no file of samples, by kind or by size, is empty.

    Raises OSError where it cannot be read, and at the end of the block where it cannot be removed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        yield b""
        path.unlink(missing_ok=True)
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield _content(descriptor)
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _content(descriptor: int) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_SEGMENT:
        return b""
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return file.read(_MOST_SEGMENT)


def _is_of_samples(name: str) -> bool:
    return name.endswith(_SUFFIX) and not name.startswith(".")


def _files(folder: Path) -> list[tuple[Path, int]]:
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if _is_of_samples(entry.name):
                with contextlib.suppress(FileNotFoundError):
                    found.append((Path(entry.path), entry.stat(follow_symlinks=False).st_size))
    return found
