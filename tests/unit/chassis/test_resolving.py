"""From what a run asks for to what can be built here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.chassis.environments import BuildError, conda, definition, resolve
from services.chassis.environments.steps import Steps
from trainyard.job.v1.spec_pb2 import EnvironmentSpec

HERE = conda.node_python()
ENVIRONMENT = f"""
name: mine
channels: [conda-forge]
dependencies:
  - python={HERE}
  - numpy=1.23
  - pytables >=3.7,<4
  - conda-forge::scikit-learn==1.2.2
  - pip:
    - six==1.17.0
"""


@pytest.fixture
def no_conda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conda, "tool", lambda: None)


@pytest.fixture
def with_conda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conda, "tool", lambda: "/opt/bin/micromamba")


def asked(**fields: Any) -> EnvironmentSpec:
    return EnvironmentSpec(**{"framework": "none", **fields})


@pytest.mark.parametrize(
    ("conda_text", "pip_text"),
    [
        ("numpy", "numpy"),
        ("numpy=1.23", "numpy==1.23.*"),
        ("numpy=1.23.*", "numpy==1.23.*"),
        ("numpy 1.23", "numpy==1.23.*"),
        ("numpy=1.23=py311_0", "numpy==1.23.*"),
        ("numpy==1.23.5", "numpy==1.23.5"),
        ("numpy>=1.20,<2", "numpy>=1.20,<2"),
        ("NumPy >= 1.20, < 2", "numpy>=1.20,<2"),
        ("conda-forge::pytables", "tables"),
        ("opencv=4", "opencv-python-headless==4.*"),
    ],
)
def test_a_conda_package_is_told_to_pip_with_its_pins(conda_text: str, pip_text: str) -> None:
    name, version = conda.split(conda_text)

    assert conda.as_requirements([f"{name}{version}"]) == [pip_text]


@pytest.mark.usefixtures("no_conda")
def test_without_conda_its_packages_come_from_the_index_and_the_run_is_told() -> None:
    found = resolve(asked(conda_specification=ENVIRONMENT, pip_packages=["rich"]))

    wanted = ["numpy==1.23.*", "tables>=3.7,<4", "scikit-learn==1.2.2", "six==1.17.0", "rich"]
    assert found.definition == definition("none", "", wanted)
    (warning,) = found.warnings
    assert "no conda" in warning
    assert "numpy==1.23.*, tables>=3.7,<4, scikit-learn==1.2.2" in warning


@pytest.mark.usefixtures("with_conda")
def test_with_conda_its_packages_stay_condas_and_the_rest_is_pips() -> None:
    found = resolve(asked(conda_specification=ENVIRONMENT))

    assert found.definition.conda == ("numpy=1.23", "pip", "pytables>=3.7,<4", f"python={HERE}", "scikit-learn==1.2.2")
    assert found.definition.channels == ("conda-forge",)
    assert found.definition.requirements == ("six==1.17.0",)
    assert found.warnings == ()
    assert conda.command(Path("/cache/e"), found.definition.conda, found.definition.channels)[:8] == [
        "/opt/bin/micromamba", "create", "--yes", "--prefix", "/cache/e", "--override-channels", "--channel", "conda-forge",
    ]  # fmt: skip


@pytest.mark.usefixtures("with_conda")
def test_a_specification_of_pip_alone_needs_no_conda() -> None:
    found = resolve(asked(conda_specification=f"dependencies:\n- python={HERE}.4\n- pip\n- pip: [six]\n"))

    assert found.definition == definition("none", "", ["six"])
    assert found.warnings == ()


@pytest.mark.usefixtures("no_conda")
def test_packages_that_only_conda_has_are_all_named() -> None:
    with pytest.raises(BuildError, match=r"cudatoolkit, libgcc cannot be had: this node has none of micromamba") as caught:
        resolve(asked(conda_specification="dependencies: [numpy, cudatoolkit=10.0, libgcc]"))

    assert (caught.value.code, caught.value.target) == ("UserError", "cudatoolkit")


def test_another_python_is_told() -> None:
    found = resolve(asked(conda_specification="dependencies: ['python=3.6.2']"))

    assert found.warnings == (f"Python 3.6.2 was asked for; scripts run on Python {HERE} here",)


@pytest.mark.parametrize(
    ("packages", "version", "tensorflow_1"),
    [(["tensorflow-gpu==1.13.1"], "1.13.1", True), (["tensorflow==2.2.0"], "2.2.0", False), (["tensorflow-gpu"], "", False)],
)
def test_a_pin_to_a_tensorflow_of_old_is_served_as_its_framework_version_would_be(
    packages: list[str], version: str, tensorflow_1: bool
) -> None:
    found = resolve(asked(pip_packages=[*packages, "six"]))

    assert found.definition == definition("tensorflow", version, ["six"])
    assert found.tensorflow_1 is tensorflow_1
    assert packages[0] in found.warnings[0]


def test_azures_bundle_for_its_own_nodes_is_left_out_and_the_real_sdk_by_name_is_not() -> None:
    found = resolve(asked(pip_packages=["azureml_defaults==1.20", "azureml-core"]))

    assert found.definition.requirements == ("azureml-core",)
    assert found.warnings == ("azureml_defaults==1.20 was left out: the platform gives scripts azureml by itself",)


def test_a_tensorflow_that_can_be_had_stays_what_it_is() -> None:
    found = resolve(asked(pip_packages=["tensorflow-cpu==2.21.0"]))

    assert found.definition.requirements == ("tensorflow-cpu==2.21.0",)
    assert found.warnings == ()


@pytest.mark.parametrize(("version", "tensorflow_1"), [("1.13", True), ("1.0.0", True), ("2.0", False), ("", False)])
def test_version_1_of_the_framework_asks_for_its_interface(version: str, tensorflow_1: bool) -> None:
    assert resolve(asked(framework="tensorflow", framework_version=version)).tensorflow_1 is tensorflow_1


@pytest.mark.parametrize(
    "text",
    [
        "- just\n- a list",
        "dependencies: numpy",
        "dependencies: [--file=/etc/passwd]",
        "dependencies: ['numpy[build=evil]']",
        "dependencies: ['numpy; rm']",
        "dependencies: [1.5]",
        "dependencies: [{conda: [numpy]}]",
        "dependencies: [{pip: numpy}]",
        "channels: ['http://evil.example/channel']\ndependencies: [numpy]",
        "channels: ['--insecure']\ndependencies: [numpy]",
        "a: [unclosed",
        "a: !!python/object/apply:os.system [id]",
        "[" * 5000,
        "x: " + "y" * 70_000,
    ],
)
def test_what_is_no_specification_is_refused(text: str) -> None:
    with pytest.raises(BuildError, match="conda specification") as caught:
        resolve(asked(conda_specification=text))

    assert caught.value.code == "UserError"


def test_addresses_inside_a_specification_are_refused_as_pip_packages_are() -> None:
    with pytest.raises(BuildError, match="no requirement"):
        resolve(asked(conda_specification="dependencies: [{pip: ['-r requirements.txt']}]"))


def test_a_builds_steps_are_told_with_their_times_and_the_last_line() -> None:
    times = iter([0.0, 1.0, 3.5, 100.0])
    steps = Steps(lambda: next(times))

    steps.begin("making the virtual environment")
    steps.begin("resolving")
    for line in ("Resolved 3 packages in 2s", "Downloading numpy (17 MiB)", "   Building horovod==0.28.1", ""):
        steps.hear(line)

    assert steps.story() == (
        "making the virtual environment 1.0 s, then resolving 2.5 s, then downloading and building packages 96.5 s "
        "(last: Building horovod==0.28.1)"
    )
