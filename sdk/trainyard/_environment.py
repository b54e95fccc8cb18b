"""Environments: what a script may import, named and versioned."""

from __future__ import annotations

import copy
import sys
import uuid
import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard import _curated
from trainyard._conda import CondaDependencies, name_of
from trainyard._errors import TrainingException, UserErrorException
from trainyard._services_of import checked_name, clients_of

if TYPE_CHECKING:
    from trainyard._workspace import Workspace
    from trainyard.job.v1.spec_pb2 import EnvironmentSpec

DEFAULT_CPU_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04"
DEFAULT_GPU_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-cuda11.1-cudnn8-ubuntu20.04"
_DEFAULT_INTERPRETER = "python"


class PythonSection:
    """`conda_dependencies` are what is built; with `user_managed_dependencies` the Python at `interpreter_path` is used as it is.

    `conda_dependencies_file`, where given, is read at submission and wins over `conda_dependencies`. `interpreter_path` is a path on the
    node, or a name on its PATH; "python" on this machine is the Python that submits.
    """

    def __init__(self) -> None:
        self.user_managed_dependencies = False
        self.interpreter_path = _DEFAULT_INTERPRETER
        self.conda_dependencies: CondaDependencies | None = CondaDependencies()
        self.conda_dependencies_file: str | PathLike[str] | None = None
        self.base_conda_environment: str | None = None


class DockerSection:
    """Taken from Azure's code and told about where it cannot be had: scripts run as processes of the node, not in containers."""

    def __init__(self) -> None:
        self.enabled = False
        self.base_image: str | None = DEFAULT_CPU_IMAGE
        self.base_dockerfile: str | None = None
        self.shm_size: str | None = None
        self.arguments: list[str] = []


class Environment:
    """`Environment(name)` is empty and this client's own until it is registered; versions are made by `register` and never change."""

    def __init__(self, name: str) -> None:
        if not checked_name("name", name) or len(name) > 255:
            raise UserErrorException("An environment's name has 1 to 255 characters.", target="name")
        self.name = name
        self.version: str | None = None
        self.python = PythonSection()
        self.docker = DockerSection()
        self.environment_variables: dict[str, str] = {}
        self.inferencing_stack_version: str | None = None
        self._is_named = True
        self._framework = "none"
        self._framework_version = ""

    def __repr__(self) -> str:
        return f"Environment(name={self.name!r}, version={self.version!r})"

    # -- from files

    @staticmethod
    def from_conda_specification(name: str, file_path: str | PathLike[str]) -> Environment:
        """From an environment.yml. Raises UserErrorException for a file that is none."""
        made = Environment(name)
        made.python.conda_dependencies = CondaDependencies(file_path)
        return made

    @staticmethod
    def from_pip_requirements(name: str, file_path: str | PathLike[str], pip_version: str | None = None) -> Environment:
        """From a requirements.txt of plain requirements. `pip_version` has no effect: uv installs."""
        made = Environment(name)
        made.python.conda_dependencies = CondaDependencies.create(pip_packages=requirements(Path(file_path)))
        return made

    # -- named and versioned

    @staticmethod
    def get(workspace: Workspace, name: str, version: str | int | None = None) -> Environment:
        """A registered one, the latest where no version is given; or a curated one by Azure's name, with a warning that says what it is here.

        Raises UserErrorException that names those that exist.
        """
        if isinstance(name, str) and _curated.is_curated(name):
            return _from_curated(name)
        clients = clients_of(workspace)
        from trainyard.environment.v1 import environment_pb2

        request = environment_pb2.GetEnvironmentRequest(name=checked_name("name", name), version=_number(version))
        return _from_message(clients.call(clients.environments.GetEnvironment, request).environment)

    @staticmethod
    def list(workspace: Workspace) -> dict[str, Environment]:
        """Name -> the latest version of each registered environment, then the curated names."""
        from trainyard.environment.v1 import environment_pb2

        clients = clients_of(workspace)
        answer = clients.call(clients.environments.ListEnvironments, environment_pb2.ListEnvironmentsRequest())
        found = {message.name: _from_message(message) for message in answer.environments}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {**found, **{name: _from_curated(name) for name in _curated.NAMES}}

    def register(self, workspace: Workspace) -> Environment:
        """The version that holds this definition: a new one, or the latest where nothing has changed since. Raises UserErrorException."""
        from trainyard.environment.v1 import environment_pb2

        definition = self._to_message()
        definition.name, definition.version = "", 0
        request = environment_pb2.RegisterEnvironment(submission_id=uuid.uuid4().hex, name=self.name, definition=definition)
        clients = clients_of(workspace)
        made = clients.call(clients.environments.RegisterEnvironment, request).environment
        self.version = str(made.version)
        return _from_message(made)

    def clone(self, new_name: str) -> Environment:
        """A copy to change and register under its own name; it has no version yet."""
        made = copy.deepcopy(self)
        made.name, made.version, made._is_named = new_name, None, True
        return made

    # -- for a run

    def _to_message(self, *, local: bool = False) -> EnvironmentSpec:
        """`local`: the run is on this machine. Raises TrainingException for what cannot be had."""
        from trainyard.job.v1.spec_pb2 import EnvironmentSpec

        self._tell_about_containers()
        spec = EnvironmentSpec(
            framework=self._framework,
            framework_version=self._framework_version,
            environment_variables={str(name): str(value) for name, value in self.environment_variables.items()},
            name=self.name if self._is_named else "",
            version=_number(self.version),
        )
        if self.python.user_managed_dependencies:
            path = self.python.interpreter_path
            spec.interpreter_path = sys.executable if local and path == _DEFAULT_INTERPRETER else path
            spec.framework, spec.framework_version = "none", ""
            return spec
        file = self.python.conda_dependencies_file
        wanted = CondaDependencies(file) if file is not None else self.python.conda_dependencies
        if wanted is None:
            return spec
        options = [*wanted.pip_options]
        if options:
            raise TrainingException(
                f"The environment {self.name!r} gives pip the option {options[0]!r}: a run does not change where packages come from.",
                target=options[0],
                hint="leave it out, and set the node's index by PIP_INDEX_URL or UV_DEFAULT_INDEX",
            )
        if wanted._python or any(name_of(package) != "python" for package in wanted.conda_packages):
            spec.conda_specification = wanted.serialize_to_string()
        else:
            spec.pip_packages.extend(wanted.pip_packages)
        return spec

    def _tell_about_containers(self) -> None:
        docker = self.docker
        if docker.base_dockerfile:
            raise TrainingException(
                f"The environment {self.name!r} has a base_dockerfile; scripts run as processes of the node, not in containers.",
                target="base_dockerfile",
                hint="name what the script needs in conda_dependencies",
            )
        if docker.base_image and docker.base_image not in (DEFAULT_CPU_IMAGE, DEFAULT_GPU_IMAGE) and not self._is_curated:
            warnings.warn(
                f"Environment {self.name!r}: base_image {docker.base_image!r} has no effect; scripts run as processes of the node.",
                stacklevel=4,
            )

    @property
    def _is_curated(self) -> bool:
        return _curated.is_curated(self.name)


def requirements(path: Path) -> list[str]:
    """The lines of a requirements.txt. Raises UserErrorException where it cannot be read, TrainingException for pip's options."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise UserErrorException(f"The requirements file {path} cannot be read: {error.strerror}.", target=str(path)) from error
    wanted = [line.split(" #")[0].strip() for line in lines]
    wanted = [line for line in wanted if line and not line.startswith("#")]
    for line in wanted:
        if line.startswith("-"):
            raise TrainingException(f"{path}: pip's options are not taken ({line}).", target=str(path), hint="list plain requirements")
    return wanted


def _number(version: str | int | None) -> int:
    """0: none, or the latest."""
    if version is None or str(version).lower() in ("", "latest", "autosave"):
        return 0
    if not str(version).isdigit():
        raise UserErrorException(f"An environment's version is a whole number, not {version!r}.", target=str(version))
    return int(version)


def _from_curated(name: str) -> Environment:
    found = _curated.find(name)
    if found is None:
        there = ", ".join(_curated.NAMES)
        raise UserErrorException(f"There is no curated environment near {name!r} here; there is: {there}.", target=name)
    warnings.warn(
        f"Curated environment {name} is here: {found.told}. It is built from the package index, not pulled as an image.", stacklevel=3
    )
    made = Environment(name)
    made.version = "1"
    made._framework, made._framework_version = found.framework, found.framework_version
    made.python.conda_dependencies = CondaDependencies.create(pip_packages=found.packages)
    return made


def _from_message(message: Any) -> Environment:
    spec = message.definition
    made = Environment(message.name)
    made.version = str(message.version)
    made._framework, made._framework_version = spec.framework or "none", spec.framework_version
    made.environment_variables = dict(spec.environment_variables)
    made.python.user_managed_dependencies = bool(spec.interpreter_path)
    made.python.interpreter_path = spec.interpreter_path or _DEFAULT_INTERPRETER
    made.python.conda_dependencies = _dependencies(spec)
    return made


def _dependencies(spec: Any) -> CondaDependencies:
    if not spec.conda_specification:
        return CondaDependencies.create(pip_packages=list(spec.pip_packages))
    found = CondaDependencies()
    found._take(spec.conda_specification, f"environment {spec.name!r}")
    for package in spec.pip_packages:
        found.add_pip_package(package)
    return found


def of_framework(framework: str, version: str, dependencies: CondaDependencies, variables: Mapping[str, str]) -> Environment:
    """What an estimator's options mean together."""
    made = Environment(f"{framework}-{version or 'default'}")
    made._is_named = False
    made._framework, made._framework_version = framework, version
    made.python.conda_dependencies = dependencies
    made.environment_variables = dict(variables)
    return made
