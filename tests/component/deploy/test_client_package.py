"""What a user installs: the client alone, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
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
