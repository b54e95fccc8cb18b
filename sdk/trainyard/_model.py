"""Registered models: immutable versions."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard._errors import ModelNotFoundException, UserErrorException, WebserviceException

if TYPE_CHECKING:
    from trainyard._webservice import Webservice
    from trainyard._workspace import Workspace
    from trainyard.model.v1.model_pb2 import Requirements


_MOST = 1 << 30
"""Of cores, GiB or GPUs; the wire has room for so many bytes."""


@dataclass(frozen=True)
class ResourceConfiguration:
    """What it takes to serve a model."""

    cpu: float | None = None
    memory_in_gb: float | None = None
    gpu: int | None = None

    def __post_init__(self) -> None:
        """Raises UserErrorException."""
        for option, kinds in (("cpu", (int, float)), ("memory_in_gb", (int, float)), ("gpu", (int,))):
            value = getattr(self, option)
            if value is not None and not (isinstance(value, kinds) and 0 <= value < _MOST):
                what = "whole number" if kinds == (int,) else "number"
                raise UserErrorException(f"{option} is a {what} from 0, not {value!r}.", target=option)

    def _to_message(self) -> Requirements:
        from trainyard.model.v1.model_pb2 import Requirements

        return Requirements(cpus=self.cpu or 0.0, memory_bytes=int((self.memory_in_gb or 0) * 2**30), gpus=self.gpu or 0)


class Model:
    class Framework:
        TENSORFLOW = "TensorFlow"
        TFKERAS = "TfKeras"
        SCIKITLEARN = "ScikitLearn"
        ONNX = "Onnx"
        PYTORCH = "PyTorch"
        CUSTOM = "Custom"

    def __init__(
        self, workspace: Workspace, name: str | None = None, id: str | None = None, version: int | None = None, *, _message: Any = None
    ) -> None:  # noqa: A002
        self.workspace = workspace
        if _message is None:
            if id is not None:
                name, _, number = id.partition(":")
                if not number.isdecimal():
                    raise UserErrorException(f"A model's id is name:version; {id!r} is none.", target=id, hint="write id='tf-dnn-mnist:1'")
                version = int(number)
            if not name:
                raise UserErrorException("A model is found by its name or its id.", target="name")
            _message = _fetch(workspace, name, version or 0)
        self._message = _message

    def __repr__(self) -> str:
        return f"Model(name={self.name!r}, version={self.version}, run_id={self.run_id!r})"

    @classmethod
    def _from_message(cls, workspace: Workspace, message: Any) -> Model:
        return cls(workspace, _message=message)

    @property
    def name(self) -> str:
        return str(self._message.model)

    @property
    def version(self) -> int:
        return int(self._message.version)

    @property
    def id(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def digest(self) -> str:
        return str(self._message.digest)

    @property
    def run_id(self) -> str:
        return str(self._message.lineage.run_id)

    @property
    def lineage(self) -> dict[str, Any]:
        """model -> run -> dataset versions, snapshot, environment."""
        found = self._message.lineage
        return {
            "run_id": found.run_id,
            "experiment": found.experiment,
            "epoch": found.epoch,
            "datasets": [f"{item.name}:{item.version}" for item in found.datasets],
            "snapshot_id": found.snapshot_id,
            "environment_id": found.environment_id,
        }

    @property
    def tags(self) -> dict[str, str]:
        return dict(self._message.tags)

    @property
    def properties(self) -> dict[str, str]:
        return dict(self._message.properties)

    @property
    def description(self) -> str:
        return str(self._message.description)

    @property
    def model_framework(self) -> str:
        return str(self._message.framework)

    @property
    def model_framework_version(self) -> str:
        return str(self._message.framework_version)

    @property
    def created_time(self) -> datetime:
        when: datetime = self._message.registered_at.ToDatetime(UTC)
        return when

    def download(self, target_dir: str = ".", exist_ok: bool = False) -> str:
        """The registered file or folder, under its own last name; returns where it lies."""
        from trainyard._details import fetch
        from trainyard._paths import safe_relpath

        files = list(self._message.artifacts.files)
        top = Path(target_dir) / (files[0].path.split("/")[0] if files else self.name)
        if top.exists() and not exist_ok:
            raise UserErrorException(f"{top} is there already.", target=str(top), hint="give exist_ok=True to write over it")
        for file in files:
            fetch(self.workspace._objects, file, Path(target_dir) / safe_relpath(file.path))
        return str(top)

    @staticmethod
    def list(workspace: Workspace, name: str | None = None, latest: bool = False, run_id: str | None = None) -> list[Model]:
        """Newest first: every version of `name`, or of all models (latest: the newest of each)."""
        from trainyard.model.v1 import model_pb2

        clients = workspace._clients

        def versions(model: str) -> Sequence[Any]:
            answer = clients.call(clients.models.ListModelVersions, model_pb2.ListModelVersionsRequest(model=model), ModelNotFoundException)
            return list(answer.versions)

        found = [Model._from_message(workspace, message) for message in versions(name or "")]
        if name is None and not latest:
            found = [Model._from_message(workspace, message) for newest in found for message in versions(newest.name)]
        if name is not None and latest:
            found = found[:1]
        return [model for model in found if run_id is None or model.run_id == run_id]

    @staticmethod
    def register(workspace: Workspace, model_path: str, model_name: str, **_: Any) -> Model:
        raise UserErrorException(
            "Registering a local folder is not supported yet.",
            target=model_path,
            hint="write it to ./outputs in a run and call run.register_model",
        )

    @staticmethod
    def deploy(
        workspace: Workspace,
        name: str,
        models: Sequence[Model],
        inference_config: object = None,
        deployment_config: object = None,
        deployment_target: object = None,
        overwrite: bool = False,
    ) -> Webservice:
        """A SavedModel behind gRPC and REST, without code. Returns at once: wait_for_deployment follows."""
        from trainyard._webservice import Webservice
        from trainyard.endpoint.v1 import endpoint_pb2

        for option, value in (
            ("inference_config", inference_config),
            ("deployment_config", deployment_config),
            ("deployment_target", deployment_target),
        ):
            if value is not None:
                raise WebserviceException(
                    f"{option} is not supported yet.", code="UserError", target=option, hint="deploy one SavedModel without code"
                )
        if not isinstance(models, Sequence) or any(not isinstance(model, Model) for model in models):
            raise WebserviceException(
                f"models is a list of Model, not {models!r}.", code="UserError", target="models", hint="write [model]"
            )
        if len(models) != 1:
            raise WebserviceException(
                f"Deployment without code takes exactly one model; {len(models)} were given.", code="UserError", target="models"
            )
        request = endpoint_pb2.DeployEndpoint(
            submission_id=uuid.uuid4().hex, endpoint=name, model=models[0].name, version=models[0].version, overwrite=overwrite
        )
        clients = workspace._clients
        answer = clients.call(clients.endpoints.DeployEndpoint, request, WebserviceException, timeout=120.0)
        return Webservice._from_message(workspace, answer.endpoint)


def _fetch(workspace: Workspace, name: str, version: int) -> Any:
    from trainyard.model.v1 import model_pb2

    clients = workspace._clients
    request = model_pb2.GetModelVersionRequest(model=name, version=version)
    return clients.call(clients.models.GetModelVersion, request, ModelNotFoundException).version
