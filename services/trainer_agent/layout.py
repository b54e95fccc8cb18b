"""Where things lie on a node."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Folders:
    """One attempt's folders. `code` is the script's working directory."""

    root: Path
    sockets: Path

    @classmethod
    def make(cls, home: Path, agent_id: str, run_id: str, epoch: int) -> Folders:
        root = home / "work" / agent_id / f"{run_id}.{epoch}"
        shutil.rmtree(root, ignore_errors=True)
        # Unix socket paths end at 107 bytes, however deep the home lies.
        folders = cls(root, Path(tempfile.mkdtemp(prefix="trainyard-")))
        for folder in (folders.code, folders.data, folders.logs, folders.temporary):
            folder.mkdir(parents=True)
        return folders

    @property
    def code(self) -> Path:
        return self.root / "code"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def logs(self) -> Path:
        """Log files by their names, e.g. logs/azureml-logs/70_driver_log.txt."""
        return self.root / "logs"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.rmtree(self.sockets, ignore_errors=True)
