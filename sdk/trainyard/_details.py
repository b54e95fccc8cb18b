"""A run's details in Azure's shape, and fetching of artifacts."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from trainyard import _gang, _transfer
from trainyard._attempts import attempts_of
from trainyard._errors import ActivityFailedException, from_failure
from trainyard._lineage import environment_id, framework_of
from trainyard._meter import Meter
from trainyard._stored_sources import SCHEME
from trainyard._times import as_utc

if TYPE_CHECKING:
    from trainyard._objects import Objects


def _iso(stamp: Any) -> str:
    return str(as_utc(stamp).isoformat().replace("+00:00", "Z"))


def details(view: Any, log_files: Mapping[str, str]) -> dict[str, Any]:
    """A RunView in Azure's shape. `log_files`: name -> URL. What Azure has no place for stands under "trainyard"."""
    from trainyard._run_status import status_name

    run = view.run
    found: dict[str, Any] = {
        "runId": run.run_id,
        "target": run.spec.compute_target or "local",
        "status": status_name(run.status),
        "startTimeUtc": _iso(run.started_at) if run.HasField("started_at") else None,
        "properties": _properties(run),
        "inputDatasets": [_input(item) for item in run.spec.inputs if not is_reference(item)],
        "outputDatasets": [],
        "runDefinition": _definition(run.spec),
        "logFiles": dict(log_files),
        "submittedBy": run.spec.user or None,
        "trainyard": {
            "why": run.why,
            "priority": run.spec.priority,
            "restarts": run.restarts,
            "maxRestarts": run.spec.max_restarts,
            "attempts": attempts_of(view),
        },
    }
    if run.HasField("ended_at"):
        found["endTimeUtc"] = _iso(run.ended_at)
    if run.warnings:
        found["warnings"] = [{"source": "trainyard", "message": message} for message in run.warnings]
    if run.HasField("failure"):
        found["error"] = failure(run).serialize()
    return found


def _properties(run: Any) -> dict[str, str]:
    spec = run.spec
    found = {"_azureml.ComputeTargetType": "local" if run.opened else "AmlCompute", "trainyard.epoch": str(run.epoch)}
    if not run.opened:
        found |= {"ProcessInfoFile": "azureml-logs/process_info.json", "ProcessStatusFile": "azureml-logs/process_status.json"}
    if spec.source.snapshot.id:
        found["ContentSnapshotId"] = spec.source.snapshot.id
    if spec.HasField("environment"):
        found["AzureML.DerivedImageName"] = f"trainyard/{environment_id(spec.environment)[:32]}"
    found.update(run.properties)
    for own, mlflow in (("repository_uri", "repoURL"), ("branch", "branch"), ("commit", "commit")):
        if f"azureml.git.{own}" in found:
            found.setdefault(f"mlflow.source.git.{mlflow}", found[f"azureml.git.{own}"])
    return dict(sorted(found.items()))


def is_reference(item: Any) -> bool:
    """Whether an input is a path of a datastore, given by DataReference or DataPath, and no dataset."""
    return not item.dataset and not item.steps and (item.always_folder or len(item.files) == 1 and item.files[0].url.startswith(SCHEME))


def _input(item: Any) -> dict[str, Any]:
    return {
        "dataset": {
            "id": f"{item.dataset}:{item.version}" if item.dataset else None,
            "name": item.dataset or None,
            "version": item.version or None,
        },
        "consumptionDetails": {
            "type": "RunInput",
            "inputName": item.name,
            "mechanism": _mechanism(item),
            "pathOnCompute": item.path_on_compute or None,
        },
    }


def _mechanism(item: Any) -> str:
    from trainyard.job.v1.spec_pb2 import DatasetInput

    return {DatasetInput.MODE_DOWNLOAD: "Download", DatasetInput.MODE_DIRECT: "Direct"}.get(item.mode, "Mount")


def _reference(item: Any) -> dict[str, Any]:
    """A DataReference as a run configuration holds it. Where nothing lies at its path, what was named is not known: None."""
    store, path = None, None
    if item.files:
        file = item.files[0]
        store, _, path = file.url.removeprefix(SCHEME).partition("/")
        if item.always_folder:
            path = path.removesuffix(file.path).rstrip("/")
    return {
        "dataStoreName": store,
        "mode": _mechanism(item),
        "pathOnDataStore": path,
        "pathOnCompute": item.path_on_compute or None,
        "overwrite": False,
    }


def _placeholder(name: str, references: Mapping[str, Any]) -> str:
    return f"$AZUREML_DATAREFERENCE_{name}" if name in references else f"DatasetConsumptionConfig:{name}"


_COMMUNICATORS = {"horovod": "IntelMpi", "tensorflow": "ParameterServer"}


def _definition(spec: Any) -> dict[str, Any]:
    environment, gang = spec.environment, spec.distribution
    kind = gang.WhichOneof("kind")
    references = {item.name: _reference(item) for item in spec.inputs if is_reference(item)}
    framework = f"{environment.framework or 'none'}-{environment.framework_version or 'default'}"
    return {
        "script": spec.entry_script or None,
        "command": " ".join(shlex.quote(word) for word in spec.command),
        "useAbsolutePath": False,
        "arguments": [_placeholder(item.input, references) if item.HasField("input") else item.text for item in spec.arguments],
        "sourceDirectoryDataStore": None,
        "framework": framework_of(spec),
        "communicator": _COMMUNICATORS.get(kind, "None"),
        "target": spec.compute_target or "local",
        "dataReferences": references,
        "data": {
            item.name: {"dataLocation": {"dataset": {"name": item.dataset or None, "version": item.version or None}}}
            for item in spec.inputs
            if item.name not in references
        },
        "outputData": {},
        "jobName": None,
        "maxRunDurationSeconds": spec.max_duration.seconds if spec.HasField("max_duration") else 2_592_000,
        "nodeCount": _gang.node_count(gang),
        "environment": {
            "name": environment.name or framework,
            "version": str(environment.version) if environment.version else None,
            "python": {
                "interpreterPath": environment.interpreter_path or "python",
                "userManagedDependencies": bool(environment.interpreter_path),
                "condaDependencies": environment.conda_specification or None,
                "pipPackages": list(environment.pip_packages),
            },
            "docker": {"enabled": False, "baseImage": None},
            "environmentVariables": dict(environment.environment_variables),
        },
        "history": {"outputCollection": True, "directoriesToWatch": ["logs"], "snapshotProject": True},
        "tensorflow": {
            "workerCount": gang.tensorflow.worker_count if kind == "tensorflow" else 1,
            "parameterServerCount": gang.tensorflow.parameter_server_count if kind == "tensorflow" else 1,
        },
        "mpi": {"processCountPerNode": gang.process_count_per_node or 1},
        "docker": {"useDocker": False, "shmSize": "2g", "arguments": []},
    }


def failure(run: Any) -> ActivityFailedException:
    """Why a run did not end as Completed, with all that is known of it."""
    from trainyard._run_status import status_name

    if run.HasField("failure"):
        error: Any = from_failure(run.failure, ActivityFailedException, f"Run {run.run_id} failed.", fixed=True)
    else:
        status = status_name(run.status)
        error = ActivityFailedException(f"Run {run.run_id} ended as {status}: {run.why or 'no reason was given'}", code=status)
    error.operation, error.request = run.run_id, f"{run.run_id}/{run.epoch}"
    error.location = ", ".join(run.agent_ids) or "local"
    error.time = _iso(run.ended_at) if run.HasField("ended_at") else None
    return cast("ActivityFailedException", error)


def fetch(objects: Objects, artifact: Any, target: Path, told: Callable[[int], None] = lambda _: None) -> None:
    """The artifact's bytes, or an error: never others. What came before a break is gone on with."""
    _transfer.receive(objects, artifact.object_key, target, size=artifact.size_bytes, sha256=artifact.sha256, told=told)


def fetch_all(objects: Objects, files: Sequence[tuple[Any, Path]]) -> None:
    """As `fetch`, many at once; shows how far it is."""
    with Meter("downloading", sum(artifact.size_bytes for artifact, _ in files)) as meter:
        _transfer.side_by_side(lambda item: fetch(objects, item[0], item[1], meter.add), files)
