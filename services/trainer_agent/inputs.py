"""A run's inputs on this node: which files, where they lie, and what the script is told of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.trainer_agent.layout import Folders
from services.trainer_agent.ports import DataCache, PreparationFailed
from trainyard import _steps
from trainyard._paths import below, safe_relpath
from trainyard.job.v1.spec_pb2 import DatasetInput


@dataclass(frozen=True)
class Placed:
    """`path` is what the script gets: the folder, its one file, or for a direct input the JSON file with its definition."""

    path: Path
    files: Sequence[Any]
    is_as_listed: bool = False
    """They are what the object lists that the input names, after its steps."""


class Inputs:
    def __init__(self, cache: DataCache, folders: Folders, say: Callable[[str], None]) -> None:
        self._cache = cache
        self._folders = folders
        self._say = say

    def place(self, item: Any, stopped: Callable[[], bool] = lambda: False) -> Placed:
        """Raises PreparationFailed, UserErrorException for a path that leads elsewhere, OSError; something soon after `stopped()`."""
        files = _steps.apply(self._cache.files_of(item, stopped), item.steps)
        if item.mode == DatasetInput.MODE_DIRECT:
            return Placed(self._define(item, files), ())
        if not files:
            what = f"The input {item.name!r} has no file left after {', '.join(map(_steps.told, item.steps))}."
            raise PreparationFailed("UserError", what, item.name)
        root = self._root(item)
        root.mkdir(parents=True, exist_ok=True)
        writable = item.mode == DatasetInput.MODE_DOWNLOAD
        lent = [(file, safe_relpath(file.path)) for file in files]
        if item.mode == DatasetInput.MODE_MOUNT and self._cache.lend(lent, root, stopped):
            self._say(
                f"data: the files of {item.name} are fetched as they are opened: together they are more than the node's cache may hold"
            )
            return self._placed(item, root, files, ())
        targets = [(file, below(root, file.path)) for file in files]
        placed = self._cache.place(targets, writable=writable, say=self._say, stopped=stopped)
        return self._placed(item, root, files, placed)

    def _placed(self, item: Any, root: Path, files: Sequence[Any], measured: Sequence[Any]) -> Placed:
        seen = self._linked(item, root)
        path = below(seen, files[0].path) if len(files) == 1 and not item.always_folder else seen
        return Placed(path, measured, bool(item.manifest_key) and list(measured) == list(files))

    def _root(self, item: Any) -> Path:
        if item.path_on_compute and not item.path_on_compute.startswith("/"):
            relative: Path = below(self._folders.code, item.path_on_compute.removeprefix("./").rstrip("/"))
            return relative
        root: Path = below(self._folders.data, item.name)
        return root

    def _linked(self, item: Any, root: Path) -> Path:
        """An absolute path on the node becomes a link to the data; the attempt's end takes it away."""
        if not item.path_on_compute.startswith("/"):
            return root
        wanted = Path(item.path_on_compute)
        if wanted.is_symlink() and not wanted.exists() and self._folders.root.parents[1] in Path(os.readlink(wanted)).parents:
            # A killed agent's.
            wanted.unlink()
        try:
            wanted.parent.mkdir(parents=True, exist_ok=True)
            self._folders.remember_link(wanted)
            os.symlink(root, wanted)
        except OSError as error:
            what = f"The input {item.name!r} cannot be put at {wanted} on the node: {error.strerror}. Choose another path_on_compute."
            raise PreparationFailed("UserError", what, str(wanted)) from error
        return wanted

    def _define(self, item: Any, files: Sequence[Any]) -> Path:
        target = below(self._folders.data, f"{item.name}.json")
        listed = [{"url": file.url, "path": file.path, "size": file.size_bytes, "sha256": file.sha256} for file in files]
        target.write_text(json.dumps({"name": item.dataset, "version": item.version, "files": listed}, indent=1))
        return target
