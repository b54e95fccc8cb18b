"""Estimators: a script, its folder and its packages, in one constructor."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard._arguments import flatten, is_input
from trainyard._conda import CondaDependencies
from trainyard._distributed import MpiConfiguration, TensorflowConfiguration
from trainyard._environment import Environment, of_framework, requirements
from trainyard._errors import TrainingException, UserErrorException
from trainyard._run_configuration import RunConfiguration, as_messages
from trainyard._script_source import checked_folder, checked_script

if TYPE_CHECKING:
    from trainyard._compute import ComputeTarget
    from trainyard._resource_configuration import ResourceConfiguration
    from trainyard.job.v1.spec_pb2 import RunSpec

_VERSION = re.compile(r"(\d+)\.(\d+)(\.\d+)?\Z")
_NEWEST_1, _NEWEST_2 = 15, 21
_SHM = re.compile(r"\d+[bkmg]?\Z", re.IGNORECASE)
# Asked for in Azure's words and not to be had: option -> what to do instead.
_REFUSED = {
    "vm_size": "make a pool with ComputeTarget.create and give it as compute_target",
    "vm_priority": "set vm_priority on the pool: AmlCompute.provisioning_configuration(vm_priority=...)",
    "custom_docker_image": "scripts run as processes, not in containers: name what yours needs in pip_packages or conda_packages",
    "image_registry_details": "scripts run as processes, not in containers: name what yours needs in pip_packages or conda_packages",
}


class Estimator:
    """Any script; its environment holds what is named here and nothing else.

    `script_params`: flag -> value in order; '' makes a bare flag; values may be numbers, dataset inputs and references to data.
    `environment_definition` takes the place of all other options of the environment; giving both is an error. `compute_target` None or
    "local" is this machine. `max_run_duration_seconds` ends the script. `resume_from`: a run, whose last checkpoint the script finds in its
    checkpoint folder; or an earlier run's outputs as a DataPath, which are mounted and named by `--resume-from <path>`.
    `distributed_training` on `node_count` nodes: MpiConfiguration or Mpi, TensorflowConfiguration or ParameterServer; `distributed_backend`
    'mpi' or 'ps' is its older spelling. The last options, from `resources` on, are RunConfiguration's.
    Raises TrainingException or UserErrorException with the parameter at fault.
    """

    framework = "none"

    def __init__(
        self,
        source_directory: str | Path,
        *,
        compute_target: ComputeTarget | str | None = None,
        vm_size: str | None = None,
        vm_priority: str | None = None,
        entry_script: str | None = None,
        script_params: Mapping[str, Any] | None = None,
        node_count: int = 1,
        process_count_per_node: int = 1,
        worker_count: int = 1,
        parameter_server_count: int = 1,
        distributed_backend: str | None = None,
        distributed_training: Any = None,
        use_gpu: bool = False,
        use_docker: bool = True,
        custom_docker_image: str | None = None,
        image_registry_details: Any = None,
        user_managed: bool = False,
        conda_packages: Sequence[str] | None = None,
        pip_packages: Sequence[str] | None = None,
        conda_dependencies_file: str | None = None,
        pip_requirements_file: str | None = None,
        environment_variables: Mapping[str, str] | None = None,
        environment_definition: Environment | None = None,
        inputs: Sequence[Any] | None = None,
        source_directory_data_store: Any = None,
        shm_size: str | None = None,
        resume_from: Any = None,
        max_run_duration_seconds: float | None = None,
        framework_version: str | None = None,
        resources: ResourceConfiguration | None = None,
        priority: int | None = None,
        user: str | None = None,
        max_restarts: int | None = None,
        checkpoint_folder: str | None = None,
        labels: Sequence[str] | Mapping[str, str] | None = None,
        spread: bool | None = None,
    ) -> None:
        self._look_at_version(framework_version, environment_definition)
        asked = {
            "vm_size": vm_size,
            "vm_priority": vm_priority,
            "custom_docker_image": custom_docker_image,
            "image_registry_details": image_registry_details,
        }
        for option, value in asked.items():
            if value is not None:
                raise TrainingException(f"{option} cannot be given.", target=option, hint=_REFUSED[option])
        _tell_without_effect(shm_size, source_directory_data_store)
        for option, found in (("script_params", script_params), ("environment_variables", environment_variables)):
            if found is not None and not isinstance(found, Mapping):
                raise TrainingException(f"{option} is a dict, not {found!r}.", target=option, hint=f"write {option}={{'name': value}}")
        if max_run_duration_seconds is not None and not (
            isinstance(max_run_duration_seconds, int | float) and isfinite(max_run_duration_seconds)
        ):
            what = f"max_run_duration_seconds is a number of seconds, not {max_run_duration_seconds!r}."
            raise TrainingException(what, target="max_run_duration_seconds")
        self.source_directory = checked_folder(source_directory)
        self.entry_script = checked_script(self.source_directory, entry_script, "entry_script")
        self.script_params = dict(script_params or {})
        self.use_gpu = use_gpu
        self.inputs = _listed("inputs", inputs, is_input)
        self.resume_from = resume_from
        self.framework_version = framework_version or ""
        self._distributed = _configuration(distributed_training, distributed_backend)
        self._counts = {
            "process_count_per_node": process_count_per_node,
            "worker_count": worker_count,
            "parameter_server_count": parameter_server_count,
        }
        self.run_config = RunConfiguration(framework="TensorFlow" if self.framework == "tensorflow" else "Python")
        self.run_config.target = "local" if compute_target is None else compute_target
        self.run_config.node_count = node_count
        self.run_config.max_run_duration_seconds = max_run_duration_seconds
        self.run_config._take(
            resources=resources, priority=priority, user=user, max_restarts=max_restarts,
            checkpoint_folder=checkpoint_folder, labels=labels, spread=spread,
        )  # fmt: skip
        packages: dict[str, Any] = {
            "conda_packages": conda_packages,
            "pip_packages": pip_packages,
            "conda_dependencies_file": conda_dependencies_file,
            "pip_requirements_file": pip_requirements_file,
        }
        if environment_definition is not None:
            combined = {**packages, "environment_variables": environment_variables, "user_managed": user_managed, "use_gpu": use_gpu}
            _refuse_combination(combined)
            if framework_version is not None:
                warnings.warn("framework_version has no effect: environment_definition is given.", stacklevel=2)
            self.run_config.environment = environment_definition
        else:
            dependencies = self._dependencies(**packages)
            environment = of_framework(self.framework, self.framework_version, dependencies, environment_variables or {})
            environment.python.user_managed_dependencies = user_managed
            self.run_config.environment = environment

    @property
    def compute_target(self) -> ComputeTarget | str:
        """Where it will run: a ComputeTarget or its name; "local" is a pool of one node on this machine."""
        return self.run_config.target

    @property
    def conda_dependencies(self) -> CondaDependencies | None:
        """What the script may import, whichever way it was named; None where the user looks after the environment."""
        return self.run_config.environment.python.conda_dependencies

    @property
    def pip_packages(self) -> list[str]:
        """All of them, those of files included."""
        found = self.conda_dependencies
        return [] if found is None else list(found.pip_packages)

    def _look_at_version(self, version: str | None, environment: Environment | None) -> None:
        """For estimators of a framework, which have no constructor of their own: all options of all are told in one place."""

    def _dependencies(
        self,
        conda_packages: Sequence[str] | None,
        pip_packages: Sequence[str] | None,
        conda_dependencies_file: str | None,
        pip_requirements_file: str | None,
    ) -> CondaDependencies:
        """The file first, what is named beside it on top."""
        made = CondaDependencies(self._file(conda_dependencies_file) if conda_dependencies_file is not None else None)
        for package in _listed("conda_packages", conda_packages, _is_text):
            made.add_conda_package(package)
        listed = requirements(self._file(pip_requirements_file)) if pip_requirements_file is not None else []
        for package in [*listed, *_listed("pip_packages", pip_packages, _is_text)]:
            made.add_pip_package(package)
        return made

    def _file(self, name: str) -> Path:
        """As given, or below the source folder."""
        return Path(name) if Path(name).is_file() else self.source_directory / name

    def _to_spec(self) -> RunSpec:
        """All of the run but its source."""
        given = flatten(self.script_params)
        for item in self.inputs:
            given.add_input(item, str(getattr(item, "data_reference_name", None) or getattr(item, "name", "input")))
        if self.resume_from is not None:
            given.add_resume(self.resume_from)
        spec = self.run_config._to_spec(given, use_gpu=self.use_gpu, distributed=self._distributed, counts=self._counts)
        spec.entry_script = self.entry_script
        spec.arguments.extend(as_messages(given.resolved()))
        return spec


class TensorFlow(Estimator):
    """A TensorFlow script. framework_version: 1.x gives version 1's interface, none or 2.0-2.15 TensorFlow 2.15.1, 2.16-2.21 that line.

    docs/environments.md has a table of what each version really gives.
    """

    framework = "tensorflow"

    def _look_at_version(self, version: str | None, environment: Environment | None) -> None:
        if version is not None:
            _check_version(version)
        elif environment is None:
            warnings.warn("framework_version is not given: TensorFlow 2.15.1 is used. Give one to keep it.", stacklevel=3)

    @staticmethod
    def get_supported_versions() -> list[str]:
        """Oldest first."""
        return [f"1.{minor}" for minor in range(_NEWEST_1 + 1)] + [f"2.{minor}" for minor in range(_NEWEST_2 + 1)]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _listed(option: str, found: Any, fits: Callable[[Any], bool]) -> list[Any]:
    """A text is a sequence too, of its letters: it must not become so many packages."""
    if found is None:
        return []
    is_list = isinstance(found, Sequence) and not isinstance(found, str | bytes)
    wrong = [item for item in found if not fits(item)] if is_list else [found]
    if wrong:
        what, instead = (
            ("texts", "['pandas', 'scipy==1.11.4']") if fits is _is_text else ("dataset inputs", "[data.as_named_input('data').as_mount()]")
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
    match = _VERSION.match(version)
    major, minor = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (major == 1 and minor <= _NEWEST_1) and not (major == 2 and minor <= _NEWEST_2):
        raise TrainingException(
            f"framework_version {version!r} is not supported.",
            target="framework_version",
            hint=f"use 1.0 to 1.{_NEWEST_1} (version 1's interface) or 2.0 to 2.{_NEWEST_2}; see docs/environments.md",
        )


def _refuse_combination(options: Mapping[str, Any]) -> None:
    given = [name for name, value in options.items() if value]
    if given:
        raise TrainingException(
            f"environment_definition is given together with {', '.join(given)}.",
            target=given[0],
            hint="put them into the Environment: it takes the place of all of them",
        )


def _configuration(job: Any, backend: str | None) -> Any:
    """distributed_training, or what the first estimators' word for it means."""
    if backend not in (None, "mpi", "ps"):
        raise TrainingException(f"distributed_backend is 'mpi' or 'ps', not {backend!r}.", target="distributed_backend")
    if job is not None and backend is not None:
        raise TrainingException("distributed_backend is given together with distributed_training.", target="distributed_backend")
    return {"mpi": MpiConfiguration(), "ps": TensorflowConfiguration(), None: job}[backend]


def _tell_without_effect(shm_size: str | None, source_directory_data_store: Any) -> None:
    if shm_size is not None:
        if not _SHM.match(str(shm_size)):
            raise UserErrorException(f"shm_size is a number with b, k, m or g, like '2g'; {shm_size!r} is none.", target="shm_size")
        warnings.warn("shm_size has no effect: the script's process uses the node's shared memory, all of it.", stacklevel=3)
    if source_directory_data_store is not None:
        warnings.warn("source_directory_data_store has no effect: snapshots lie in the platform's object store.", stacklevel=3)
