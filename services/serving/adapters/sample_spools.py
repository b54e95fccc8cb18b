"""The folders through which servers hand over sampled calls: `<home>/samples/<endpoint>-<deployment>/`, each with a file that says how many
are wanted and what is served, and the files of samples that its servers write."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from services.serving.domain.asking import name_fault
from services.serving.domain.endpoint import Deployment, Endpoint, wanted
from services.serving.sampling.sampler import ABOUT

_LATE_SECONDS = 60.0  # a server that drains still writes
_LONGEST_MODEL = 255


def spool_folder(home: Path, endpoint: str, deployment: int) -> Path:
    """Of the servers of one deployment."""
    return home / "samples" / f"{endpoint}-{deployment}"


@dataclass(frozen=True)
class SpoolFolder:
    path: Path
    endpoint: str
    deployment: int
    model: str
    version: int


class SampleSpools:
    def __init__(self, home: Path) -> None:
        self._home = home
        self._kept: dict[tuple[str, int], str] = {}

    def keep(self, endpoint: Endpoint) -> None:
        """From here on its servers sample as its settings say. Written where it would change; replaced whole."""
        for deployment in wanted(endpoint):
            text = json.dumps(
                {"rate": endpoint.settings.sample_rate, "model": deployment.model, "version": deployment.version}, sort_keys=True
            )
            self._write(endpoint.name, deployment, text)

    def folders(self) -> Iterator[SpoolFolder]:
        """Those that are there; what is none of ours is passed over."""
        root = self._home / "samples"
        for path in sorted(root.iterdir()) if root.is_dir() else ():
            endpoint, _, number = path.name.rpartition("-")
            if path.is_symlink() or not path.is_dir() or name_fault(endpoint) or not (number.isascii() and number.isdigit()):
                continue
            yield SpoolFolder(path, endpoint, int(number), *_served(path))

    def forget_all_but(self, kept: Collection[tuple[str, int]]) -> None:
        """Folders of deployments that nobody wants any more, once they are empty and nobody wrote there for a while."""
        for folder in list(self.folders()):
            if (folder.endpoint, folder.deployment) in kept or any(it.name != ABOUT for it in folder.path.iterdir()):
                continue
            if time.time() - folder.path.stat().st_mtime > _LATE_SECONDS:
                shutil.rmtree(folder.path, ignore_errors=True)
                self._kept.pop((folder.endpoint, folder.deployment), None)

    def _write(self, endpoint: str, deployment: Deployment, text: str) -> None:
        path = spool_folder(self._home, endpoint, deployment.number) / ABOUT
        if self._kept.get((endpoint, deployment.number)) == text and path.exists():
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(beside).replace(path)
        self._kept[endpoint, deployment.number] = text


def _served(folder: Path) -> tuple[str, int]:
    """Model and version; neither where the file does not say: a script of a user's may have written there."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads((folder / ABOUT).read_text())
        model, version = told["model"], told["version"]
        if isinstance(model, str) and len(model) <= _LONGEST_MODEL and type(version) is int and 0 <= version < 1 << 63:
            model.encode()
            return model, version
    return "", 0
