"""The folders through which servers hand over sampled calls: `<home>/samples/<endpoint>-<deployment>/`, each with a file that says how many
are wanted, and the files of samples that its servers write. A script of a user's may write there what it likes: whose a folder is and what
was served is known here, and never read back."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.serving.adapters.whole_file import replace_whole
from services.serving.domain.endpoint import Deployment, Endpoint, wanted
from services.serving.sampling.sampler import ABOUT

log = structlog.get_logger()
_LATE_SECONDS = 60.0  # a server that drains still writes
_NAME = re.compile(r"(?P<endpoint>.+)-(?P<deployment>[1-9][0-9]{0,19})")


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
    """One thread keeps, another one may read."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._kept: dict[tuple[str, int], str] = {}
        self._highest: dict[str, int] = {}
        self._served: dict[tuple[str, int], tuple[str, int]] = {}
        self._refused: set[tuple[str, int]] = set()

    def know(self, endpoint: Endpoint) -> None:
        """Its deployments, earlier ones among them, may have left samples."""
        second = [endpoint.second.deployment] if endpoint.second is not None else []
        serving = [endpoint.serving] if endpoint.serving is not None else []
        for it in (*endpoint.lived, *serving, *second, endpoint.latest):
            self._served[endpoint.name, it.number] = it.model, it.version
        self._highest[endpoint.name] = max(endpoint.highest, self._highest.get(endpoint.name, 0))

    def keep(self, endpoint: Endpoint) -> None:
        """From here on its servers sample as its settings say. Written where it would change; replaced whole. Where it cannot be written,
        that is said once, and tried again the next time."""
        self.know(endpoint)
        text = json.dumps({"rate": endpoint.settings.sample_rate})
        for deployment in wanted(endpoint):
            key = endpoint.name, deployment.number
            try:
                self._write(endpoint.name, deployment, text)
                self._refused.discard(key)
            except OSError as error:
                if key not in self._refused:
                    log.warning("a rate of samples cannot be set", endpoint=key[0], deployment=key[1], reason=str(error))
                self._refused.add(key)

    def folders(self) -> list[SpoolFolder]:
        """Those of known deployments that are there; a deployment of which nothing but its number is known has no model. Raises OSError."""
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self._home / "samples") as entries:
            for entry in entries:
                folder = self._folder(entry.name)
                if folder is not None and entry.is_dir(follow_symlinks=False):
                    found.append(folder)
        return sorted(found, key=lambda it: it.path)

    def forget_all_but(self, kept: Collection[tuple[str, int]]) -> None:
        """Folders of deployments that nobody wants any more, once they are empty and nobody wrote there for a while. Raises OSError."""
        for folder in self.folders():
            # One that cannot be read keeps no other one.
            with contextlib.suppress(OSError):
                self._forget(folder, kept)

    def _forget(self, folder: SpoolFolder, kept: Collection[tuple[str, int]]) -> None:
        if (folder.endpoint, folder.deployment) in kept or any(it.name != ABOUT for it in folder.path.iterdir()):
            return
        if time.time() - folder.path.stat().st_mtime > _LATE_SECONDS:
            shutil.rmtree(folder.path, ignore_errors=True)
            self._kept.pop((folder.endpoint, folder.deployment), None)

    def _folder(self, name: str) -> SpoolFolder | None:
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        endpoint, number = match["endpoint"], int(match["deployment"])
        if number > self._highest.get(endpoint, 0):
            return None
        return SpoolFolder(spool_folder(self._home, endpoint, number), endpoint, number, *self._served.get((endpoint, number), ("", 0)))

    def _write(self, endpoint: str, deployment: Deployment, text: str) -> None:
        path = spool_folder(self._home, endpoint, deployment.number) / ABOUT
        if self._kept.get((endpoint, deployment.number)) == text and path.exists():
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_whole(path, text)
        self._kept[endpoint, deployment.number] = text
