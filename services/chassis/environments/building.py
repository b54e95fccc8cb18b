"""Building and finding: one folder an id, whole once `.complete` lies in it, and one builder at a time on this machine."""

from __future__ import annotations

import fcntl
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.chassis.environments import uv
from services.chassis.environments.definition import Definition
from services.chassis.environments.errors import BuildCanceled, BuildError

_COMPLETE = ".complete"
_LOCK_SECONDS = 0.1


@dataclass(frozen=True)
class Environment:
    id: str
    root: Path
    python: Path
    was_cached: bool


def find(definition: Definition, cache: Path) -> Environment | None:
    """The environment if a whole one is there; one look at the file system."""
    root = _folder(definition, cache)
    if not (root / _COMPLETE).exists():
        return None
    return Environment(definition.id, root, root / "bin" / "python", was_cached=True)


def build(
    definition: Definition,
    cache: Path,
    say: Callable[[str], None],
    *,
    deadline_seconds: float = 1800,
    cancelled: Callable[[], bool] = lambda: False,
) -> Environment:
    """The environment, found or built. `say` gets every line of uv's output and a few of ours. Blocking; raises BuildError.

    Packages come from the index that the caller's environment names, by way of the cache in `<cache>/uv`, hard-linked.
    """
    deadline = time.monotonic() + deadline_seconds
    found = find(definition, cache)
    if found is None:
        with _only_builder(definition, cache, say, deadline, cancelled) as lock:
            found = find(definition, cache)
            if found is None:
                return _make(definition, cache, say, deadline, cancelled, lock)
    say(f"Environment {definition.id} is there: {definition}.")
    return found


def _folder(definition: Definition, cache: Path) -> Path:
    return cache / "environments" / definition.id


def _make(
    definition: Definition, cache: Path, say: Callable[[str], None], deadline: float, cancelled: Callable[[], bool], lock: int
) -> Environment:
    """In its final place, because some packages write their own path into what they install; the mark comes last."""
    began = time.monotonic()
    root = _folder(definition, cache)
    say(f"Building environment {definition.id}, which is not in the cache: {definition}, for Python {definition.python}.")
    shutil.rmtree(root, ignore_errors=True)

    def run(*arguments: str) -> None:
        uv.run(arguments, cache=cache / "uv", folder=root.parent, say=say, deadline=deadline, cancelled=cancelled, held=lock)

    try:
        run("venv", "--python", sys._base_executable, "--no-project", "--clear", str(root))  # type: ignore[attr-defined]
        if definition.requirements:
            run("pip", "install", "--python", str(root / "bin" / "python"), "--compile-bytecode", *_files(definition, root))
        (root / _COMPLETE).touch()
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    say(f"Built environment {definition.id} in {time.monotonic() - began:.1f} s.")
    return Environment(definition.id, root, root / "bin" / "python", was_cached=False)


def _files(definition: Definition, root: Path) -> list[str]:
    """The definition as files that uv reads and a person may look at later."""
    options = []
    for option, lines in (("requirements", definition.requirements), ("constraints", definition.constraints)):
        if lines:
            path = root / f"{option}.txt"
            path.write_text("".join(f"{line}\n" for line in lines))
            options += [f"--{option}", str(path)]
    return options


@contextmanager
def _only_builder(
    definition: Definition, cache: Path, say: Callable[[str], None], deadline: float, cancelled: Callable[[], bool]
) -> Iterator[int]:
    """The lock's descriptor, which uv inherits: a uv that outlives a killed builder still holds the lock, so nobody builds beside it."""
    folder = _folder(definition, cache)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("ab") as lock:
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    say(f"Another process builds environment {definition.id}; waiting for it.")
                    told = True
            if cancelled():
                raise BuildCanceled("Canceled", "The build of the environment was canceled.")
            if time.monotonic() >= deadline:
                raise BuildError("EnvironmentBuildTimedOut", "Another process was still building this environment when the time was up.")
            time.sleep(_LOCK_SECONDS)
        yield lock.fileno()
