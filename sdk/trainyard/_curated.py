"""Azure's curated environments by name: the nearest that there is here, and what the difference is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

PREFIX = "azureml-"
_TENSORFLOW = re.compile(r"azureml-tensorflow-(\d+\.\d+)(?:[-.].*)?\Z", re.IGNORECASE)
_SKLEARN = re.compile(r"azureml-(?:sklearn|scikit-learn)-\d.*\Z", re.IGNORECASE)
_NEWEST = (2, 21)
NAMES: Sequence[str] = (
    "AzureML-Minimal",
    "AzureML-Tutorial",
    "AzureML-Scikit-learn-0.20.3",
    "AzureML-TensorFlow-1.10-CPU",
    "AzureML-TensorFlow-1.12-CPU",
    "AzureML-TensorFlow-1.13-CPU",
    "AzureML-TensorFlow-1.13-GPU",
    "AzureML-TensorFlow-2.0-CPU",
    "AzureML-TensorFlow-2.0-GPU",
    "AzureML-tensorflow-2.4-ubuntu18.04-py37-cuda11-gpu",
    "AzureML-tensorflow-2.6-ubuntu20.04-py38-cuda11-gpu",
    "AzureML-tensorflow-2.7-ubuntu20.04-py38-cuda11-gpu",
    "AzureML-tensorflow-2.11-cuda11",
)
"""Those that examples name; others of the same form are taken too."""


@dataclass(frozen=True)
class Curated:
    framework: str
    framework_version: str
    packages: tuple[str, ...]
    told: str
    """What the name stands for here, in words."""


def is_curated(name: str) -> bool:
    return name.lower().startswith(PREFIX)


def find(name: str) -> Curated | None:
    """None for a name that nothing here is near to."""
    lowered = name.lower()
    if lowered == "azureml-minimal":
        return Curated("none", "", (), "Python 3.11 without packages")
    if lowered == "azureml-tutorial":
        packages: tuple[str, ...] = ("matplotlib", "numpy", "pandas", "scikit-learn", "scipy", "tqdm")
        return Curated("none", "", packages, f"Python 3.11 with today's {', '.join(packages)}")
    if _SKLEARN.match(name):
        packages = ("joblib", "numpy", "pandas", "scikit-learn", "scipy")
        return Curated("none", "", packages, f"Python 3.11 with today's {', '.join(packages)}")
    match = _TENSORFLOW.match(name)
    version = tuple(map(int, match[1].split("."))) if match else (0, 0)
    if not (version[0] == 1 and version[1] <= 15) and not (2, 0) <= version <= _NEWEST:
        return None
    return Curated("tensorflow", f"{version[0]}.{version[1]}", (), f"Python 3.11 with {_served(version)}")


def _served(version: tuple[int, ...]) -> str:
    if version[0] == 1:
        return "TensorFlow 2.15.1 serving version 1's interface as `tensorflow`"
    return "TensorFlow 2.15.1" if version[1] <= 15 else f"TensorFlow {version[0]}.{version[1]}"
