"""Dataset files by URL: fetched once a node by a child process that holds no secrets, checked, cached by digest."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from services.trainer_agent.adapters.blobs import Blobs, WrongDigest
from services.trainer_agent.adapters.environment import FOR_DOWNLOADS, only
from services.trainer_agent.ports import PreparationFailed
from trainyard.dataset.v1.dataset_pb2 import SourceFile

REPO = Path(__file__).resolve().parents[3]
_LOOK_SECONDS = 0.2


class Data:
    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def place(self, files: Sequence[tuple[Any, Path]], *, writable: bool, stopped: Callable[[], bool] = lambda: False) -> list[Any]:
        """`writable` gives copies; else hard links to the node's one file, read-only."""
        there = {source.url: blob for source, _ in files if source.sha256 and (blob := self._blobs.get(source.sha256)) is not None}
        there |= self._fetch([source for source, _ in files if source.url not in there], stopped)
        for source, target in files:
            target.parent.mkdir(parents=True, exist_ok=True)
            if writable:
                shutil.copyfile(there[source.url], target)
            else:
                _link(there[source.url], target)
        return [_measured(source, there[source.url]) for source, _ in files]

    def _fetch(self, sources: Sequence[Any], stopped: Callable[[], bool]) -> dict[str, Path]:
        if not sources:
            return {}
        # A URL may stand for several paths.
        by_url = {source.url: source for source in sources}
        with ExitStack() as stack:
            incoming = {url: stack.enter_context(self._blobs.incoming()) for url in by_url}
            _download(incoming, stopped)
            return {url: self._take_in(source, incoming[url]) for url, source in by_url.items()}

    def _take_in(self, source: Any, file: Path) -> Path:
        try:
            return self._blobs.take_in(file, source.sha256)[0]
        except WrongDigest as error:
            what = (
                f"{source.url} has changed since the dataset was registered: its SHA-256 was {error.wanted}, now it is {error.found}. "
                "Register a new version."
            )
            raise PreparationFailed("DatasetChanged", what, source.url) from error


def _measured(source: Any, blob: Path) -> SourceFile:
    return SourceFile(url=source.url, path=source.path, size_bytes=blob.stat().st_size, etag=source.etag, sha256=blob.name)


def _download(targets: Mapping[str, Path], stopped: Callable[[], bool]) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "services.trainer_agent.fetch"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={**only(os.environ, FOR_DOWNLOADS), "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "sdk")])},
    ) as process:
        request: str | None = json.dumps({url: str(target) for url, target in targets.items()})
        while True:
            try:
                output, errors = process.communicate(request, timeout=_LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                request = None
                if stopped():
                    process.kill()
    if process.returncode:
        try:
            told = json.loads(output)
            url, what = str(told["url"]), str(told["error"])
        except (ValueError, KeyError, TypeError):
            url, what = next(iter(targets)), f"the download process ended with {process.returncode}: {errors.strip()[-500:]}"
        raise PreparationFailed("SourceUnreachable", f"{url} cannot be read: {what}", url)


def _link(blob: Path, target: Path) -> None:
    try:
        os.link(blob, target)
    except OSError:
        # Another file system, or one without hard links.
        shutil.copyfile(blob, target)
        target.chmod(0o444)
