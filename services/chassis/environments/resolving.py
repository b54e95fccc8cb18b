"""From what a run asks for to what can be built on this node, and what must be told about the difference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from packaging.requirements import Requirement

from services.chassis.environments import conda
from services.chassis.environments.definition import (
    Definition,
    definition,
    is_served_by_default_line,
    is_tensorflow_1,
    requirement,
)
from services.chassis.environments.horovod import VERSION as HOROVOD
from services.chassis.environments.horovod import stands_in_for

# Azure's bundle for its own nodes. It would bring the retired SDK, which cannot speak to this platform, in front of ours.
_OF_AZURES_NODES = "azureml-defaults"
_TENSORFLOW = ("tensorflow", "tensorflow-cpu", "tensorflow-gpu")


@dataclass(frozen=True)
class Resolved:
    definition: Definition
    tensorflow_1: bool
    """The script's `tensorflow` is version 1's interface."""
    warnings: tuple[str, ...]


def resolve(asked: Any, *, horovod: bool = False) -> Resolved:
    """`asked` is a trainyard.job.v1.EnvironmentSpec without interpreter_path; `horovod`: its run is a ring. Raises BuildError with code "UserError"."""
    warnings: list[str] = []
    packages: list[str] = []
    channels: tuple[str, ...] = ()
    pip = list(asked.pip_packages)
    if asked.conda_specification:
        specification = conda.read(asked.conda_specification)
        _tell_python(specification.python, warnings)
        pip += specification.pip
        packages, channels = list(specification.packages), specification.channels
        if packages and conda.tool() is None:
            mapped = conda.as_requirements(packages)
            warnings.append(
                f"this node has no conda: {', '.join(packages)} of the conda specification came from the package index as {', '.join(mapped)}"
            )
            pip, packages = [*mapped, *pip], []
    framework, version, pip = _adapted(asked.framework, asked.framework_version, pip, warnings)
    made = definition(framework, version, pip, horovod=horovod)
    warnings += [
        f"{text} was replaced by Horovod {HOROVOD}, compiled by the platform for this TensorFlow; see docs/horovod.md"
        for text in pip
        if stands_in_for(text)
    ]
    if packages:
        python = f"python={conda.node_python()}"
        made = replace(made, conda=tuple(sorted({*packages, python, "pip"})), channels=channels)
    return Resolved(made, framework == "tensorflow" and is_tensorflow_1(version), tuple(warnings))


def _tell_python(asked: str, warnings: list[str]) -> None:
    have = conda.node_python()
    if asked and not (asked == have or asked.startswith(f"{have}.")):
        warnings.append(f"Python {asked} was asked for; scripts run on Python {have} here")


def _adapted(framework: str, version: str, pip: list[str], warnings: list[str]) -> tuple[str, str, list[str]]:
    """(framework, version, packages). A pin to a TensorFlow whose releases cannot be had for this Python is served as its framework_version would be."""
    kept = []
    for text in pip:
        parsed = Requirement(requirement(text))
        if parsed.name == _OF_AZURES_NODES:
            warnings.append(f"{text} was left out: the platform gives scripts azureml by itself")
            continue
        pins = [pin.version.removesuffix(".*") for pin in parsed.specifier if pin.operator == "=="]
        of_old = bool(pins) and is_served_by_default_line(pins[0])
        if parsed.name not in _TENSORFLOW or not (of_old or parsed.name == "tensorflow-gpu"):
            kept.append(text)
            continue
        if framework != "tensorflow":
            framework, version = "tensorflow", pins[0] if pins else ""
        instead = f"framework_version {version}" if version else "the default framework_version"
        warnings.append(
            f"{text} cannot be had for Python {conda.node_python()}: {instead} of TensorFlow took its place, see docs/environments.md"
        )
    return framework, version, kept
