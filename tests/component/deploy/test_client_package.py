"""What a user installs: the client alone, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from uv import find_uv_bin

REPO = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.component, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("client") / "venv"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for words in (["venv", "--python", "3.11", str(home)], ["pip", "install", "--python", str(home / "bin" / "python"), str(REPO / "sdk")]):
        result = subprocess.run([find_uv_bin(), *words], capture_output=True, text=True, env=environment, check=False)
        assert result.returncode == 0, result.stderr
    return home / "bin" / "python"


def test_the_client_imports_all_it_offers_and_nothing_heavy(python: Path) -> None:
    code = (
        "import sys, trainyard; [getattr(trainyard, name) for name in trainyard.__all__]; import trainyard._kafka, trainyard._grpc; "
        "from trainyard._cloudevents import message_class; message_class('trainyard.job.v1.SubmitRun'); "
        "print(sorted({'tensorflow', 'faust', 'sqlalchemy', 'numpy'} & set(sys.modules)))"
    )

    result = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd="/", check=False)

    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr


def test_the_command_is_there_and_says_what_is_missing(python: Path, tmp_path: Path) -> None:
    result = subprocess.run([python.parent / "trainyard", "run", "list"], capture_output=True, text=True, cwd=tmp_path, check=False)

    assert result.returncode == 2
    assert "config.json" in result.stderr
    assert "make up" in result.stderr


PROJECT = """
from trainyard import AmlCompute, ComputeTarget, Experiment, Model, Run, Webservice, Workspace

workspace = Workspace.from_config()
reveal_type(workspace)
reveal_type(Experiment(workspace, "e"))
reveal_type(Model(workspace, "m").version)
reveal_type(Model.deploy(workspace, "web", [Model(workspace, "m")]))
reveal_type(ComputeTarget.create(workspace, "gpu", AmlCompute.provisioning_configuration("STANDARD_NC6")))
Model(workspace, version="two")
Workspace.from_nowhere()

def status(run: Run, service: Webservice) -> str:
    return run.status + service.state
"""


def test_a_projects_strict_type_check_sees_the_clients_types(python: Path, tmp_path: Path) -> None:
    (tmp_path / "project.py").write_text(PROJECT)

    words = ["-m", "mypy", "--strict", "--python-executable", str(python), "--cache-dir", str(tmp_path / "cache"), "project.py"]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    result = subprocess.run([sys.executable, "-I", *words], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)

    for seen in (
        "trainyard._workspace.Workspace",
        "trainyard._experiment.Experiment",
        "int",
        "trainyard._webservice.Webservice",
        "trainyard._compute.AmlCompute",
    ):
        assert f'Revealed type is "{seen}"' in result.stdout or f'Revealed type is "builtins.{seen}"' in result.stdout, result.stdout
    errors = [line for line in result.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 2, result.stdout
    assert "version" in errors[0] and "from_nowhere" in errors[1]


def test_the_package_carries_the_topics_that_doctor_compares_with(python: Path) -> None:
    code = "from trainyard._cli.topics import wanted; print(wanted()['trainyard.jobs'])"

    result = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd="/", check=False)

    assert (result.returncode, result.stdout.strip()) == (0, "(8, -1)"), result.stderr
