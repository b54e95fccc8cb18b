"""The alias package: azureml's module paths, served by the client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from uv import find_uv_bin

REPO = Path(__file__).resolve().parents[3]
ALIAS = REPO / "sdk" / "azureml-alias"
pytestmark = [pytest.mark.component, pytest.mark.timeout(300)]

GENERATIONS = {
    "A, 2019-08": """
        import azureml.core
        from azureml.core import Workspace, Experiment, Run
        from azureml.core.compute import ComputeTarget, AmlCompute
        from azureml.core.compute_target import ComputeTargetException
        from azureml.core.runconfig import CondaDependencies, TensorflowConfiguration, MpiConfiguration
        from azureml.core.webservice import Webservice
        from azureml.core.model import Model
        from azureml.train.dnn import TensorFlow, Mpi, ParameterServer
        from azureml.telemetry import set_diagnostics_collection
        set_diagnostics_collection(send_diagnostics=True)
    """,
    "B, 2020-02": """
        from azureml.core.dataset import Dataset
        from azureml.core.resource_configuration import ResourceConfiguration
        from azureml.core.conda_dependencies import CondaDependencies
        from azureml.core.environment import Environment
        from azureml.train.estimator import Estimator
        assert azureml_core.Model.Framework.TENSORFLOW == "TensorFlow"
    """,
    "C, 2020-09": """
        from azureml.core import Dataset, Environment, ScriptRunConfig
        from azureml.core.authentication import InteractiveLoginAuthentication, ServicePrincipalAuthentication
        from azureml.exceptions import UserErrorException, ActivityFailedException
        InteractiveLoginAuthentication(tenant_id="mine")
    """,
    "D, 2022-11": """
        from azureml.core import ScriptRunConfig, Environment, Workspace, Experiment, Dataset
        from azureml.core.runconfig import MpiConfiguration, DockerConfiguration, RunConfiguration, DEFAULT_CPU_IMAGE
        from azureml.core.script_run_config import ScriptRunConfig as Other
        assert Other is ScriptRunConfig
    """,
    "E, 2024-08": """
        from azureml.core.run import Run
        from azureml.core import Run as Other, VERSION
        from azureml.core.workspace import Workspace
        from azureml.core.experiment import Experiment
        from azureml.data import FileDataset
        from azureml.data.dataset_consumption_config import DatasetConsumptionConfig
        assert Other is Run and Run.get_submitted_run is Run.get_context
    """,
}


def run(code: str, *, python: str | Path = sys.executable, path: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path:
        environment["PYTHONPATH"] = os.pathsep.join([str(REPO / "sdk"), str(ALIAS)])
    return subprocess.run([str(python), "-W", "error", "-c", code], capture_output=True, text=True, cwd="/", env=environment, check=False)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_import_lines_of_every_generation_run(generation: str) -> None:
    lines = [line.strip() for line in GENERATIONS[generation].splitlines()]

    result = run("\n".join(["import azureml.core as azureml_core", *lines]))

    assert result.returncode == 0, result.stderr


def test_every_name_of_the_table_is_there_under_its_own_home() -> None:
    walk = """
import importlib, json
from azureml._names import NAMES, entries
missing = []
for module in NAMES:
    made = importlib.import_module(module)
    for name, (home, old) in entries(module).items():
        try:
            assert getattr(made, name) is getattr(importlib.import_module(home), old)
            assert name in dir(made)
        except (AttributeError, ModuleNotFoundError):
            missing.append(f"{module}.{name}")
print(json.dumps(missing))
"""

    result = run(walk)

    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == []


def test_the_modules_are_what_the_table_makes() -> None:
    compare = "from azureml._write import *; print([module for module in NAMES if path_of(module).read_text() != text_of(module)])"

    result = run(compare)

    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr


def test_other_distributions_below_azureml_are_found_beside_it(tmp_path: Path) -> None:
    (tmp_path / "azureml" / "mlflow").mkdir(parents=True)
    (tmp_path / "azureml" / "mlflow" / "__init__.py").write_text("there = True")

    result = run(f"import sys; sys.path.append({str(tmp_path)!r}); import azureml.mlflow; import azureml.core; print(azureml.mlflow.there)")

    assert (result.returncode, result.stdout.strip()) == (0, "True"), result.stderr


def test_a_name_that_is_not_here_says_what_to_do_and_an_unknown_one_is_an_error_like_any() -> None:
    code = """
for line in ("from azureml.train.hyperdrive import choice", "from azureml.core.image import Image",
             "from azureml.core import Nonsense", "import azureml.nonsense"):
    try:
        exec(line)
    except ImportError as error:
        print(error)
"""

    told = run(code).stdout.splitlines()

    assert (
        told[0]
        == "azureml.train.hyperdrive.choice is not here: sweeps are not part of this version: submit a run for each set of parameters."
    )
    assert "Model.deploy(workspace, name, [model])" in told[1]
    assert "cannot import name 'Nonsense'" in told[2]
    assert "No module named 'azureml.nonsense'" in told[3]


def test_a_scripts_imports_need_the_standard_library_alone() -> None:
    code = "import sys; from azureml.core.run import Run; from azureml.core import Run as Same; Run.get_context(); print(Run is Same)"

    result = subprocess.run(
        [sys.executable, "-S", "-I", "-c", f"import sys; sys.path[:0] = {[str(REPO / 'sdk'), str(ALIAS)]!r}\n{code}"],
        capture_output=True, text=True, cwd="/", check=False,
    )  # fmt: skip

    assert (result.returncode, result.stdout.strip()) == (0, "True"), result.stderr


def test_the_extra_installs_it_and_the_client_alone_does_not(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    python = tmp_path / "venv" / "bin" / "python"

    def uv(*words: str) -> None:
        result = subprocess.run([find_uv_bin(), *words], capture_output=True, text=True, env=environment, check=False)
        assert result.returncode == 0, result.stderr

    uv("venv", "--python", "3.11", str(tmp_path / "venv"))
    uv("pip", "install", "--python", str(python), str(REPO / "sdk"))
    alone = run("import azureml", python=python, path=False)
    uv("pip", "install", "--python", str(python), f"{REPO / 'sdk'}[azureml]")
    extra = run("from azureml.core import Workspace, ScriptRunConfig; print(Workspace.__module__)", python=python, path=False)

    assert "No module named 'azureml'" in alone.stderr
    assert (extra.returncode, extra.stdout.strip()) == (0, "trainyard._workspace"), extra.stderr
