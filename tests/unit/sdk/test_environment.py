import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainyard import CondaDependencies, Environment, TrainingException, UserErrorException
from trainyard._curated import NAMES
from trainyard.environment.v1 import environment_pb2


class Registry:
    """A workspace whose registry holds what is registered, as the service does."""

    def __init__(self) -> None:
        self.versions: list[Any] = []
        self._clients = SimpleNamespace(environments=self, call=lambda method, request: method(request))

    def RegisterEnvironment(self, request: Any) -> Any:
        made = environment_pb2.EnvironmentVersion(name=request.name, version=len(self.versions) + 1, definition=request.definition)
        made.definition.name, made.definition.version = made.name, made.version
        self.versions.append(made)
        return environment_pb2.RegisterEnvironmentResponse(environment=made)

    def GetEnvironment(self, request: Any) -> Any:
        return environment_pb2.GetEnvironmentResponse(environment=self.versions[(request.version or len(self.versions)) - 1])

    def ListEnvironments(self, _: Any) -> Any:
        return environment_pb2.ListEnvironmentsResponse(environments=self.versions[-1:])


def a_workspace() -> Any:
    return Registry()


def test_pip_packages_alone_need_no_conda() -> None:
    environment = Environment("mine")
    assert environment.python.conda_dependencies is not None
    environment.python.conda_dependencies.add_pip_package("six")

    spec = environment._to_message()

    assert (spec.name, spec.framework, list(spec.pip_packages), spec.conda_specification) == ("mine", "none", ["six"], "")


def test_a_conda_file_and_a_requirements_file_make_an_environment(tmp_path: Path) -> None:
    (tmp_path / "conda.yml").write_text("dependencies:\n- python=3.6.2\n- numpy=1.16\n- pip: [six]\n")
    (tmp_path / "pip.txt").write_text("# mine\nsix==1.17.0  # one\n\nrich\n")

    conda = Environment.from_conda_specification("a", tmp_path / "conda.yml")._to_message()
    pip = Environment.from_pip_requirements("b", tmp_path / "pip.txt")._to_message()

    assert "python=3.6.2" in conda.conda_specification
    assert "numpy=1.16" in conda.conda_specification
    assert list(pip.pip_packages) == ["six==1.17.0", "rich"]


def test_a_dependencies_file_is_read_at_submission_and_wins(tmp_path: Path) -> None:
    environment = Environment("mine")
    environment.python.conda_dependencies_file = tmp_path / "later.yml"
    (tmp_path / "later.yml").write_text("dependencies: [{pip: [six]}]")

    assert list(environment._to_message().pip_packages) == ["six"]


def test_registering_gives_a_version_and_what_is_got_back_is_the_same() -> None:
    workspace = a_workspace()
    environment = Environment("mine")
    environment.python.conda_dependencies = CondaDependencies.create(conda_packages=["numpy=1.23"], pip_packages=["six"])
    environment.environment_variables["A"] = "1"

    registered = environment.register(workspace)
    found = Environment.get(workspace, "mine", 1)

    assert (environment.version, registered.version, found.version) == ("1", "1", "1")
    assert found._to_message() == registered._to_message() == environment._to_message()
    copy = found.clone("other")
    assert (copy.name, copy.version) == ("other", None)
    copy.environment_variables["A"] = "2"
    assert found.environment_variables == {"A": "1"}


def test_the_list_has_the_registered_and_the_curated() -> None:
    workspace = a_workspace()
    Environment("mine").register(workspace)

    found = Environment.list(workspace)

    assert list(found) == ["mine", *NAMES]


@pytest.mark.parametrize(
    ("name", "framework_version", "told"),
    [
        ("AzureML-TensorFlow-1.13-GPU", "1.13", r"TensorFlow 2\.15\.1 serving version 1's interface"),
        ("AzureML-TensorFlow-2.0-GPU", "2.0", r"TensorFlow 2\.15\.1"),
        ("AzureML-tensorflow-2.6-ubuntu20.04-py38-cuda11-gpu", "2.6", r"TensorFlow 2\.15\.1"),
        ("AzureML-tensorflow-2.7-ubuntu20.04-py38-cuda11-gpu", "2.7", r"TensorFlow 2\.15\.1"),
        ("azureml-tensorflow-2.11-cuda11", "2.11", r"TensorFlow 2\.15\.1"),
        ("AzureML-tensorflow-2.16-cuda12", "2.16", r"TensorFlow 2\.16"),
    ],
)
def test_a_curated_name_is_its_nearest_version_and_says_so(name: str, framework_version: str, told: str) -> None:
    with pytest.warns(UserWarning, match=told):
        environment = Environment.get(a_workspace(), name)

    spec = environment._to_message()
    assert (spec.framework, spec.framework_version, spec.name) == ("tensorflow", framework_version, name)


def test_curated_names_without_a_framework_are_packages() -> None:
    with pytest.warns(UserWarning, match="without packages"):
        minimal = Environment.get(a_workspace(), "AzureML-Minimal")
    with pytest.warns(UserWarning, match="pandas"):
        tutorial = Environment.get(a_workspace(), "AzureML-Tutorial")

    assert (minimal._to_message().framework, list(minimal._to_message().pip_packages)) == ("none", [])
    assert "pandas" in tutorial._to_message().pip_packages


@pytest.mark.parametrize("name", ["AzureML-PyTorch-1.3-GPU", "AzureML-TensorFlow-1.16-GPU", "AzureML-tensorflow-2.99", "azureml-"])
def test_a_curated_name_that_nothing_is_near_to_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(UserErrorException, match="AzureML-Minimal"):
        Environment.get(a_workspace(), name)


def test_a_python_of_the_users_own_is_used_as_it_is() -> None:
    environment = Environment("mine")
    environment.python.user_managed_dependencies = True

    assert environment._to_message(local=True).interpreter_path == sys.executable
    assert environment._to_message().interpreter_path == "python"
    environment.python.interpreter_path = "/opt/py/bin/python"
    assert environment._to_message(local=True).interpreter_path == "/opt/py/bin/python"


def test_containers_are_told_about_or_refused() -> None:
    environment = Environment("mine")
    environment.docker.enabled = True
    environment._to_message()

    environment.docker.base_image = "me/mine:1"
    with pytest.warns(UserWarning, match="me/mine:1"):
        environment._to_message()
    environment.docker.base_dockerfile = "FROM x"
    with pytest.raises(TrainingException, match="base_dockerfile"):
        environment._to_message()


def test_options_of_pip_never_reach_a_run() -> None:
    environment = Environment("mine")
    environment.python.conda_dependencies = CondaDependencies.create(pip_indexurl="http://elsewhere")

    with pytest.raises(TrainingException, match="--index-url"):
        environment._to_message()


@pytest.mark.parametrize("version", ["one", "1.5", "-1"])
def test_a_version_is_a_whole_number(version: str) -> None:
    with pytest.raises(UserErrorException, match="whole number"):
        Environment.get(a_workspace(), "mine", version)
