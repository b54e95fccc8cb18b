"""A workspace: the local stack that config.json describes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard._errors import UserErrorException

if TYPE_CHECKING:
    from trainyard._compute import ComputeTarget
    from trainyard._dataset import FileDataset
    from trainyard._datastore import AbstractDatastore, Datastore
    from trainyard._experiment import Experiment
    from trainyard._grpc import Clients
    from trainyard._kafka import Events
    from trainyard._model import Model
    from trainyard._objects import Objects
    from trainyard._webservice import Webservice

ENVIRONMENT_KEY = "TRAINYARD_CONFIG"
_UP = "start the local stack with `make up` (or `trainyard up`), or name its config.json in TRAINYARD_CONFIG"


class Workspace:
    """Identity, and the clients that everything else is done with."""

    def __init__(self, config: dict[str, Any], *, config_path: Path | None = None) -> None:
        self.name = str(config["workspace_name"])
        self.subscription_id = str(config.get("subscription_id", "local"))
        self.resource_group = str(config.get("resource_group", "local"))
        self.location = "local"
        self.config_path = config_path
        self._stack: dict[str, Any] = config["trainyard"]

    def __repr__(self) -> str:
        return f"Workspace(name={self.name!r}, home={self._stack.get('home', '')!r})"

    @classmethod
    def from_config(cls, path: str | os.PathLike[str] | None = None, auth: object = None) -> Workspace:
        """The nearest config.json; `path` may be a file or a folder. An Azure file gives the name, the local stack the rest."""
        found = _explicit(Path(path)) if path is not None else _nearest(Path.cwd())
        chosen = _read(found) if found is not None else {}
        if "trainyard" in chosen and (path is not None or ENVIRONMENT_KEY not in os.environ):
            return cls(chosen, config_path=found)
        stack_path = _stack_config(found.parent if found is not None else Path.cwd())
        if stack_path is None:
            what = f"{found} names an Azure workspace" if found is not None else f"No config.json was found in {Path.cwd()} or its parents"
            raise UserErrorException(f"{what}, and there is no local stack to use.", target=str(found or "config.json"), hint=_UP)
        stack = _read(stack_path)
        if "trainyard" not in stack:
            raise UserErrorException(
                f"{stack_path} does not describe a Trainyard stack: it has no key 'trainyard'.", target=str(stack_path), hint=_UP
            )
        azure = {} if "trainyard" in chosen else chosen
        return cls({**stack, **azure}, config_path=stack_path)

    @cached_property
    def _clients(self) -> Clients:
        from trainyard._grpc import Clients

        return Clients(self._stack["services"])

    @cached_property
    def _objects(self) -> Objects:
        from trainyard._objects import MinioObjects

        store = self._stack["object_store"]
        return MinioObjects(store["endpoint"], store["access_key"], store["secret_key"], store["bucket"])

    @cached_property
    def _events(self) -> Events:
        from trainyard._kafka import Events

        return Events(str(self._stack["kafka_bootstrap"]))

    @property
    def compute_targets(self) -> dict[str, ComputeTarget]:
        from trainyard._compute import ComputeTarget

        return {target.name: target for target in ComputeTarget.list(self)}

    @property
    def datasets(self) -> dict[str, FileDataset]:
        from trainyard._dataset import Dataset

        return Dataset.get_all(self)

    @property
    def datastores(self) -> dict[str, AbstractDatastore]:
        """Name -> datastore, the default one included."""
        from trainyard._datastore import Datastore

        return Datastore._all(self)

    def get_default_datastore(self) -> Datastore:
        from trainyard._datastore import Datastore

        return Datastore.get_default(self)

    @property
    def models(self) -> dict[str, Model]:
        """Name -> latest version."""
        from trainyard._model import Model

        return {model.name: model for model in Model.list(self, latest=True)}

    @property
    def webservices(self) -> dict[str, Webservice]:
        from trainyard._webservice import Webservice

        return {service.name: service for service in Webservice.list(self)}

    @property
    def experiments(self) -> dict[str, Experiment]:
        """Those with a run among the newest thousand."""
        from trainyard._experiment import Experiment
        from trainyard.job.v1 import job_pb2

        runs = self._clients.call(self._clients.jobs.ListRuns, job_pb2.ListRunsRequest(limit=1000)).runs
        return {name: Experiment(self, name) for name in sorted({run.experiment for run in runs})}


def _candidates(folder: Path) -> Iterator[Path]:
    yield folder / "config.json"
    yield folder / ".trainyard" / "config.json"
    yield folder / ".azureml" / "config.json"


def _looks_like_a_workspace(path: Path) -> bool:
    """A project may keep a config.json of its own; that one is not ours to read."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "workspace_name" in content


def _nearest(start: Path) -> Path | None:
    for folder in (start, *start.parents):
        for candidate in _candidates(folder):
            if _looks_like_a_workspace(candidate):
                return candidate
    return None


def _explicit(path: Path) -> Path:
    if path.is_file():
        return path
    for candidate in _candidates(path):
        if candidate.is_file():
            return candidate
    raise UserErrorException(f"There is no config.json at {path}.", target=str(path), hint=_UP)


def _stack_config(start: Path) -> Path | None:
    named = os.environ.get(ENVIRONMENT_KEY)
    if named:
        return _explicit(Path(named))
    for begin in (start.absolute(), Path.cwd()):
        for folder in (begin, *begin.parents):
            candidate = folder / ".trainyard" / "config.json"
            if candidate.is_file():
                return candidate
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserErrorException(f"{path} cannot be read as JSON: {error}", target=str(path)) from error
    if not isinstance(content, dict) or "workspace_name" not in content:
        raise UserErrorException(f"{path} has no 'workspace_name'.", target=str(path), hint=_UP)
    return content
