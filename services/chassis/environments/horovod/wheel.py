"""Horovod's wheel: in the node's cache, else from the object store, else compiled here, once, and put there for all nodes."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.chassis.environments.errors import BuildCanceled, BuildError
from services.chassis.environments.horovod.compiling import compile_wheel, operations
from services.chassis.environments.horovod.recipe import VERSION, Recipe
from trainyard._errors import TrainyardException
from trainyard._objects import Objects
from trainyard._paths import SHA256, sha256_file

_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Work:
    """Whom a build tells, and what ends it. `deadline` is on time.monotonic()'s clock."""

    say: Callable[[str], None]
    deadline: float
    cancelled: Callable[[], bool]

    def go_on(self, what: str) -> None:
        """Raises BuildError."""
        if self.cancelled():
            raise BuildCanceled("Canceled", "The build of the environment was canceled.")
        if time.monotonic() >= self.deadline:
            raise BuildError("EnvironmentBuildTimedOut", f"The time was up {what}.")


def wheel_key(recipe: Recipe) -> str:
    """64 hex digits: the recipe, and what the machine makes of it."""
    here = [recipe.fingerprint, f"{sys.version_info.major}.{sys.version_info.minor}", sysconfig.get_platform(), operations()]
    return hashlib.sha256("\n".join(here).encode()).hexdigest()


def folder_with_wheel(recipe: Recipe, cache: Path, objects: Objects | None, work: Work) -> Path:
    """A folder that holds the wheel, for uv's --find-links. Blocking; raises BuildError. Without `objects` it serves this cache alone."""
    key = wheel_key(recipe)
    folder = cache / "wheels" / key
    if _wheel_in(folder) is None:
        with _only_one(folder.with_suffix(".lock"), work) as lock:
            if _wheel_in(folder) is None and not _fetch(key, folder, objects, work.say):
                made = _make(recipe, folder, lock, work)
                _share(key, made, objects, work.say)
    return folder


def _wheel_in(folder: Path) -> Path | None:
    return next(folder.glob("*.whl"), None)


def _make(recipe: Recipe, folder: Path, lock: int, work: Work) -> Path:
    work.say(
        f"Compiling Horovod {VERSION} for TensorFlow {recipe.tensorflow}, which is done once for all nodes and takes some minutes ({operations()})."
    )
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    # Whoever holds the lock is alone here: what lies about was left by a builder that was killed.
    for left in folder.parent.glob(f"{folder.name[:12]}-*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name[:12]}-", dir=folder.parent) as scratch:
        built = compile_wheel(recipe, Path(scratch), folder.parents[1], work.say, work.deadline, work.cancelled, lock)
        target = folder / built.name
        built.replace(target)
    work.say(f"Compiled Horovod in {time.monotonic() - began:.0f} s.")
    return target


def _fetch(key: str, folder: Path, objects: Objects | None, say: Callable[[str], None]) -> bool:
    """Was a whole one there? A store that is away is no reason to do without: then it is compiled."""
    if objects is None:
        return False
    try:
        for name in objects.list(_prefix(key)):
            *_, sha256, file = name.split("/")
            if SHA256.match(sha256) and file.endswith(".whl"):
                return _take(objects, name, sha256, folder / file, say)
    except TrainyardException as error:
        say(f"The object store cannot be asked for Horovod's wheel: {error.message}")
    return False


def _take(objects: Objects, key: str, sha256: str, target: Path, say: Callable[[str], None]) -> bool:
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_suffix(".part")
    objects.get_file(key, beside)
    if sha256_file(beside) != sha256:
        beside.unlink()
        say(f"{key} in the object store is not what its name says; Horovod is compiled anew.")
        return False
    beside.replace(target)
    say(f"Horovod's wheel came from the object store: {target.name}.")
    return True


def _share(key: str, wheel: Path, objects: Objects | None, say: Callable[[str], None]) -> None:
    if objects is None:
        return
    try:
        objects.put_file(f"{_prefix(key)}{sha256_file(wheel)}/{wheel.name}", wheel)
    except TrainyardException as error:
        say(f"Horovod's wheel stays on this node alone, for the object store does not take it: {error.message}")


def _prefix(key: str) -> str:
    return f"wheels/{key}/"


@contextmanager
def _only_one(path: Path, work: Work) -> Iterator[int]:
    """The lock's descriptor, which the compiler inherits: one that outlives a killed builder still keeps others out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as lock:
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    work.say("Another process compiles Horovod on this node; waiting for it.")
                    told = True
            work.go_on("while another process still compiled Horovod")
            time.sleep(_LOOK_SECONDS)
        yield lock.fileno()


__all__ = ["Work", "folder_with_wheel", "wheel_key"]
