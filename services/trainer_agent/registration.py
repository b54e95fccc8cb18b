"""A script's request to register a model, as the registry wants it. The script is hostile until it has shown otherwise: every value that
came over its socket is looked at here, and what is wrong raises UserErrorException, ValueError, TypeError or LookupError."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from trainyard._errors import UserErrorException
from trainyard.event.v1.artifact_pb2 import ArtifactSet
from trainyard.model.v1.model_pb2 import DatasetRef, RegisterModelVersion, Requirements


def registration(run_id: str, request: Mapping[str, Any], files: ArtifactSet, inputs: Iterable[Any]) -> RegisterModelVersion:
    """`inputs` are the run's DatasetInputs: a script may name a dataset by the input that it came as."""
    asked = RegisterModelVersion(
        submission_id=uuid.uuid4().hex,
        model=str(request["model"]),
        run_id=run_id,
        framework=str(request.get("framework") or ""),
        framework_version=str(request.get("framework_version") or ""),
        description=str(request.get("description") or ""),
        tags=texts(request.get("tags") or {}),
        properties=texts(request.get("properties") or {}),
        files=files,
        datasets=_datasets(request.get("datasets") or [], inputs),
    )
    wishes = (float(request.get("cpus") or 0), float(request.get("memory_in_gb") or 0), int(request.get("gpus") or 0))
    if any(wishes):
        asked.requirements.CopyFrom(Requirements(cpus=wishes[0], memory_bytes=int(wishes[1] * 2**30), gpus=wishes[2]))
    return asked


def texts(labels: Any) -> dict[str, str]:
    if not isinstance(labels, dict):
        raise UserErrorException("Tags and properties are names with texts.")
    return {str(name): str(value) for name, value in labels.items()}


def _datasets(named: Any, inputs: Iterable[Any]) -> list[DatasetRef]:
    if not isinstance(named, list):
        raise UserErrorException("datasets is a list.", target="datasets")
    by_name = {item.name: item for item in inputs}
    return [_dataset(it, by_name) for it in named]


def _dataset(named: Any, inputs: Mapping[str, Any]) -> DatasetRef:
    purpose = str(named.get("purpose") or "")
    if "input" not in named:
        return DatasetRef(name=str(named["name"]), version=int(named["version"]), purpose=purpose)
    item = inputs.get(str(named["input"]))
    if item is None or not item.dataset:
        what = f"The input {str(named['input'])[:200]!r} is no registered dataset, and a model's lineage names registered versions."
        raise UserErrorException(f"{what} Register it, and submit the run with what register() returns.", target="datasets")
    return DatasetRef(name=item.dataset, version=item.version, purpose=purpose)
