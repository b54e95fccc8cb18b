"""Where the stack's parts are kept between runs. `.complete` is written last: a folder without it is half-finished and is not used."""

import os
from pathlib import Path


def root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trainyard"


def part(name: str) -> Path:
    folder = root() / name
    if not (folder / ".complete").exists():
        raise FileNotFoundError(f"{folder} is missing or half-finished: run `make setup`")
    return folder
