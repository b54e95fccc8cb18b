"""A run without a platform: the same calls, kept in a folder as JSON lines, so that a crash loses nothing. Standard library only.

<TRAINYARD_OFFLINE_DIR or ./azureml-offline>/<run id>/run.jsonl     one line a call
                                                     files/...      what was uploaded
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainyard._errors import UserErrorException
from trainyard._live import Upload, copy_source
from trainyard._logger import Point, complain
from trainyard._offline_reads import OfflineReads
from trainyard._paths import below

FOLDER = "TRAINYARD_OFFLINE_DIR"
_LABELS = 50


class Experiment:
    """The name under which a run is kept, as its script sees it."""

    def __init__(self, name: str, workspace: Any = None) -> None:
        self.name = name
        self._workspace = workspace

    @property
    def workspace(self) -> Any:
        """Of a submitted run its names; offline the one that config.json names (UserErrorException where there is none)."""
        if self._workspace is None:
            from trainyard._workspace import Workspace

            self._workspace = Workspace.from_config()
        return self._workspace

    def __repr__(self) -> str:
        return f"Experiment(name={self.name!r})"


class OfflineRun(OfflineReads):
    """`folder` holds what it was told; nothing is made there before the first call that has something to keep."""

    type = "azureml.offlinerun"
    number = 0

    def __init__(self, experiment: Experiment | None = None, parent: OfflineRun | None = None, *, run_id: str = "") -> None:
        """`run_id`: of one that was kept; else a new one."""
        super().__init__()
        self.id = run_id or f"OfflineRun_{uuid.uuid4()}"
        self.experiment = experiment or Experiment("offline")
        self.parent = parent
        self.input_datasets: dict[str, str] = {}
        self.folder = Path(os.environ.get(FOLDER) or "azureml-offline").absolute() / self.id
        self._unkept: list[dict[str, Any]] | None = None

    def __repr__(self) -> str:
        return f"Run(id={self.id!r}, offline)"

    # -- what is kept

    def _keep(self, what: str, content: Any) -> None:
        line = {"at": datetime.now(UTC).isoformat(), what: content}
        if self._unkept is not None:
            self._unkept.append(line)
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "run.jsonl").open("ab", buffering=0) as file:
                file.write(json.dumps(line).encode() + b"\n")
        except OSError as error:
            complain(f"{self.folder} cannot be written ({error.strerror}): this offline run is kept in memory only")
            self._unkept = [line]

    def _kept(self, what: str) -> Iterator[Any]:
        """Whole lines only: a crash may have cut the last one."""
        lines: list[dict[str, Any]] = []
        try:
            for raw in (self.folder / "run.jsonl").read_bytes().split(b"\n"):
                try:
                    lines.append(json.loads(raw))
                except ValueError:
                    continue
        except OSError:
            pass
        return (line[what] for line in [*lines, *(self._unkept or ())] if isinstance(line, dict) and what in line)

    def _emit(self, point: Point) -> None:
        self._keep("metric", point)
        print(f"Attempted to log {point[1]} metric {point[0]}:\n{point[2]}", flush=True)

    def _attach(self, path: str, content: bytes) -> None:
        target = self._place(path)
        target.write_bytes(content)
        self._keep("file", path)

    def _upload(self, uploads: Sequence[Upload]) -> None:
        taken = [name for name, _ in uploads if (self.folder / "files" / name).exists()]
        if taken:
            raise UserErrorException(f"The run has a file {taken[0]!r} already.", code="PathIsTaken", target=taken[0])
        for name, source in uploads:
            target = self._place(name)
            copy_source(source, target)
            self._keep("file", name)

    def _place(self, path: str) -> Path:
        """Raises UserErrorException for a path that leads elsewhere, and where the folder cannot be written."""
        files = self.folder / "files"
        try:
            files.mkdir(parents=True, exist_ok=True)
            target = below(files, path)
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"{path!r} cannot be kept: {self.folder} cannot be written ({error.strerror})."
            raise UserErrorException(what, target=path, hint=f"name another folder in {FOLDER}") from error
        return target

    def _label(self, tags: Mapping[str, str], removed: Sequence[str]) -> None:
        if len((self.tags.keys() - set(removed)) | tags.keys()) > _LABELS:
            raise UserErrorException(f"A run has at most {_LABELS} tags.", target="tags")
        self._keep("tags", {"set": dict(tags), "removed": list(removed)})

    def _add_properties(self, properties: Mapping[str, str]) -> None:
        known = self.properties
        for name, value in properties.items():
            if known.get(name, value) != value:
                raise UserErrorException(f"The property {name!r} is {known[name]!r} and never changes.", code="PropertyIsSet", target=name)
        self._keep("properties", dict(properties))

    def _labels(self) -> tuple[dict[str, str], dict[str, str]]:
        tags: dict[str, str] = {}
        for change in self._kept("tags"):
            tags = {name: value for name, value in tags.items() if name not in change["removed"]} | change["set"]
        properties: dict[str, str] = {}
        for added in self._kept("properties"):
            properties |= added
        return tags, properties

    def _open_children(self, names: Sequence[str], tags: Sequence[Mapping[str, str]]) -> list[OfflineRun]:
        children = []
        for name, those in zip(names, tags, strict=True):
            child = OfflineRun(self.experiment, self)
            child._keep("opened", {"parent": self.id, "display_name": name})
            if those:
                child._label(those, ())
            self._keep("child", child.id)
            children.append(child)
        return children

    def _child(self, run_id: str) -> OfflineRun:
        return OfflineRun(self.experiment, self, run_id=run_id)

    def _close(self, status: str, failure: Mapping[str, Any] | None) -> None:
        if self.get_status() == "Running":
            self._keep("end", {"status": status.title(), **({"error": dict(failure)} if failure else {})})

    def flush(self, timeout_seconds: float = 300.0) -> None:
        """Nothing is kept back."""
