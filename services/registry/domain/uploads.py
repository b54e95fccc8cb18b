"""A model whose files were uploaded for it, by a client or for a run that goes on: what such a request must hold. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from services.registry.domain import files
from trainyard._errors import UserErrorException
from trainyard._paths import SHA256, safe_relpath
from trainyard.event.v1.artifact_pb2 import Artifact, Failure
from trainyard.model.v1.model_pb2 import DatasetRef, Lineage, ModelVersion, RegisterModelVersion

PREFIX = "uploads/models"
MAX_DATASETS = 50


def is_upload(request: RegisterModelVersion) -> bool:
    return request.HasField("files")


def key(digest: str, path: str) -> str:
    """Where a file lies that a client uploaded: nobody's choice, so that no request can point at what is not its own."""
    return f"{PREFIX}/{digest}/{path}"


def are_own(version: ModelVersion) -> bool:
    """Whether its files were uploaded for a model, and belong to no run."""
    return all(file.object_key == key(version.digest, file.path) for file in version.artifacts.files)


def invalid(request: RegisterModelVersion) -> Failure | None:
    """What is wrong with the list of files, whatever lies in the store."""
    if request.path:
        return _wrong("The request names both uploaded files and a path of a run's files. Give one of them.", "files")
    listed = list(request.files.files)
    if not listed:
        return _wrong("The request lists no file. A model has at least one.", "files")
    for file in listed:
        if trouble := _unusable(file):
            return _wrong(f"File {file.path[:300]!r} is refused: {trouble}", file.path)
    paths = [file.path for file in listed]
    if len(set(paths)) < len(paths):
        return _wrong("A path is listed twice.", "files")
    if len({path.partition("/")[0] for path in paths}) > 1:
        return _wrong("A model is one file, or one folder: the files lie below several names.", "files")
    folders = {str(folder) for path in paths for folder in PurePosixPath(path).parents}
    if both := next((path for path in paths if path in folders), None):
        return _wrong(f"{both[:300]!r} is a file and a folder at once.", both)
    digest = files.digest(listed)
    for file in listed:
        if request.run_id:
            own, expected = _lies_below(file.object_key, f"uploads/{request.run_id}/"), f"uploads/{request.run_id}/..."
        else:
            own, expected = file.object_key == key(digest, file.path), key(digest, file.path)
        if not own:
            return _wrong(f"{file.path[:300]!r} lies under {file.object_key[:300]!r}; its key must be {expected[:400]!r}.", file.path)
    return None


def invalid_datasets(named: Iterable[DatasetRef]) -> Failure | None:
    """What is wrong with the datasets that the caller names."""
    listed = list(named)
    if len(listed) > MAX_DATASETS:
        return _wrong(f"The model names {len(listed)} datasets; at most {MAX_DATASETS} are allowed.", "datasets")
    for dataset in listed:
        if not 1 <= len(dataset.name) <= 255 or not dataset.name.isprintable() or not dataset.version or len(dataset.purpose) > 255:
            return _wrong(f"{dataset.name[:300]!r}, version {dataset.version}, is no registered dataset's version.", "datasets")
    return None


def with_datasets(lineage: Lineage, named: Iterable[DatasetRef]) -> Lineage:
    """The lineage with what the caller named beside what the run read, each once."""
    both = {(it.name, it.version, it.purpose): it for it in [*lineage.datasets, *named]}
    whole = Lineage()
    whole.CopyFrom(lineage)
    del whole.datasets[:]
    whole.datasets.extend(both.values())
    return whole


def _lies_below(object_key: str, prefix: str) -> bool:
    try:
        return safe_relpath(object_key).startswith(prefix)
    except UserErrorException:
        return False


def _unusable(file: Artifact) -> str:
    try:
        safe_relpath(file.path)
    except UserErrorException as error:
        return error.message
    return "" if SHA256.match(file.sha256) else "its sha256 is not 64 lower-case hex digits."


def _wrong(message: str, target: str) -> Failure:
    return Failure(code="UserError", message=message[:3000], target=target[:1000])
