"""Dataset files by URL: fetched once a node by a child process that holds no secrets, checked, cached by digest."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from services.trainer_agent.adapters.blobs import Blobs, WrongDigest
from services.trainer_agent.adapters.environment import FOR_DOWNLOADS, only
from services.trainer_agent.ports import PreparationFailed
from trainyard.dataset.v1.dataset_pb2 import SourceFile

REPO = Path(__file__).resolve().parents[3]


class Data:
    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def put(self, source: Any, target: Path, *, writable: bool) -> Any:
        """`writable` gives a copy; else a hard link to the node's one file, read-only."""
        blob = self._blobs.get(source.sha256) if source.sha256 else None
        found = source.sha256
        if blob is None:
            blob, found = self._fetch(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if writable:
            shutil.copyfile(blob, target)
        else:
            _link(blob, target)
        return SourceFile(url=source.url, path=source.path, size_bytes=blob.stat().st_size, etag=source.etag, sha256=found)

    def _fetch(self, source: Any) -> tuple[Path, str]:
        with self._blobs.incoming() as incoming:
            _download(source.url, incoming)
            try:
                return self._blobs.take_in(incoming, source.sha256)
            except WrongDigest as error:
                what = (
                    f"{source.url} has changed since the dataset was registered: its SHA-256 was {error.wanted}, now it is {error.found}. "
                    "Register a new version."
                )
                raise PreparationFailed("DatasetChanged", what, source.url) from error


def _download(url: str, target: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "services.trainer_agent.fetch", str(target)],
        input=url,
        capture_output=True,
        text=True,
        cwd="/",
        env={**only(os.environ, FOR_DOWNLOADS), "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "sdk")])},
        check=False,
    )
    if result.returncode:
        try:
            what = str(json.loads(result.stdout)["error"])
        except (ValueError, KeyError, TypeError):
            what = f"the download process ended with {result.returncode}: {result.stderr.strip()[-500:]}"
        raise PreparationFailed("SourceUnreachable", f"{url} cannot be read: {what}", url)


def _link(blob: Path, target: Path) -> None:
    try:
        os.link(blob, target)
    except OSError:
        # Another file system, or one without hard links.
        shutil.copyfile(blob, target)
        target.chmod(0o444)
