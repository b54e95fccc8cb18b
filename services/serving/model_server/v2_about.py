"""What the Open Inference Protocol and Triton's extensions tell of a server and its models, as plain dictionaries.

REST sends them as they are; gRPC makes messages of them, which have the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from services.serving.model_server import v2_types
from services.serving.model_server.errors import NOT_FOUND, ServeError, invalid
from services.serving.model_server.served import Models, State, Statistics, Timing, VersionStatus
from services.serving.model_server.signatures import Tensor
from services.serving.model_server.v2_infer import borrowed, chosen, known_versions, version_number

NAME = "trainyard"
VERSION = "1"  # of what is described here
# What is served beyond the protocol itself; a client asks only for what stands here.
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "parameters", "statistics")
_STATES = {
    State.START: "LOADING",
    State.LOADING: "LOADING",
    State.AVAILABLE: "READY",
    State.UNLOADING: "UNLOADING",
    State.END: "UNAVAILABLE",
}
_FILES = {"tensorflow_savedmodel": "model.savedmodel", "tflite": "model.tflite"}


def server() -> dict[str, Any]:
    return {"name": NAME, "version": VERSION, "extensions": list(EXTENSIONS)}


def model(models: Models, name: str, version: str) -> dict[str, Any]:
    """Metadata. Raises ServeError."""
    with borrowed(models, name, version) as served:
        signature = chosen(served)
        return {
            "name": served.name,
            "versions": _ready_versions(models, name),
            "platform": served.platform,
            "inputs": _tensors(signature.inputs),
            "outputs": _tensors(signature.outputs),
        }


def _ready_versions(models: Models, name: str) -> list[str]:
    return [str(version) for version in sorted(it.version for it in known_versions(models, name) if it.state == State.AVAILABLE)]


def _tensors(tensors: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    return [{"name": alias, "datatype": v2_types.of(tensor, alias).name, "shape": _shape(tensor)} for alias, tensor in tensors.items()]


def _shape(tensor: Tensor) -> list[int]:
    """The protocol has no word for an unknown number of dimensions; [-1] is what says the least."""
    return [-1] if tensor.shape is None else list(tensor.shape)


def config(models: Models, name: str, version: str) -> dict[str, Any]:
    """Triton's model configuration. Its batch dimension stays one of the tensor's own: any size is taken, so no largest is named."""
    with borrowed(models, name, version) as served:
        signature = chosen(served)
        return {
            "name": served.name,
            "platform": served.platform,
            "backend": "tensorflow",
            "version_policy": {"specific": {"versions": [int(it) for it in _ready_versions(models, name)]}},
            "max_batch_size": 0,
            "input": _config_tensors(signature.inputs),
            "output": _config_tensors(signature.outputs),
            "instance_group": [{"name": f"{served.name}_0", "kind": "KIND_CPU", "count": 1, "gpus": []}],
            "default_model_filename": _FILES.get(served.platform, ""),
            "model_transaction_policy": {"decoupled": False},
        }


def _config_tensors(tensors: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    return [
        {"name": alias, "data_type": v2_types.of(tensor, alias).config_name, "dims": _shape(tensor)} for alias, tensor in tensors.items()
    ]


def statistics(models: Models, name: str = "", version: str = "") -> dict[str, Any]:
    """Of one version, of all of a model, or of all models."""
    number = version_number(version)
    if not name:
        if number is not None:
            raise invalid("a version is asked for and no model")
        return {"model_stats": [_statistics(it, found) for it in sorted(models.names()) for found in _loaded(models, it)]}
    try:
        found = models.statistics(name, number)
    except ServeError as error:
        if error.code != NOT_FOUND:
            raise
        what = "" if number is None else f" version {number}"
        raise ServeError(NOT_FOUND, f"requested model '{name}'{what} is not available") from error
    return {"model_stats": [_statistics(name, it) for it in found]}


def _loaded(models: Models, name: str) -> Iterable[Statistics]:
    try:
        return models.statistics(name)
    except ServeError:  # gone, or not yet there
        return ()


def _statistics(name: str, of: Statistics) -> dict[str, Any]:
    """Copying in and out is part of the computation here and has no clock of its own: it counts, and stands at 0 ns."""
    copied = Timing(of.compute.count, 0)
    return {
        "name": name,
        "version": str(of.version),
        "last_inference": of.last_inference_ms,
        "inference_count": of.inferences,
        "execution_count": of.executions,
        "inference_stats": {
            "success": _timing(of.success),
            "fail": _timing(of.fail),
            "queue": _timing(of.queue),
            "compute_input": _timing(copied),
            "compute_infer": _timing(of.compute),
            "compute_output": _timing(copied),
            "cache_hit": _timing(Timing()),
            "cache_miss": _timing(Timing()),
        },
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _timing(Timing(timing.count, 0)),
                "compute_infer": _timing(timing),
                "compute_output": _timing(Timing(timing.count, 0)),
            }
            for size, timing in sorted(of.batches.items())
        ],
    }


def _timing(timing: Timing) -> dict[str, int]:
    return {"count": timing.count, "ns": timing.nanoseconds}


def index(models: Models, *, ready: bool) -> list[dict[str, str]]:
    """Every version of every model; a model of which none was ever loaded is there by its name."""
    return [entry for name in sorted(models.names()) for entry in _entries(models, name, ready=ready)]


def _entries(models: Models, name: str, *, ready: bool) -> list[dict[str, str]]:
    versions = known_versions(models, name)
    if not versions:
        return [] if ready else [{"name": name}]
    return [_entry(name, it) for it in reversed(versions) if it.state == State.AVAILABLE or not ready]


def _entry(name: str, status: VersionStatus) -> dict[str, str]:
    reason = status.message or ("unloaded" if status.state == State.END else "")
    return {"name": name, "version": str(status.version), "state": _STATES[status.state], "reason": reason}


def load(models: Models, name: str, parameters: Iterable[str]) -> None:
    for parameter in parameters:
        raise invalid(
            f"failed to load '{name}', the parameter '{parameter[:100]}' is not taken: a model is served as it lies in its folder"
        )
    try:
        models.load(name)
    except ServeError as error:
        raise ServeError(error.code, f"failed to load '{name}', {error.message}") from error


def unload(models: Models, name: str) -> None:
    """The parameter unload_dependents is nothing here: no model depends on another."""
    try:
        models.unload(name)
    except ServeError as error:
        raise ServeError(error.code, f"failed to unload '{name}', {error.message}") from error
