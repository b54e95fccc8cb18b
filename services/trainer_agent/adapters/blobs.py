"""The node's cache of file contents: one file a digest, taken in whole or not at all, checked again when it looks touched."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from services.trainer_agent.adapters.cache_room import Lease, Room
from trainyard import _transfer
from trainyard._paths import SHA256, sha256_file

_LOOK_SECONDS = 0.2


class WrongDigest(Exception):
    """The bytes are not those that were named."""

    def __init__(self, wanted: str, found: str) -> None:
        super().__init__(f"SHA-256 is {found}, not {wanted}")
        self.wanted = wanted
        self.found = found


class Blobs:
    """Safe to share by several processes: every file appears by rename.

    `budget_bytes` is what the folder may hold, 0 for no bound; what is in use may exceed it.
    """

    def __init__(self, folder: Path, budget_bytes: int = 0) -> None:
        self._folder = folder
        self._room = Room(folder, budget_bytes)

    @property
    def budget_bytes(self) -> int:
        return self._room.budget_bytes

    def lease(self) -> Lease:
        """As `use`, until it is closed."""
        return self._room.lease()

    @contextmanager
    def use(self) -> Iterator[Lease]:
        """What is given a name here is not evicted until the end, nor once it has a second hard link."""
        lease = self._room.lease()
        try:
            yield lease
        finally:
            lease.close()

    def make_room(self, size: int) -> bool:
        """Evicts what was not used for longest until `size` more bytes fit the budget; False where what is in use leaves no such room."""
        return self._room.make(size)

    def path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    def get(self, sha256: str) -> Path | None:
        """The file, if it is there and is what its name says.

        Mounted data are hard links into the cache: who writes through one changes the file's time, and then it is hashed again.
        """
        if not SHA256.match(sha256):
            return None
        path, mark = self.path(sha256), self._mark(sha256)
        try:
            seen = _signature(path)
        except FileNotFoundError:
            return None
        if _read(mark) != seen:
            if sha256_file(path) != sha256:
                path.unlink(missing_ok=True)
                return None
            _write(mark, seen)
        else:
            _touch(mark)
        return path

    @contextmanager
    def part(self, name: str, stopped: Callable[[], bool] = lambda: False) -> Iterator[Path]:
        """A file to fill, for this caller alone: another that asks for the same name waits. It may hold a beginning that an earlier,
        broken attempt has left; unless it is taken in, it is left in turn. `name` is a digest, or stands for a file whose digest is not known.

        Raises Stopped where `stopped()` comes true while it waits.
        """
        path = self._folder / "parts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _own(path, stopped)
        try:
            yield path
        finally:
            # Once it was taken in, what lies there is another's.
            if _is_at(handle, path) and not path.stat().st_size:
                path.unlink(missing_ok=True)
                path.with_name(f"{name}.tag").unlink(missing_ok=True)
            os.close(handle)

    def take_in(self, file: Path, sha256: str = "", *, is_checked: bool = False) -> tuple[Path, str]:
        """Moves it into the cache; returns where it lies and its digest. Raises WrongDigest if another was named.

        `is_checked`: its bytes were seen to be those of `sha256` as they came.
        """
        found = sha256 if is_checked else sha256_file(file)
        if sha256 and found != sha256:
            raise WrongDigest(sha256, found)
        target = self.path(found)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.chmod(0o444)
        file.replace(target)
        _write(self._mark(found), _signature(target))
        return target, found

    def _mark(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / f"{sha256}.seen"


def _own(path: Path, stopped: Callable[[], bool]) -> int:
    """A handle that locks the very file that lies there now; who held it before may have moved it away."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(handle, stopped)
            if _is_at(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _lock(handle: int, stopped: Callable[[], bool]) -> None:
    """Not left to the kernel: a thread that waits there cannot be called off."""
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _transfer.go_on_unless(stopped)
            time.sleep(_LOOK_SECONDS)


def _signature(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _touch(mark: Path) -> None:
    try:
        os.utime(mark)
    except FileNotFoundError:
        pass


def _write(path: Path, text: str) -> None:
    # A name of its own each time: threads of one process write the marks of equal files at once.
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(beside).replace(path)
