"""Where the stack's parts are kept between runs: one folder a part and pin, under the user's cache folder.

A part is made beside its place under a lock and renamed when it is whole, so nobody ever meets half of one: whatever an
interrupted download or build left behind is swept away by the next attempt.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PINS = Path(__file__).parent / "versions.toml"


def root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trainyard"


def pin(name: str) -> str:
    """What `versions.toml` asks for under that name; parts made from a requirements file are pinned by its content."""
    found = tomllib.loads(PINS.read_text()).get(name)
    if found is not None:
        return str(found)
    return (PINS.parents[2] / "requirements" / f"{name}.txt").read_text()


def folder(name: str) -> Path:
    return root() / f"{name}-{hashlib.sha256(pin(name).encode()).hexdigest()[:12]}"


def part(name: str) -> Path:
    """The folder of a part that is there."""
    found = folder(name)
    if not (found / ".complete").exists():
        raise FileNotFoundError(f"{found} is missing: run `make setup`")
    return found


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time; the kernel lets go when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(name: str, make: Callable[[Path], None]) -> Path:
    """The part, made by `make(folder)` if it is not there. Two at once: the second waits and finds it."""
    target = folder(name)
    with locked(root() / f"{target.name}.lock"):
        if (target / ".complete").exists():
            return target
        for left_over in (target, unfinished := root() / f"{target.name}.unfinished"):
            shutil.rmtree(left_over, ignore_errors=True)
        unfinished.mkdir(parents=True)
        make(unfinished)
        (unfinished / ".complete").touch()
        unfinished.rename(target)
    return target
