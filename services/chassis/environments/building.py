"""Building and finding: one folder an id, whole once `.complete` lies in it, and one builder at a time on this machine."""

from __future__ import annotations

import fcntl
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from services.chassis.environments import conda, uv
from services.chassis.environments.definition import Definition
from services.chassis.environments.errors import BuildCanceled, BuildError
from services.chassis.environments.horovod import Work, folder_with_wheel, recipe_of
from services.chassis.environments.steps import Steps
from trainyard._environment_cache import COMPLETE, Hold, folder_of, hold, lock_of
from trainyard._objects import Objects

_LOCK_SECONDS = 0.1


@dataclass(frozen=True)
class Environment:
    id: str
    root: Path
    python: Path
    was_cached: bool


def find(definition: Definition, cache: Path) -> Environment | None:
    """The environment if a whole one is there; one look at the file system."""
    root = folder_of(cache, definition.id)
    if not (root / COMPLETE).exists():
        return None
    return Environment(definition.id, root, root / "bin" / "python", was_cached=True)


def build(
    definition: Definition,
    cache: Path,
    say: Callable[[str], None],
    *,
    deadline_seconds: float = 1800,
    cancelled: Callable[[], bool] = lambda: False,
    objects: Objects | None = None,
) -> Environment:
    """The environment, found or built. `say` gets every line of uv's output and a few of ours. Blocking; raises BuildError.

    Packages come from the index that the caller's environment names, by way of the cache in `<cache>/uv`, hard-linked. `objects`: where
    nodes share a wheel that one of them has compiled.
    """
    deadline = time.monotonic() + deadline_seconds
    while (found := find(definition, cache)) is None:
        with _only_builder(definition, cache, say, deadline, cancelled) as lock:
            if lock is not None and find(definition, cache) is None:
                return _make(definition, cache, Work(say, deadline, cancelled), lock, objects)
    say(f"Environment {definition.id} is there: {definition}.")
    return found


def acquire(
    definition: Definition,
    cache: Path,
    say: Callable[[str], None],
    *,
    deadline_seconds: float = 1800,
    cancelled: Callable[[], bool] = lambda: False,
    objects: Objects | None = None,
) -> tuple[Environment, Hold]:
    """As `build`, and in use from now on: nobody removes it before the hold is released. Raises BuildError."""
    while True:
        found = build(definition, cache, say, deadline_seconds=deadline_seconds, cancelled=cancelled, objects=objects)
        # Between the two lines it may have been pruned; then it is built again.
        held = hold(cache, definition.id)
        if held is not None:
            return found, held


def _make(definition: Definition, cache: Path, work: Work, lock: int, objects: Objects | None) -> Environment:
    """In its final place, because some packages write their own path into what they install; the mark comes last."""
    began, steps = time.monotonic(), Steps()
    root, say = folder_of(cache, definition.id), work.say
    say(f"Building environment {definition.id}, which is not in the cache: {definition}, for Python {definition.python}.")
    shutil.rmtree(root, ignore_errors=True)

    def hear(line: str) -> None:
        steps.hear(line)
        say(line)

    def run(step: str, argv: Sequence[str]) -> None:
        steps.begin(step)
        uv.run(argv, folder=root.parent, say=hear, deadline=work.deadline, cancelled=work.cancelled, held=lock)

    try:
        if definition.conda:
            run("installing conda packages", conda.command(root, definition.conda, definition.channels))
        else:
            base = sys._base_executable  # type: ignore[attr-defined]
            run("making the virtual environment", uv.command(cache / "uv", "venv", "--python", base, "--no-project", "--clear", str(root)))
        if definition.requirements:
            links: tuple[str, ...] = ()
            if recipe := recipe_of(definition.requirements):
                steps.begin("getting Horovod's wheel")
                links = ("--find-links", str(folder_with_wheel(recipe, cache, objects, replace(work, say=hear))))
            wanted = ("pip", "install", "--python", str(root / "bin" / "python"), "--compile-bytecode", *links, *_files(definition, root))
            run("resolving", uv.command(cache / "uv", *wanted))
        (root / COMPLETE).touch()
    except BuildError as error:
        shutil.rmtree(root, ignore_errors=True)
        if error.code == "EnvironmentBuildTimedOut":
            raise BuildError(error.code, f"{error.message} Its steps: {steps.story()}.", last_lines=error.last_lines) from error
        raise
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
) -> Iterator[int | None]:
    """The lock's descriptor, which uv inherits: a uv that outlives a killed builder still holds the lock, so nobody builds beside it.

    None where another has built it meanwhile: whoever uses it shares the lock, for as long as a run may last.
    """
    path = lock_of(cache, definition.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as lock:
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if find(definition, cache) is not None:
                    yield None
                    return
                if not told:
                    say(f"Another process builds environment {definition.id}; waiting for it.")
                    told = True
            if cancelled():
                raise BuildCanceled("Canceled", "The build of the environment was canceled.")
            if time.monotonic() >= deadline:
                raise BuildError("EnvironmentBuildTimedOut", "Another process was still building this environment when the time was up.")
            time.sleep(_LOCK_SECONDS)
        yield lock.fileno()
