"""The node's cache of file contents: one file a digest, taken in whole or not at all, checked again when it looks touched."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainyard._paths import SHA256, sha256_file


class WrongDigest(Exception):
    """The bytes are not those that were named."""

    def __init__(self, wanted: str, found: str) -> None:
        super().__init__(f"SHA-256 is {found}, not {wanted}")
        self.wanted = wanted
        self.found = found


class Blobs:
    """Safe to share by several processes: every file appears by rename."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

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
        if not mark.exists() or mark.read_text() != seen:
            if sha256_file(path) != sha256:
                path.unlink(missing_ok=True)
                return None
            _write(mark, seen)
        return path

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """An empty file to fill; it is gone afterwards unless it was taken in."""
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._folder, prefix=".incoming-")
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def take_in(self, file: Path, sha256: str = "") -> tuple[Path, str]:
        """Moves it into the cache; returns where it lies and its digest. Raises WrongDigest if another was named."""
        found = sha256_file(file)
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


def _signature(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _write(path: Path, text: str) -> None:
    # A name of its own each time: threads of one process write the marks of equal files at once.
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(beside).replace(path)
