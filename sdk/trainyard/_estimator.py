"""Estimators: a script, its folder and its packages."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard._dataset import DatasetConsumptionConfig, FileDataset
from trainyard._errors import TrainingException, UserErrorException

if TYPE_CHECKING:
    from trainyard._compute import ComputeTarget
    from trainyard.job.v1.spec_pb2 import RunSpec

_VERSION = re.compile(r"2\.\d+(\.\d+)?\Z")
_NEWEST = (2, 21)

# What Azure's constructor took and this one does not: option -> (values that ask for nothing, what to do instead).
_UNSUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "vm_size": ((None,), "make a pool with ComputeTarget.create and give it as compute_target"),
    "vm_priority": ((None,), "set vm_priority on the pool: AmlCompute.provisioning_configuration(vm_priority=...)"),
    "distributed_backend": ((None,), "run on one node"),
    "distributed_training": ((None,), "run on one node"),
    "custom_docker_image": ((None,), "name what the script needs in pip_packages"),
    "image_registry_details": ((None,), "name what the script needs in pip_packages"),
    "conda_packages": ((None, [], ()), "name the packages in pip_packages"),
    "conda_dependencies_file": ((None,), "name the packages in pip_packages or pip_requirements_file"),
    "environment_definition": ((None,), "use framework_version, pip_packages and environment_variables"),
    "source_directory_data_store": ((None,), "leave it out: snapshots lie in the platform's object store"),
    "shm_size": ((None,), "leave it out: the script's process uses the node's shared memory"),
    "resume_from": ((None,), "give the earlier run's files as a Dataset in script_params"),
    "user_managed": ((False, None), "leave it out: the environment is built from pip_packages"),
}


class Estimator:
    """Any script; the environment holds what pip_packages names."""

    framework = "none"

    def __init__(
        self,
        source_directory: str,
        *,
        compute_target: ComputeTarget | str | None = None,
        entry_script: str | None = None,
        script_params: Mapping[str, Any] | None = None,
        node_count: int = 1,
        process_count_per_node: int = 1,
        use_gpu: bool = False,
        use_docker: bool = True,
        pip_packages: Sequence[str] | None = None,
        pip_requirements_file: str | None = None,
        environment_variables: Mapping[str, str] | None = None,
        inputs: Sequence[DatasetConsumptionConfig] | None = None,
        max_run_duration_seconds: float | None = None,
        framework_version: str | None = None,
        **options: Any,
    ) -> None:
        for option, value in options.items():
            _refuse_unsupported(option, value)
        if node_count != 1 or process_count_per_node != 1:
            raise TrainingException(
                f"node_count={node_count} and process_count_per_node={process_count_per_node} are not supported yet.",
                target="node_count",
                hint="run one process on one node",
            )
        if not isinstance(source_directory, str | PathLike):
            raise TrainingException(f"source_directory is a folder's path, not {source_directory!r}.", target="source_directory")
        for option, found in (("script_params", script_params), ("environment_variables", environment_variables)):
            if found is not None and not isinstance(found, Mapping):
                raise TrainingException(f"{option} is a dict, not {found!r}.", target=option, hint=f"write {option}={{'name': value}}")
        if max_run_duration_seconds is not None and not (
            isinstance(max_run_duration_seconds, int | float) and isfinite(max_run_duration_seconds)
        ):
            what = f"max_run_duration_seconds is a number of seconds, not {max_run_duration_seconds!r}."
            raise TrainingException(what, target="max_run_duration_seconds")
        self.source_directory = Path(source_directory)
        self.compute_target = compute_target
        self.entry_script = _checked_script(self.source_directory, entry_script)
        self.script_params = dict(script_params or {})
        self.use_gpu = use_gpu
        self.pip_packages = [*_listed("pip_packages", pip_packages, str), *_requirements(pip_requirements_file, self.source_directory)]
        self.environment_variables = {name: str(value) for name, value in (environment_variables or {}).items()}
        self.inputs = _listed("inputs", inputs, DatasetConsumptionConfig)
        self.max_run_duration_seconds = max_run_duration_seconds
        self.framework_version = framework_version or ""

    def _to_spec(self) -> RunSpec:
        """All of the run but its source."""
        from trainyard.job.v1 import spec_pb2

        spec = spec_pb2.RunSpec(entry_script=self.entry_script, use_gpu=self.use_gpu, compute_target=self._target_name())
        spec.environment.CopyFrom(
            spec_pb2.EnvironmentSpec(
                framework=self.framework,
                framework_version=self.framework_version,
                pip_packages=self.pip_packages,
                environment_variables=self.environment_variables,
            )
        )
        arguments, used = flatten(self.script_params)
        spec.arguments.extend(
            spec_pb2.Argument(input=value) if is_input else spec_pb2.Argument(text=value) for is_input, value in arguments
        )
        by_name: dict[str, DatasetConsumptionConfig] = {}
        for item in [*used, *self.inputs]:
            if by_name.setdefault(item.name, item) != item:
                raise UserErrorException(f"Two different inputs are named {item.name!r}.", target=item.name)
        spec.inputs.extend(item._to_message() for item in by_name.values())
        if self.max_run_duration_seconds is not None:
            spec.max_duration.FromMilliseconds(int(self.max_run_duration_seconds * 1000))
        return spec

    def _target_name(self) -> str:
        if self.compute_target is None or self.compute_target == "local":
            raise TrainingException(
                "A run needs a compute_target: a ComputeTarget or the name of one; 'local' is not supported yet.",
                target="compute_target",
                hint="make a pool with ComputeTarget.create; its agents run on this machine",
            )
        name = self.compute_target if isinstance(self.compute_target, str) else getattr(self.compute_target, "name", None)
        if not isinstance(name, str):
            raise TrainingException(
                f"compute_target is a ComputeTarget or the name of one, not {self.compute_target!r}.", target="compute_target"
            )
        return name


class TensorFlow(Estimator):
    """A TensorFlow script. framework_version: none or 2.0-2.15 give TensorFlow 2.15.1, 2.16-2.21 that line; see docs/environments.md."""

    framework = "tensorflow"

    def __init__(self, source_directory: str, *, framework_version: str | None = None, **options: Any) -> None:
        if framework_version is None:
            warnings.warn("framework_version is not given: TensorFlow 2.15.1 is used. Give one to keep it.", stacklevel=2)
        else:
            _check_version(framework_version)
        super().__init__(source_directory, framework_version=framework_version, **options)

    @staticmethod
    def get_supported_versions() -> list[str]:
        return [f"2.{minor}" for minor in range(_NEWEST[1] + 1)]


def flatten(params: Mapping[str, Any]) -> tuple[list[tuple[bool, str]], list[DatasetConsumptionConfig]]:
    """argv as (is an input, text or input name), and the inputs named; '' or None makes a bare flag."""
    arguments: list[tuple[bool, str]] = []
    used: list[DatasetConsumptionConfig] = []
    for flag, value in params.items():
        arguments.append((False, str(flag)))
        if value is None or (isinstance(value, str) and value == ""):
            continue
        if isinstance(value, FileDataset):
            raise UserErrorException(
                f"{flag}: a dataset is given as an input.", target=str(flag), hint="write dataset.as_named_input('data').as_mount()"
            )
        if isinstance(value, DatasetConsumptionConfig):
            used.append(value)
            arguments.append((True, value.name))
        else:
            arguments.append((False, str(value)))
    return arguments, used


def _refuse_unsupported(option: str, value: Any) -> None:
    if option in ("worker_count", "parameter_server_count"):
        unasked, instead = (1, None), "run one process on one node"
    elif option in _UNSUPPORTED:
        unasked, instead = _UNSUPPORTED[option]
    else:
        raise TypeError(f"unexpected option {option!r}")
    if value not in unasked:
        raise TrainingException(f"{option} is not supported yet.", target=option, hint=instead)


def _listed(option: str, found: Any, kind: type) -> list[Any]:
    """A text is a sequence too, of its letters: it must not become so many packages."""
    if found is None:
        return []
    is_list = isinstance(found, Sequence) and not isinstance(found, str | bytes)
    wrong = [item for item in found if not isinstance(item, kind)] if is_list else [found]
    if wrong:
        what, instead = (
            ("texts", "['pandas', 'scipy==1.11.4']") if kind is str else ("dataset inputs", "[data.as_named_input('data').as_mount()]")
        )
        raise TrainingException(
            f"{option} is a list of {what}; {wrong[0]!r} does not fit.", target=option, hint=f"write {option}={instead}"
        )
    return list(found)


def _check_version(version: str) -> None:
    if not isinstance(version, str):
        raise TrainingException(
            f"framework_version is a text, not {version!r}: as a number 2.10 would be 2.1.",
            target="framework_version",
            hint="write it in quotes, framework_version='2.15'",
        )
    numbers = tuple(int(part) for part in version.split(".")[:2]) if _VERSION.match(version) else ()
    if not numbers or numbers > _NEWEST:
        raise TrainingException(
            f"framework_version {version!r} is not supported.",
            target="framework_version",
            hint=f"use 2.0 to {_NEWEST[0]}.{_NEWEST[1]}; code for 1.x runs with `import tensorflow.compat.v1 as tf`",
        )


def _checked_script(folder: Path, script: str | None) -> str:
    if not script:
        raise TrainingException("An estimator needs an entry_script.", target="entry_script")
    if not folder.is_dir():
        raise UserErrorException(f"The source_directory {folder} does not exist or is no folder.", target=str(folder))
    path = folder / script
    if Path(script).is_absolute() or ".." in Path(script).parts:
        raise UserErrorException(f"entry_script {script!r} must be a path inside {folder}.", target=script)
    if not path.is_file():
        there = sorted(found.name for found in folder.glob("*.py"))[:10]
        listed = ", ".join(there) or "no Python file"
        raise UserErrorException(f"The entry_script {script!r} does not exist in {folder}; there is: {listed}.", target=script)
    return Path(script).as_posix()


def _requirements(file: str | None, folder: Path) -> list[str]:
    if file is None:
        return []
    path = Path(file) if Path(file).is_file() else folder / file
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise UserErrorException(f"pip_requirements_file {file} cannot be read: {error.strerror}", target=file) from error
    wanted = [line.split(" #")[0].strip() for line in lines]
    wanted = [line for line in wanted if line and not line.startswith("#")]
    options = [line for line in wanted if line.startswith("-")]
    if options:
        raise TrainingException(f"{file}: pip's options are not supported ({options[0]}).", target=file, hint="list plain requirements")
    return wanted
