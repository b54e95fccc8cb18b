"""Files to and from the object store: hashed as they pass, checked, resumed when broken off, many at once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from trainyard._errors import PlatformUnavailableException, TrainyardException, UserErrorException

if TYPE_CHECKING:
    from trainyard._objects import Objects

T = TypeVar("T")
R = TypeVar("R")
AT_ONCE = 8
_WHOLE_BYTES = 8 << 20
_PART_BYTES = 16 << 20
_ATTEMPTS_WITHOUT_PROGRESS = 4
_BLOCK = 1 << 20

Told = Callable[[int], None]
"""Called with the number of bytes that have passed since the last call, from any thread."""


class ChangedWhileSent(UserErrorException):
    """A file was written to while it was read."""

    code = "FileChanged"


class Stopped(TrainyardException):
    """Whoever wanted the transfer does not want it any more."""

    code = "Stopped"


class WrongBytes(TrainyardException):
    """What came is not what its digest names."""

    code = "WrongDigest"


@dataclass(frozen=True)
class Sent:
    """Of the bytes that were sent."""

    size: int
    sha256: str


def _nobody(_: int) -> None:
    """Nobody listens."""


def _never() -> bool:
    return False


def go_on_unless(stopped: Callable[[], bool]) -> None:
    """Raises Stopped."""
    if stopped():
        raise Stopped("The transfer was stopped.")


def send(objects: Objects, key: str, path: Path, *, sha256: str = "", told: Told = _nobody) -> Sent:
    """The digest is that of the bytes as sent: a file that is written to meanwhile cannot lie under another's name.

    Raises ChangedWhileSent where `sha256` names other bytes; then nothing lies under the key.
    """
    with path.open("rb") as file:
        head = file.read(_WHOLE_BYTES + 1)
        if len(head) <= _WHOLE_BYTES:
            found = hashlib.sha256(head).hexdigest()
            _demand(path, sha256, found)
            objects.put_bytes(key, head)
            told(len(head))
            return Sent(len(head), found)
        file.seek(0)
        passing = _Passing(file, path, sha256, told)
        objects.put_parts(key, passing.parts())
    size = objects.size(key)
    if size != passing.size:
        raise WrongBytes(
            f"{key} has {size} bytes in the object store, not the {passing.size} that were sent.", target=key, hint="try again"
        )
    return Sent(size, passing.digest.hexdigest())


class _Passing:
    """A file's parts as they are read, and what they come to."""

    def __init__(self, file: BinaryIO, path: Path, sha256: str, told: Told) -> None:
        self._file = file
        self._path = path
        self._sha256 = sha256
        self._told = told
        self.digest = hashlib.sha256()
        self.size = 0

    def parts(self) -> Iterator[bytes]:
        while data := self._file.read(_PART_BYTES):
            self.digest.update(data)
            self.size += len(data)
            yield data
            self._told(len(data))
        _demand(self._path, self._sha256, self.digest.hexdigest())


def _demand(path: Path, wanted: str, found: str) -> None:
    if wanted and wanted != found:
        raise ChangedWhileSent(f"{path} changed while it was being sent.", target=str(path), hint="send it again once nobody writes to it")


def receive(objects: Objects, key: str, target: Path, *, size: int, sha256: str, told: Told = _nobody) -> None:
    """The object at `target`, whole and as its digest says, or an error; its folder is made.

    What came before a break is kept beside it and not fetched again. Raises ObjectMissing, WrongBytes, PlatformUnavailableException.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.parent / f".{sha256[:16]}-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]}.part"
    try:
        fill(objects, key, part, size=size, sha256=sha256, told=told)
    except WrongBytes:
        part.unlink()
        raise
    part.replace(target)


def fill(
    objects: Objects, key: str, part: Path, *, size: int, sha256: str, told: Told = _nobody, stopped: Callable[[], bool] = _never
) -> None:
    """As `receive`, into the very file `part`, of which a beginning may be there. Raises Stopped soon after `stopped()`; what came stays."""
    resumed = part.exists() and part.stat().st_size > 0
    if _fetch(objects, key, part, size, told, stopped) == sha256:
        return
    # Emptied and not removed: who holds a lock on the file keeps it.
    os.truncate(part, 0)
    # The beginning that was left behind may be the fault; a second time it is the store's.
    if resumed and _fetch(objects, key, part, size, told, stopped) == sha256:
        return
    os.truncate(part, 0)
    raise WrongBytes(f"{key} in the object store is not what was uploaded: its SHA-256 is not {sha256}.", target=key)


def _fetch(objects: Objects, key: str, part: Path, size: int, told: Told, stopped: Callable[[], bool]) -> str:
    """Reads what is missing, again and again while the store breaks off; the digest of the whole."""
    digest = hashlib.sha256()
    with part.open("ab+") as file:
        file.seek(0)
        while block := file.read(_BLOCK):
            go_on_unless(stopped)
            digest.update(block)
        have = file.tell()
        told(have)
        fruitless = 0
        while have < size:
            before = have
            try:
                for block in objects.read(key, have):
                    go_on_unless(stopped)
                    file.write(block)
                    digest.update(block)
                    have += len(block)
                    told(len(block))
                break
            except PlatformUnavailableException:
                fruitless = 0 if have > before else fruitless + 1
                if fruitless >= _ATTEMPTS_WITHOUT_PROGRESS or stopped():
                    # Whoever tries again is told of them once more.
                    told(-have)
                    raise
    return digest.hexdigest()


def side_by_side(work: Callable[[T], R], items: Sequence[T], at_once: int = AT_ONCE) -> list[R]:
    """`work` of each, in order; the first error ends those that have not begun."""
    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise
