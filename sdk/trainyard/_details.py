"""A run's details in Azure's shape, and fetching of artifacts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard import _transfer
from trainyard._meter import Meter

if TYPE_CHECKING:
    from trainyard._objects import Objects


def _iso(stamp: Any) -> str:
    return str(stamp.ToDatetime(UTC).isoformat().replace("+00:00", "Z"))


def details(run: Any) -> dict[str, Any]:
    from trainyard._run import status_name
    from trainyard.job.v1.spec_pb2 import DatasetInput

    spec = run.spec
    found: dict[str, Any] = {
        "runId": run.run_id,
        "target": spec.compute_target,
        "status": status_name(run.status),
        "startTimeUtc": _iso(run.started_at) if run.HasField("started_at") else None,
        "properties": {
            "ContentSnapshotId": spec.source.snapshot.id,
            "_azureml.ComputeTargetType": "AmlCompute",
            "trainyard.epoch": str(run.epoch),
        },
        "inputDatasets": [
            {
                "dataset": {
                    "id": f"{item.dataset}:{item.version}" if item.dataset else None,
                    "name": item.dataset or None,
                    "version": item.version or None,
                },
                "consumptionDetails": {
                    "type": "RunInput",
                    "inputName": item.name,
                    "mechanism": "Download" if item.mode == DatasetInput.MODE_DOWNLOAD else "Mount",
                    "pathOnCompute": None,
                },
            }
            for item in spec.inputs
        ],
        "outputDatasets": [],
        "runDefinition": {
            "script": spec.entry_script,
            "command": "",
            "arguments": [f"DatasetConsumptionConfig:{item.input}" if item.HasField("input") else item.text for item in spec.arguments],
            "framework": "TensorFlow" if spec.environment.framework == "tensorflow" else "Python",
            "communicator": "None",
            "target": spec.compute_target,
            "dataReferences": {},
            "data": {item.name: {"dataLocation": {"dataset": {"name": item.dataset, "version": item.version}}} for item in spec.inputs},
            "maxRunDurationSeconds": spec.max_duration.seconds if spec.HasField("max_duration") else None,
            "nodeCount": 1,
            "environment": {
                "name": f"{spec.environment.framework}-{spec.environment.framework_version or 'default'}",
                "python": {"pipPackages": list(spec.environment.pip_packages)},
                "environmentVariables": dict(spec.environment.environment_variables),
            },
            "history": {"outputCollection": True, "directoriesToWatch": ["logs"], "snapshotProject": True},
        },
        "logFiles": {file.path: file.object_key for file in run.outputs.files if file.path.startswith("azureml-logs/")},
        "submittedBy": None,
    }
    if run.HasField("ended_at"):
        found["endTimeUtc"] = _iso(run.ended_at)
    if run.warnings:
        found["warnings"] = [{"source": "trainyard", "message": message} for message in run.warnings]
    if run.HasField("failure"):
        failure = run.failure
        found["error"] = {
            "error": {
                "code": failure.code,
                "message": failure.message,
                "target": failure.target,
                "details": [{"message": line} for line in failure.last_lines],
                "messageParameters": {
                    **({"rank": str(failure.rank)} if failure.HasField("rank") else {}),
                    **({"exitCode": str(failure.exit_code)} if failure.HasField("exit_code") else {}),
                },
            },
            "time": _iso(run.ended_at) if run.HasField("ended_at") else None,
        }
    return found


def fetch(objects: Objects, artifact: Any, target: Path, told: Callable[[int], None] = lambda _: None) -> None:
    """The artifact's bytes, or an error: never others. What came before a break is gone on with."""
    _transfer.receive(objects, artifact.object_key, target, size=artifact.size_bytes, sha256=artifact.sha256, told=told)


def fetch_all(objects: Objects, files: Sequence[tuple[Any, Path]]) -> None:
    """As `fetch`, many at once; shows how far it is."""
    with Meter("downloading", sum(artifact.size_bytes for artifact, _ in files)) as meter:
        _transfer.side_by_side(lambda item: fetch(objects, item[0], item[1], meter.add), files)
