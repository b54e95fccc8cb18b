"""Where things lie on a node."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from services.trainer_agent.adapters.lazy import detach_below
from trainyard._paths import below

_LONGEST_HOME_OF_SOCKETS = 75


@dataclass(frozen=True)
class Folders:
    """The folders of one node's part of an attempt. `code` is the working directory of all of its ranks."""

    root: Path
    sockets: Path

    @classmethod
    def make(cls, home: Path, agent_id: str, run_id: str, epoch: int, node_index: int = 0) -> Folders:
        """New and empty. Raises UserErrorException for a run id that would lead elsewhere."""
        part = f"{epoch}.{node_index}" if node_index else f"{epoch}"
        folders = cls(below(_work(home, agent_id), f"{run_id}.{part}"), _sockets(home, agent_id) / f"{_short(run_id)}.{part}")
        folders.remove()
        for folder in (folders.code, folders.data, folders.logs, folders.temporary, folders.spool):
            folder.mkdir(parents=True)
        folders.sockets.mkdir(parents=True, mode=0o700)
        return folders

    @staticmethod
    def sweep(home: Path, agent_id: str) -> None:
        """What an earlier process of the agent left behind when it was killed."""
        for folder in (_work(home, agent_id), _sockets(home, agent_id)):
            detach_below(folder)
            shutil.rmtree(folder, ignore_errors=True)

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

    @property
    def staging(self) -> Path:
        """Files of a checkpoint as they were when it was taken."""
        return self.root / "checkpoint"

    @property
    def spool(self) -> Path:
        """Files that the script asks to have uploaded."""
        return self.root / "spool"

    @property
    def metrics(self) -> Path:
        """The file of what was logged."""
        return self.root / "metrics.binpb"

    def remember_link(self, link: Path) -> None:
        """It leads into this attempt's folders, and goes with them."""
        with (self.root / "links").open("a") as file:
            file.write(f"{link}\0")

    def remove(self) -> None:
        links = self.root / "links"
        for link in map(Path, links.read_text().split("\0")[:-1] if links.exists() else ()):
            if link.is_symlink() and self.root in Path(os.readlink(link)).parents:
                link.unlink(missing_ok=True)
        detach_below(self.root)
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.rmtree(self.sockets, ignore_errors=True)


def _work(home: Path, agent_id: str) -> Path:
    return home / "work" / agent_id


def _sockets(home: Path, agent_id: str) -> Path:
    """Unix socket paths end at 107 bytes: where the home lies too deep they go to the folder for temporary files."""
    inside = home / "run" / agent_id
    if len(str(inside)) <= _LONGEST_HOME_OF_SOCKETS:
        return inside
    return Path(tempfile.gettempdir()) / f"trainyard-{os.getuid()}-{_short(f'{home}/{agent_id}')}"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
