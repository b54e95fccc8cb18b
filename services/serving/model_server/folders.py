"""What lies in the folders of models: a folder for each version, named by its number."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from services.serving.model_server.versions import ModelConfig

Fingerprint = tuple[tuple[str, int, int], ...]
Finder = Callable[[ModelConfig], dict[int, tuple[str, Fingerprint]]]
"""Path and fingerprint by version. Raises OSError."""
_NUMBER = re.compile(r"[0-9]{1,18}")


def found_versions(config: ModelConfig) -> dict[int, tuple[str, Fingerprint]]:
    """Path and fingerprint by version. Raises OSError where the folder cannot be read."""
    if config.fixed:
        return {version: (path, ()) for version, path in config.fixed.items()}
    with os.scandir(config.base_path) as entries:
        folders = [entry.path for entry in entries if _NUMBER.fullmatch(entry.name) and entry.is_dir()]
    return {int(os.path.basename(path)): (path, fingerprint(path)) for path in sorted(folders)}


def fingerprint(path: str) -> Fingerprint:
    """Changes while somebody still writes: names, sizes and times of all files."""
    found = []
    for file in sorted(Path(path).rglob("*")):
        try:
            status = file.stat()
        except OSError:
            continue  # it went while we looked; the next look is different then
        found.append((str(file), status.st_size, status.st_mtime_ns))
    return tuple(found)
