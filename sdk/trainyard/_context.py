"""The run as its own script sees it. Standard library only: it works in any environment, and no metric fails a run.

The agent does on the script's behalf whatever needs the platform: it has the credentials, the script has a socket.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainyard import _errors, _values
from trainyard._live import LiveRun, Upload, copy_source
from trainyard._logger import Point, complain
from trainyard._model_datasets import name_and_version, purposes
from trainyard._offline import Experiment, OfflineRun
from trainyard._wire import Wire

_UPLOADS = 1000  # in one request to the agent
SOCKET, SPOOL, PARENT = "TRAINYARD_RUN_SOCKET", "TRAINYARD_SPOOL", "TRAINYARD_PARENT_RUN_ID"


def get_context(allow_offline: bool = True) -> ScriptRun | OfflineRun:
    """The submitted run this script is part of; outside of one an offline run that keeps what it is told in a folder.

    Raises RunEnvironmentException where allow_offline is False and there is no run.
    """
    global _current
    path = os.environ.get(SOCKET)
    if _current is None and path:
        experiment = Experiment(os.environ.get("AZUREML_ARM_PROJECT_NAME", ""), ScriptWorkspace())
        _current = ScriptRun(Wire(path), os.environ.get("AZUREML_RUN_ID", ""), experiment)
    if not allow_offline and not isinstance(_current, ScriptRun):
        raise _errors.RunEnvironmentException("This script is not part of a submitted run, and allow_offline is False.")
    if _current is None:
        _current = OfflineRun()
    return _current


_current: ScriptRun | OfflineRun | None = None


class ScriptWorkspace:
    """The workspace's identity, as a script on a node knows it. What needs the platform's services is not here."""

    def __init__(self) -> None:
        self.name = os.environ.get("AZUREML_ARM_WORKSPACE_NAME", "local")
        self.subscription_id = os.environ.get("AZUREML_ARM_SUBSCRIPTION", "local")
        self.resource_group = os.environ.get("AZUREML_ARM_RESOURCEGROUP", "local")
        self.location = "local"

    def __repr__(self) -> str:
        return f"Workspace(name={self.name!r})"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        what = "a connection to the platform" if name.startswith("_") else repr(name)
        raise AttributeError(
            f"A script's workspace has its names alone, and not {what}: scripts have no credentials. "
            "Give data to the run as named inputs (run.input_datasets), and register models by run.register_model."
        )


class Parent:
    """The run that this one is a child of, by its id."""

    def __init__(self, run_id: str) -> None:
        self.id = run_id

    def __repr__(self) -> str:
        return f"Run(id={self.id!r})"


class RegisteredModel:
    """What register_model made."""

    def __init__(self, name: str, version: int) -> None:
        self.name = name
        self.version = version
        self.id = f"{name}:{version}"

    def __repr__(self) -> str:
        return f"Model(name={self.name!r}, version={self.version})"


class ScriptRun(LiveRun):
    """A submitted run, from inside; `child` is set for a run that the script opened below it."""

    type = "azureml.scriptrun"

    def __init__(self, wire: Wire, run_id: str, experiment: Experiment, parent: ScriptRun | None = None) -> None:
        super().__init__()
        self.id = run_id
        self.experiment = experiment
        self.input_datasets: dict[str, str] = json.loads(os.environ.get("TRAINYARD_INPUTS", "{}"))
        self._wire = wire
        self._child = run_id if parent is not None else ""
        self._ends_by_itself = parent is None
        outside = os.environ.get(PARENT)
        self.parent: ScriptRun | Parent | None = parent if parent is not None else Parent(outside) if outside else None

    def __repr__(self) -> str:
        return f"Run(experiment={self.experiment.name!r}, id={self.id!r})"

    def _emit(self, point: Point) -> None:
        self._wire.put(self._child, point)

    def _attach(self, path: str, content: bytes) -> None:
        spooled = _spool()
        spooled.write_bytes(content)
        self._ask("upload", files=[[path, spooled.name]])

    def _ask(self, what: str, **fields: Any) -> Any:
        return self._wire.ask({"ask": what, "run": self._child, **fields})

    def _label(self, tags: Mapping[str, str], removed: Sequence[str]) -> None:
        try:
            self._ask("tag", set=dict(tags), removed=list(removed))
        except _errors.PlatformUnavailableException as error:
            complain(f"tags {', '.join([*tags, *removed])[:200]} were not changed: {error.message}")

    def _add_properties(self, properties: Mapping[str, str]) -> None:
        self._ask("add_properties", properties=dict(properties))

    def _labels(self) -> tuple[dict[str, str], dict[str, str]]:
        seen = self._ask("view")
        return seen["tags"], seen["properties"]

    def _upload(self, uploads: Sequence[Upload]) -> None:
        files = []
        for name, source in uploads:
            spooled = _spool()
            copy_source(source, spooled)
            files.append([name, spooled.name])
            if len(files) == _UPLOADS:
                self._ask("upload", files=files)
                files = []
        if files:
            self._ask("upload", files=files)

    def _open_children(self, names: Sequence[str], tags: Sequence[Mapping[str, str]]) -> list[ScriptRun]:
        wanted = [{"display_name": name, "tags": dict(those)} for name, those in zip(names, tags, strict=True)]
        return [ScriptRun(self._wire, run_id, self.experiment, self) for run_id in self._ask("open_children", children=wanted)]

    def _close(self, status: str, failure: Mapping[str, Any] | None) -> None:
        self._ask("close", status=status, failure=dict(failure or {}))

    def flush(self, timeout_seconds: float = 300.0) -> None:
        """Returns when all that was logged lies in the platform's log, or after the time."""
        self._wire.flush(timeout_seconds)

    # -- reads, which see the run's own writes

    @property
    def status(self) -> str:
        return self.get_status()

    def get_status(self) -> str:
        """Running for the script's own run; for a child what has become of it."""
        return "Running" if self._ends_by_itself else str(self._ask("view")["status"])

    def get_metrics(self, name: str | None = None, recursive: bool = False) -> dict[str, Any]:
        """All that was logged up to now: one value -> scalar, several -> list, rows -> dict of lists."""
        self.flush()
        points = [(point[0], point[1], point[2]) for point in self._ask("metrics")]
        found = _values.shape(self.id, (point for point in points if name is None or point[0] == name))
        return {self.id: found} if recursive else found

    def get_file_names(self) -> list[str]:
        """Uploaded up to now; ./outputs and ./logs follow when the script has ended."""
        return list(self._ask("view")["files"])

    def get_details(self) -> dict[str, Any]:
        """runId, target, status, tags, properties, inputDatasets and runDefinition, as far as a running script can know them."""
        return dict(self._ask("details"))

    def register_model(
        self,
        model_name: str,
        model_path: str | None = None,
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        model_framework: str | None = None,
        model_framework_version: str | None = None,
        description: str | None = None,
        datasets: Sequence[Any] | None = None,
        sample_input_dataset: Any = None,
        sample_output_dataset: Any = None,
        resource_configuration: Any = None,
    ) -> RegisteredModel:
        """A file or folder below ./outputs, as it is now, or one that was uploaded, as a new version. It is saved first.

        datasets: what its lineage names beside the run's own inputs, or pairs (purpose, dataset). A dataset is one of the run's inputs, by
        its name or as run.input_datasets gives it, or "name:version" of any registered one.

        Raises ModelPathNotFoundException, which lists what there is; UserErrorException for a dataset that is not registered.
        """
        wish = resource_configuration
        made = self._ask(
            "register_model",
            model=model_name,
            path=model_path or model_name,
            tags={str(key): str(value) for key, value in (tags or {}).items()},
            properties={str(key): str(value) for key, value in (properties or {}).items()},
            framework=model_framework or "",
            framework_version=model_framework_version or "",
            description=description or "",
            datasets=[self._named(*pair) for pair in purposes(datasets, sample_input_dataset, sample_output_dataset)],
            cpus=float(getattr(wish, "cpu", 0) or 0),
            memory_in_gb=float(getattr(wish, "memory_in_gb", 0) or 0),
            gpus=int(getattr(wish, "gpu", 0) or 0),
        )
        return RegisteredModel(made["model"], made["version"])

    def _named(self, purpose: str, dataset: Any) -> dict[str, Any]:
        """As the agent wants it: an input, whose dataset it knows, or a name and a version."""
        if not isinstance(dataset, str):
            name, version = name_and_version(dataset)
            return {"purpose": purpose, "name": name, "version": version}
        by_path = {path: name for name, path in self.input_datasets.items()}
        if (found := by_path.get(dataset, dataset)) in self.input_datasets:
            return {"purpose": purpose, "input": found}
        name, _, number = dataset.rpartition(":")
        if name and number.isascii() and number.isdecimal():
            return {"purpose": purpose, "name": name, "version": int(number)}
        inputs = ", ".join(sorted(self.input_datasets)) or "none"
        what = f"{dataset[:200]!r} is no input of this run, nor a registered dataset as 'name:version'; its inputs are: {inputs}."
        raise _errors.UserErrorException(what, target="datasets")


def _spool() -> Path:
    """A new name in the folder that the agent takes files from: what it uploads is a copy that nobody writes to any more."""
    folder = Path(os.environ[SPOOL])
    folder.mkdir(exist_ok=True)
    return folder / secrets.token_hex(16)
