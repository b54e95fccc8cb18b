"""A workspace: the local stack that config.json describes."""

from __future__ import annotations

import builtins
import json
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard._errors import UserErrorException

if TYPE_CHECKING:
    from trainyard._compute import ComputeTarget
    from trainyard._dataset import FileDataset
    from trainyard._datastore import AbstractDatastore, Datastore
    from trainyard._environment import Environment
    from trainyard._experiment import Experiment
    from trainyard._grpc import Clients
    from trainyard._kafka import Events
    from trainyard._model import Model
    from trainyard._objects import Objects
    from trainyard._webservice import Webservice

ENVIRONMENT_KEY = "TRAINYARD_CONFIG"
_IDENTITY = ("subscription_id", "resource_group", "workspace_name")
# In a file that write_config made: where the file lies that describes the stack.
_STACK_KEY = "trainyard_config"
_UP = "start the local stack with `make up` (or `trainyard up`), or name its config.json in TRAINYARD_CONFIG"


class Workspace:
    """Identity, and the clients that everything else is done with: `Workspace.from_config()`, or Azure's three names over the nearest stack.

    Raises UserErrorException where there is no local stack to use. Attributes: name, subscription_id, resource_group, location ("local"),
    config_path (the file that describes the stack, None where there is none).
    """

    def __init__(self, subscription_id: str, resource_group: str, workspace_name: str, auth: object = None) -> None:
        found = _stack_config(Path.cwd())
        if found is None:
            raise UserErrorException("There is no local stack to use.", target="config.json", hint=_UP)
        self._set(_read_stack(found), found)
        self.name, self.subscription_id, self.resource_group = workspace_name, subscription_id, resource_group

    def _set(self, config: Mapping[str, Any], config_path: Path | None) -> None:
        self.name = str(config["workspace_name"])
        self.subscription_id = str(config.get("subscription_id", "local"))
        self.resource_group = str(config.get("resource_group", "local"))
        self.location = "local"
        self.config_path = config_path
        self._stack: dict[str, Any] = config["trainyard"]

    def __repr__(self) -> str:
        return f"Workspace(name={self.name!r}, home={self._stack.get('home', '')!r})"

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], config_path: Path | None = None) -> Workspace:
        """Of what config.json holds, without the file. Raises UserErrorException where it describes no stack."""
        if not isinstance(config.get("trainyard"), dict) or "workspace_name" not in config:
            where = str(config_path or "the configuration")
            raise UserErrorException(f"{where} does not describe a Trainyard stack: it has no key 'trainyard'.", target=where, hint=_UP)
        made = cls.__new__(cls)
        made._set(config, config_path)
        return made

    @classmethod
    def from_config(
        cls, path: str | os.PathLike[str] | None = None, auth: object = None, _logger: object = None, _file_name: str | None = None
    ) -> Workspace:
        """The nearest config.json: here, in .trainyard/, .azureml/ or a parent; `path` may be a file or a folder.

        An Azure file gives the names, the local stack the rest. Raises UserErrorException where no file or no stack is found.
        """
        found = _explicit(Path(path)) if path is not None else _nearest(Path.cwd())
        chosen = _read(found) if found is not None else {}
        its_own = path is not None or ENVIRONMENT_KEY not in os.environ
        if "trainyard" in chosen and its_own:
            return cls.from_dict(chosen, found)
        named = chosen.get(_STACK_KEY) if its_own else None
        stack_path = _explicit(Path(named)) if isinstance(named, str) else _stack_config(found.parent if found is not None else Path.cwd())
        if stack_path is None:
            what = f"{found} names an Azure workspace" if found is not None else f"No config.json was found in {Path.cwd()} or its parents"
            raise UserErrorException(f"{what}, and there is no local stack to use.", target=str(found or "config.json"), hint=_UP)
        azure = {name: chosen[name] for name in _IDENTITY if name in chosen} if "trainyard" not in chosen else {}
        return cls.from_dict({**_read_stack(stack_path), **azure}, stack_path)

    @classmethod
    def get(
        cls,
        name: str,
        auth: object = None,
        subscription_id: str | None = None,
        resource_group: str | None = None,
        location: str | None = None,
        cloud: str = "AzureCloud",
        id: str | None = None,  # noqa: A002 - Azure's word
    ) -> Workspace:
        """The workspace of that name over the nearest stack; auth, location, cloud and id change nothing. Raises UserErrorException where there is no local stack."""
        return cls(subscription_id or "local", resource_group or "local", name)

    @staticmethod
    def list(subscription_id: str = "local", auth: object = None, resource_group: str | None = None) -> dict[str, builtins.list[Workspace]]:
        """Name -> workspaces: the nearest stack's one, or nothing."""
        found = _stack_config(Path.cwd())
        if found is None:
            return {}
        workspace = Workspace.from_config(found)
        return {workspace.name: [workspace]}

    def write_config(self, path: str | os.PathLike[str] | None = None, file_name: str | None = None) -> None:
        """Writes <path, or here>/.azureml/<file_name, or config.json> for from_config: the three names and where the stack's own file lies.

        No key is copied, so the file may be committed. Raises UserErrorException where it cannot be written.
        """
        folder = Path(path or ".") / ".azureml"
        content = self._identity()
        if self.config_path is not None:
            content[_STACK_KEY] = str(self.config_path.absolute())
        target = folder / (file_name or "config.json")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        except OSError as error:
            raise UserErrorException(f"{target} cannot be written: {error.strerror}", target=str(target)) from error

    def _identity(self) -> dict[str, str]:
        values = (self.subscription_id, self.resource_group, self.name)
        return dict(zip(_IDENTITY, values, strict=True))

    def get_details(self) -> dict[str, Any]:
        """Identity and addresses in Azure's shape; never a key or password."""
        store = self._stack.get("object_store", {})
        return {
            "id": f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}/providers/Trainyard/workspaces/{self.name}",
            "name": self.name,
            "location": self.location,
            "type": "Trainyard/workspaces",
            "tags": {},
            "sku": "Basic",
            "workspaceid": self.name,
            "description": "",
            "friendlyName": self.name,
            "storageAccount": f"{store.get('endpoint', '')}/{store.get('bucket', '')}",
            "discoveryUrl": str(self.config_path or ""),
            "services": dict(self._stack.get("services", {})),
            "kafka": str(self._stack.get("kafka_bootstrap", "")),
        }

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
        """Name -> pool."""
        from trainyard._compute import ComputeTarget

        return {target.name: target for target in ComputeTarget.list(self)}

    @property
    def datasets(self) -> dict[str, FileDataset]:
        """Name -> latest version."""
        from trainyard._dataset import Dataset

        return Dataset.get_all(self)

    @property
    def datastores(self) -> dict[str, AbstractDatastore]:
        """Name -> datastore, the default one included."""
        from trainyard._datastore import Datastore

        return Datastore._all(self)

    def get_default_datastore(self) -> Datastore:
        """The one that is always there; local files of datasets go to it."""
        from trainyard._datastore import Datastore

        return Datastore.get_default(self)

    @property
    def models(self) -> dict[str, Model]:
        """Name -> latest version."""
        from trainyard._model import Model

        return {model.name: model for model in Model.list(self, latest=True)}

    @property
    def environments(self) -> dict[str, Environment]:
        """Name -> latest version, the curated names included."""
        from trainyard._environment import Environment

        return Environment.list(self)

    @property
    def webservices(self) -> dict[str, Webservice]:
        """Name -> endpoint."""
        from trainyard._webservice import Webservice

        return {service.name: service for service in Webservice.list(self)}

    @property
    def images(self) -> dict[str, Any]:
        """Empty: models are served from their registered files; no container image is ever built."""
        return {}

    @property
    def experiments(self) -> dict[str, Experiment]:
        """Those with a run, by name."""
        from trainyard._experiment import Experiment
        from trainyard._history import experiment_names

        return {name: Experiment(self, name) for name in experiment_names(self)}


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


def _read_stack(path: Path) -> dict[str, Any]:
    content = _read(path)
    if not isinstance(content.get("trainyard"), dict):
        raise UserErrorException(f"{path} does not describe a Trainyard stack: it has no key 'trainyard'.", target=str(path), hint=_UP)
    return content


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserErrorException(f"{path} cannot be read as JSON: {error}", target=str(path)) from error
    if not isinstance(content, dict) or "workspace_name" not in content:
        raise UserErrorException(f"{path} has no 'workspace_name'.", target=str(path), hint=_UP)
    return content
