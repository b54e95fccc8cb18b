"""What a registered version says of itself, as it was when it was asked for."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from trainyard._resource_configuration import ResourceConfiguration
from trainyard._times import as_utc

if TYPE_CHECKING:
    from trainyard._dataset import FileDataset
    from trainyard._run import Run
    from trainyard._workspace import Workspace


# By the wire's number.
STAGES = {0: "", 1: "Development", 2: "Staging", 3: "Production", 4: "Archived"}


class ModelFacts:
    """`_message` is a ModelVersion as the registry gave it."""

    workspace: Workspace
    _message: Any

    @property
    def name(self) -> str:
        """The registered name."""
        return str(self._message.model)

    @property
    def version(self) -> int:
        """The version, from 1 without holes."""
        return int(self._message.version)

    @property
    def id(self) -> str:
        """`name:version`."""
        return f"{self.name}:{self.version}"

    @property
    def digest(self) -> str:
        """SHA-256 over all of its files: two versions with one digest hold the same bytes."""
        return str(self._message.digest)

    @property
    def url(self) -> str:
        """`aml://asset/<digest>`: names the bytes, whatever they are called."""
        return f"aml://asset/{self.digest}"

    @property
    def run_id(self) -> str:
        """The run that made it; empty for an uploaded one."""
        return str(self._message.lineage.run_id)

    @property
    def experiment_name(self) -> str:
        """The experiment of that run; empty for an uploaded model."""
        return str(self._message.lineage.experiment)

    @property
    def run(self) -> Run | None:
        """The run that made it, None for an uploaded model. Raises RunNotFoundException where it is gone."""
        from trainyard._experiment import Experiment
        from trainyard._run import Run

        return Run(Experiment(self.workspace, self.experiment_name), self.run_id) if self.run_id else None

    @property
    def lineage(self) -> dict[str, Any]:
        """model -> run -> dataset versions, snapshot, environment: keys run_id, experiment, epoch, datasets ("name:version"), snapshot_id, environment_id."""
        found = self._message.lineage
        return {
            "run_id": found.run_id,
            "experiment": found.experiment,
            "epoch": found.epoch,
            "datasets": list(dict.fromkeys(f"{item.name}:{item.version}" for item in found.datasets)),
            "snapshot_id": found.snapshot_id,
            "environment_id": found.environment_id,
        }

    @property
    def datasets(self) -> dict[str, list[FileDataset]]:
        """Purpose -> datasets, as named; what the run itself read stands under "". Raises UserErrorException where one is gone."""
        from trainyard._dataset import Dataset

        found: dict[str, list[FileDataset]] = {}
        for item in self._message.lineage.datasets:
            found.setdefault(item.purpose, []).append(Dataset.get_by_name(self.workspace, item.name, int(item.version)))
        return found

    @property
    def sample_input_dataset(self) -> FileDataset | None:
        """What a caller may send; None where none was named. Raises UserErrorException where it is gone."""
        return self._of_purpose("sample_input")

    @property
    def sample_output_dataset(self) -> FileDataset | None:
        """What a caller gets for the sample input; None where none was named. Raises UserErrorException where it is gone."""
        return self._of_purpose("sample_output")

    def _of_purpose(self, purpose: str) -> FileDataset | None:
        """The one that was named last."""
        from trainyard._dataset import Dataset

        named = [it for it in self._message.lineage.datasets if it.purpose == purpose]
        return Dataset.get_by_name(self.workspace, named[-1].name, int(named[-1].version)) if named else None

    @property
    def tags(self) -> dict[str, str]:
        """Names and values for people and searches; they may change."""
        return dict(self._message.tags)

    @property
    def properties(self) -> dict[str, str]:
        """Names and values; more may be added, none ever changes."""
        return dict(self._message.properties)

    @property
    def description(self) -> str:
        """Free text; empty where none was given."""
        return str(self._message.description)

    @property
    def model_framework(self) -> str:
        """One of Model.Framework, or any other text; empty where none was given."""
        return str(self._message.framework)

    @property
    def model_framework_version(self) -> str:
        """The framework's version as given at registration."""
        return str(self._message.framework_version)

    @property
    def resource_configuration(self) -> ResourceConfiguration | None:
        """What it takes to serve it; None where nothing was asked for."""
        if not self._message.HasField("requirements"):
            return None
        asked = self._message.requirements
        return ResourceConfiguration(asked.cpus or None, asked.memory_bytes / 2**30 or None, asked.gpus or None)

    @property
    def aliases(self) -> list[str]:
        """Those that point at it: `name@alias` means this version."""
        return list(self._message.aliases)

    @property
    def stage(self) -> str:
        """Development, Staging, Production or Archived; empty where nobody has said."""
        return STAGES.get(self._message.stage, "")

    @property
    def signatures(self) -> dict[str, dict[str, Any]]:
        """Of a SavedModel: name -> {"method", "inputs", "outputs"}, each input and output {"type", "shape"} by name; None = any size."""
        return {
            it.name: {"method": it.method, "inputs": _tensors(it.inputs), "outputs": _tensors(it.outputs)}
            for it in self._message.signatures
        }

    @property
    def warnings(self) -> list[str]:
        """What the registry found in its files that one should know before using it."""
        return list(self._message.warnings)

    @property
    def updated_time(self) -> datetime | None:
        """When anything about it last changed, in UTC; None: never."""
        return as_utc(self._message.updated_at) if self._message.HasField("updated_at") else None

    @property
    def created_time(self) -> datetime:
        """When it was registered, in UTC."""
        when: datetime = as_utc(self._message.registered_at)
        return when

    @property
    def created_by(self) -> dict[str, str]:
        """Who registered it: {"userName": ...}. A workspace has one user, "local"."""
        return {"userName": "local"}

    def serialize(self) -> dict[str, Any]:
        """Azure's shape of a model as plain values; times are ISO 8601 in UTC."""
        resources = self.resource_configuration
        by_purpose = {item.purpose: f"{item.name}:{item.version}" for item in self._message.lineage.datasets if item.purpose}
        return {
            "id": self.id,
            "name": self.name,
            "version": self.version,
            "description": self.description,
            "tags": self.tags,
            "properties": self.properties,
            "framework": self.model_framework,
            "frameworkVersion": self.model_framework_version,
            "createdTime": self.created_time.isoformat(),
            "createdBy": self.created_by,
            "modifiedTime": (self.updated_time or self.created_time).isoformat(),
            "aliases": self.aliases,
            "stage": self.stage,
            "experimentName": self.experiment_name,
            "runId": self.run_id,
            "datasets": self.lineage["datasets"],
            "sampleInputDatasetId": by_purpose.get("sample_input"),
            "sampleOutputDatasetId": by_purpose.get("sample_output"),
            "resourceRequirements": resources.serialize() if resources is not None else None,
            "url": self.url,
            "mimeType": "application/json",
            "unpack": False,
            "digest": self.digest,
            "signatures": self.signatures,
            "warnings": self.warnings,
            "files": {file.path: int(file.size_bytes) for file in self._message.artifacts.files},
        }


def _tensors(specs: Any) -> dict[str, dict[str, Any]]:
    return {it.name: {"type": it.type, "shape": None if it.any_rank else [None if size < 0 else size for size in it.shape]} for it in specs}
