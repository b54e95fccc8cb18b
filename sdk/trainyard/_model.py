"""Registered models: versions whose files never change, found by name, alias, tags or run; registered, downloaded, deployed."""

from __future__ import annotations

import builtins
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard._errors import ModelNotFoundException, TrainyardException, UserErrorException, WebserviceException
from trainyard._model_changes import ModelChanges
from trainyard._model_find import Tags, dataset_refs, fetch, has, number_of, parsed, parsed_id, texts, versions, versions_then
from trainyard._resource_configuration import ResourceConfiguration

if TYPE_CHECKING:
    from trainyard._dataset import FileDataset
    from trainyard._deployment_configuration import DeploymentConfiguration
    from trainyard._inference_config import InferenceConfig
    from trainyard._webservice import Webservice
    from trainyard._workspace import Workspace

# The registry reads every uploaded byte before it answers.
_REGISTER_SECONDS = 600.0
# As the registry has it.
_EVENT_BYTES = 1_000_000


class Model(ModelChanges):
    """One version of a registered model. `Model(ws, "name")` is the latest, `Model(ws, "name@champion")` the one that an alias points at;
    version, tags, properties, run_id or model_framework narrow it.

    Raises ModelNotFoundException with the names or versions that exist, UserErrorException for an id that is none.
    """

    class Framework:
        """Names for model_framework; TENSORFLOW, SCIKITLEARN and ONNX are those that Azure deploys without code."""

        TENSORFLOW = "TensorFlow"
        TFKERAS = "TfKeras"
        SCIKITLEARN = "ScikitLearn"
        ONNX = "Onnx"
        PYTORCH = "PyTorch"
        CUSTOM = "Custom"

    def __init__(
        self,
        workspace: Workspace,
        name: str | None = None,
        id: str | None = None,  # noqa: A002
        tags: Tags | None = None,
        properties: Tags | None = None,
        version: int | None = None,
        run_id: str | None = None,
        model_framework: str | None = None,
        *,
        _message: Any = None,
    ) -> None:
        self.workspace = workspace
        self._message = _message
        if _message is None:
            alias = ""
            if name is not None and not isinstance(name, str):
                raise UserErrorException(f"A model's name is a string, not {name!r:.200}.", target="name")
            if id is not None:
                name, version, alias = parsed_id(id)
            elif name and ("@" in name or ":" in name):
                name, inside, alias = parsed(name)
                version = version if version is not None or not inside else inside
            if not name:
                raise UserErrorException("A model is found by its name or its id.", target="name")
            if alias and version:
                raise UserErrorException(f"{name}@{alias} names a version by itself; give no other one.", target="version")
            if not version and not alias and (tags or properties or run_id or model_framework):
                found = Model.list(workspace, name, tags=tags, properties=properties, run_id=run_id, model_framework=model_framework)
                if not found:
                    raise ModelNotFoundException(f"No version of model {name!r} has what was asked for.", target=name)
                self._message = found[0]._message
            else:
                self._message = fetch(workspace, name, number_of(version), alias)

    def __repr__(self) -> str:
        return f"Model(name={self.name!r}, version={self.version}, run_id={self.run_id!r})"

    @classmethod
    def _from_message(cls, workspace: Workspace, message: Any) -> Model:
        return cls(workspace, _message=message)

    def download(self, target_dir: str = ".", exist_ok: bool = False, exists_ok: bool | None = None) -> str:
        """The registered file or folder, under its own last name below target_dir; every byte is checked. Returns where it lies.

        Raises UserErrorException where it is there already and exist_ok is False, TrainyardException where the store's bytes are not
        those that were registered.
        """
        from trainyard._model_files import download

        files = builtins.list(self._message.artifacts.files)
        top = Path(target_dir) / (files[0].path.split("/")[0] if files else self.name)
        if top.exists() and not (exist_ok if exists_ok is None else exists_ok):
            raise UserErrorException(f"{top} is there already.", target=str(top), hint="give exist_ok=True to write over it")
        download(self.workspace._objects, files, Path(target_dir))
        return str(top)

    @staticmethod
    def get_model_path(model_name: str, version: int | None = None, _workspace: Workspace | None = None) -> str:
        """Where the model lies: inside a deployment below $AZUREML_MODEL_DIR, else ./azureml-models/<name>/<version>/.

        With _workspace it is downloaded there first, and every byte checked. Raises ModelNotFoundException with what there is.
        """
        from trainyard._model_files import IN_DEPLOYMENT, LOCAL, download, local_path

        if _workspace is None or os.environ.get(IN_DEPLOYMENT):
            return str(local_path(model_name, version))
        found = Model(_workspace, model_name, version=version)
        download(_workspace._objects, found._message.artifacts.files, Path(LOCAL) / found.name / str(found.version))
        return str(local_path(found.name, found.version))

    @staticmethod
    def list(
        workspace: Workspace,
        name: str | None = None,
        tags: Tags | None = None,
        properties: Tags | None = None,
        run_id: str | None = None,
        latest: bool = False,
        dataset_id: str | None = None,
        expand: bool = True,
        page_count: int = 255,
        model_framework: str | None = None,
        stage: str | None = None,
        *,
        as_of: Any = None,
    ) -> builtins.list[Model]:
        """Newest first: every version of `name`, or of all models; `latest` gives the newest of each that fits.

        tags and properties: {"name": "value"}, ["name"] or [["name", "value"]], all of which must hold. dataset_id is "name:version".
        expand and page_count change nothing here. No model of that name gives an empty list. as_of: as they were at a datetime, an ISO time,
        so long ago ("1h") or a record of the log ("topic/partition@offset").
        """
        narrowed = tags or properties or run_id or dataset_id or model_framework or stage
        newest_only = bool(latest and not narrowed)
        if as_of is None:
            everything = versions(workspace, name, newest_only=newest_only)
        else:
            everything = versions_then(workspace, name, as_of, newest_only=newest_only)
        found = [
            model
            for model in (Model._from_message(workspace, message) for message in everything)
            if has(model.tags, tags)
            and has(model.properties, properties)
            and run_id in (None, model.run_id)
            and model_framework in (None, model.model_framework)
            and (stage is None or stage.lower() == model.stage.lower())
            and (dataset_id is None or dataset_id in model.lineage["datasets"])
        ]
        if latest:
            newest = {model.name: model for model in reversed(found)}
            found = [model for model in found if model is newest[model.name]]
        return found

    @staticmethod
    def register(
        workspace: Workspace,
        model_path: str | os.PathLike[str],
        model_name: str,
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        description: str | None = None,
        datasets: Sequence[Any] | None = None,
        model_framework: str | None = None,
        model_framework_version: str | None = None,
        child_paths: Sequence[str] | None = None,
        sample_input_dataset: FileDataset | None = None,
        sample_output_dataset: FileDataset | None = None,
        resource_configuration: ResourceConfiguration | None = None,
        region: str | None = None,
        show_progress: bool = True,
    ) -> Model:
        """A local file or folder as a new version: sent with its SHA-256 digests, read and checked by the registry before it counts.

        datasets: registered FileDatasets, or pairs (purpose, FileDataset). Equal bytes are not sent twice. Raises UserErrorException for
        a path that is not there or has names no store can keep, for unregistered datasets, and for what the registry refuses.
        """
        from trainyard._model_files import Upload
        from trainyard.model.v1 import model_pb2

        for option, value in (("child_paths", child_paths), ("region", region)):
            if value:
                raise UserErrorException(f"{option} has no meaning here: a model is one file or folder, in one place.", target=option)
        named = dataset_refs(datasets, sample_input_dataset, sample_output_dataset)
        upload = Upload(model_path, show_progress=show_progress)
        request = model_pb2.RegisterModelVersion(
            submission_id=uuid.uuid4().hex,
            model=model_name,
            files=upload.files,
            datasets=named,
            framework=model_framework or "",
            framework_version=model_framework_version or "",
            description=description or "",
            tags=texts(tags),
            properties=texts(properties),
        )
        if resource_configuration is not None:
            request.requirements.CopyFrom(resource_configuration._to_message())
        if request.ByteSize() > _EVENT_BYTES:
            what = f"{model_path} has {len(upload.files.files)} files: listing them takes {request.ByteSize()} bytes, and one event holds {_EVENT_BYTES}."
            raise UserErrorException(what, target=str(model_path), hint="pack them into fewer files")
        upload.send(workspace._objects)
        clients = workspace._clients
        try:
            answer = clients.call(clients.models.RegisterModelVersion, request, UserErrorException, timeout=_REGISTER_SECONDS)
        except TrainyardException as error:
            if error.code != "ArtifactMissing":
                raise
            # Somebody else's broken upload lies under this digest.
            upload.send(workspace._objects, again=True)
            request.submission_id = uuid.uuid4().hex
            answer = clients.call(clients.models.RegisterModelVersion, request, UserErrorException, timeout=_REGISTER_SECONDS)
        return Model._from_message(workspace, answer.version)

    @staticmethod
    def deploy(
        workspace: Workspace,
        name: str,
        models: Sequence[Model | str],
        inference_config: InferenceConfig | None = None,
        deployment_config: DeploymentConfiguration | None = None,
        deployment_target: object = None,
        overwrite: bool = False,
        show_output: bool = False,
    ) -> Webservice:
        """Models behind an address. Returns at once: wait_for_deployment follows.

        Without inference_config one SavedModel or TFLite file is served over gRPC and REST as it is; with one its script answers over
        REST, with the models in the folder AZUREML_MODEL_DIR. models: Model, "name:version", or "name@alias" for the first: whenever the
        alias moves, the endpoint follows, and has the alias as a version label. name: 3-32 characters of a-z, 0-9 and -, a letter first.
        Cores and memory that deployment_config does not bound are bounded as the models' ResourceConfiguration says.

        Raises WebserviceException for what cannot be served, and where the name is taken and overwrite is False.
        """
        from trainyard._deploying import deploy
        from trainyard._webservice import Webservice

        if deployment_target is not None:
            raise WebserviceException(
                "deployment_target has no meaning here: endpoints run on this platform.",
                code="UserError",
                target="deployment_target",
                hint="leave it out",
            )
        made = deploy(workspace, name, models, inference_config, deployment_config, overwrite=overwrite, show_progress=show_output)
        service = Webservice._from_message(workspace, made)
        if show_output:
            service.wait_for_deployment(show_output=True)
        return service

    @staticmethod
    def package(workspace: Workspace, models: Sequence[Model], *_: object, **__: object) -> None:
        """Raises UserErrorException: a model is served from its registered files, and no image is built of it."""
        raise UserErrorException(
            "No container image is built of models: an endpoint serves their registered files.",
            code="NotSupported",
            target="package",
            hint="Model.deploy(ws, name, [model]) serves it; model.download() gives its files for an image of your own",
        )

    @staticmethod
    def profile(workspace: Workspace, profile_name: str, models: Sequence[Model], *_: object, **__: object) -> None:
        """Raises UserErrorException: no service tries out what a model needs."""
        raise UserErrorException(
            "No service tries out what a model needs to be served.",
            code="NotSupported",
            target="profile",
            hint="deploy it and measure with the endpoint's /metrics; keep the result with model.update(resource_configuration=...)",
        )
