"""A small SavedModel and a model server running on it, both in the TensorFlow environment."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[3]

MAKE_MODEL = """
import sys, tensorflow as tf
class HalfPlusTwo(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def half(self, x): return {"y": x * 0.5 + 2.0}
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="s"), tf.TensorSpec([None], tf.int64, name="n")])
    def tag(self, s, n): return {"out_bytes": s + tf.strings.as_string(n), "twice": n * 2}
m = HalfPlusTwo()
tf.saved_model.save(m, sys.argv[1], signatures={"serving_default": m.half, "tag": m.tag})
"""


@pytest.fixture(scope="session")
def tensorflow_python() -> str:
    """TRAINYARD_TEST_TF_PYTHON saves the build of an environment."""
    given = os.environ.get("TRAINYARD_TEST_TF_PYTHON")
    if given:
        return given
    environments = pytest.importorskip("services.chassis.environments")
    settings = pytest.importorskip("services.chassis.settings").Settings.load("serving")
    from services.serving.adapters.server_process import SERVER_PACKAGES

    spec = environments.definition("tensorflow", "", [], extra=list(SERVER_PACKAGES))
    return str(environments.build(spec, settings.cache, print).python)


@pytest.fixture(scope="session")
def saved_model(tensorflow_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("half") / "model"
    subprocess.run([tensorflow_python, "-c", MAKE_MODEL, str(path)], check=True, capture_output=True)
    return path


@dataclass
class Running:
    process: subprocess.Popen[str]
    ready: dict[str, Any]

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.ready['grpc_port']}"

    @property
    def rest(self) -> str:
        return f"http://127.0.0.1:{self.ready['rest_port']}"


@pytest.fixture(scope="session")
def command(tensorflow_python: str) -> Callable[[Path], list[str]]:
    def build(path: Path) -> list[str]:
        options = ["--model-name", "half", "--model-path", str(path), "--version", "3", "--grpc-port", "0", "--rest-port", "0"]
        return [tensorflow_python, "-m", "services.serving.model_server", *options]

    return build


@pytest.fixture(scope="session")
def server(saved_model: Path, command: Callable[[Path], list[str]]) -> Iterator[Running]:
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    process = subprocess.Popen(command(saved_model), stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout
    line = process.stdout.readline()
    assert line, "the model server ended before it was ready"
    yield Running(process, json.loads(line))
    process.terminate()
    process.wait(20)
