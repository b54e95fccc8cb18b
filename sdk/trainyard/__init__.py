"""Trainyard's client. Names load on first use, so `from trainyard import Run` needs nothing but the standard library."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = VERSION = "0.1.0"

_HOMES = {
    "_workspace": ("Workspace",),
    "_experiment": ("Experiment",),
    "_dataset": ("Dataset", "FileDataset", "DatasetConsumptionConfig"),
    "_datastore": ("Datastore",),
    "_datapath": ("DataPath", "DataPathComputeBinding", "DataReference", "DataReferenceConfiguration"),
    "_compute": ("ComputeTarget", "AmlCompute"),
    "_estimator": ("TensorFlow", "Estimator"),
    "_run": ("Run",),
    "_model": ("Model", "ResourceConfiguration"),
    "_webservice": ("Webservice",),
    "_errors": (
        "TrainyardException",
        "UserErrorException",
        "ComputeTargetException",
        "SnapshotException",
        "ModelNotFoundException",
        "ModelPathNotFoundException",
        "ActivityFailedException",
        "WebserviceException",
        "TrainingException",
        "ExperimentExecutionException",
        "RunNotFoundException",
        "PlatformUnavailableException",
    ),
}
_NAMES = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted([*_NAMES, "VERSION"])  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    module = _NAMES.get(name)
    if module is None:
        raise AttributeError(f"module 'trainyard' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"trainyard.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES])
