"""Saved models, and model servers that run on them, in the TensorFlow environments that the platform builds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.chassis import environments
from services.chassis.topics import make_topics
from services.serving.adapters.server_environment import SERVER_PACKAGES
from services.serving.model_server.wire import Wire
from tests.component.service_process import ServiceProcess
from tests.component.service_process import running as service_running
from tests.component.topic_log import TopicLog
from tests.conftest import free_port
from trainyard._environment_cache import default_cache
from trainyard._objects import MinioObjects
from trainyard._paths import sha256_file
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet
from trainyard.model.v1.model_pb2 import ModelVersionRegistered

BUCKET = "serving-tests"
REPO = Path(__file__).resolve().parents[3]
WIRE = Wire()
LINES = ("2.15", "2.21")


@dataclass(frozen=True)
class TensorFlow:
    """An environment with one line of TensorFlow and what the model server needs, and the models saved with it."""

    python: Path
    models: Path  # <name>/model is one version: half, half-3, dense and more (make_models.py)
    is_newest: bool = False


def make(framework_version: str, folder: Path) -> TensorFlow:
    definition = environments.definition("tensorflow", framework_version, [], extra=SERVER_PACKAGES)
    python = environments.build(definition, default_cache(), print).python
    script = Path(__file__).with_name("make_models.py")
    made = subprocess.run([python, script, folder], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return TensorFlow(python, folder, framework_version == LINES[-1])


@pytest.fixture(scope="session", params=LINES)
def tensorflow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TensorFlow:
    """Every test of the model server runs on the oldest and on the newest line."""
    return make(request.param, tmp_path_factory.mktemp(f"models-{request.param}-"))


@dataclass
class Running:
    """A model server that has said where it is."""

    process: subprocess.Popen[str]
    ready: dict[str, Any]

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.ready['grpc_port']}"

    @property
    def rest(self) -> str:
        return f"http://127.0.0.1:{self.ready['rest_port']}"

    def rpc(self, method: str, request: bytes, timeout: float = 30.0) -> bytes:
        """Raises grpc.RpcError."""
        with grpc.insecure_channel(self.grpc_address) as channel:
            answer: bytes = channel.unary_unary(method, bytes, bytes)(request, timeout=timeout)
        return answer

    def predict(self, **inputs: Any) -> Any:
        """`inputs` are TensorProtos by alias, of the default signature. Raises grpc.RpcError."""
        return self.ask(predict_request(inputs))

    def ask(self, request: Any) -> Any:
        return WIRE.PredictResponse.FromString(self.rpc("/tensorflow.serving.PredictionService/Predict", request.SerializeToString()))


def predict_request(inputs: dict[str, Any], signature: str = "", model: str = "half") -> Any:
    request = WIRE.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for alias, tensor in inputs.items():
        request.inputs[alias].CopyFrom(tensor)
    return request


def tensor(dtype: int, shape: list[int], **fields: Any) -> Any:
    """tensor(1, [2], float_val=[1.0, 2.0])"""
    made = type(WIRE.PredictRequest().inputs["x"])(dtype=dtype, **fields)
    for size in shape:
        made.tensor_shape.dim.add(size=size)
    return made


def command(python: Path, model: Path, *options: str, grpc_port: int = 0, rest_port: int = 0) -> list[str]:
    ports = ["--grpc-port", str(grpc_port), "--rest-port", str(rest_port)]
    about = ["--model-name", "half", "--model-path", str(model), "--version", "3"]
    return [str(python), "-m", "services.serving.model_server", *about, *ports, *options]


@contextmanager
def running(python: Path, model: Path, *options: str, grpc_port: int = 0, rest_port: int = 0) -> Iterator[Running]:
    with started(command(python, model, *options, grpc_port=grpc_port, rest_port=rest_port)) as server:
        yield server


@contextmanager
def serving(python: Path, *options: str) -> Iterator[Running]:
    """A model server by its own flags."""
    with started([str(python), "-m", "services.serving.model_server", "--port=0", "--rest_port=0", *options]) as server:
        yield server


@contextmanager
def started(arguments: list[str], inherited: Sequence[int] = (), **variables: str) -> Iterator[Running]:
    """Nothing of the platform's own packages is on the path: only the repository and what the environment has."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO), **variables}
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=sys.stderr.fileno(), text=True, env=environment, pass_fds=inherited
    ) as process:
        assert process.stdout
        try:
            line = process.stdout.readline()
            assert line, "the model server ended before it was ready"
            yield Running(process, json.loads(line))
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server(tensorflow: TensorFlow) -> Iterator[Running]:
    with running(tensorflow.python, tensorflow.models / "half" / "model") as server:
        yield server


@pytest.fixture
def ends(tensorflow: TensorFlow) -> Callable[..., tuple[int, str]]:
    """Runs a model server that cannot go on: its exit code and all that it wrote to standard error."""

    def run(model: Path, *, grpc_port: int = 0, rest_port: int = 0) -> tuple[int, str]:
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO)}
        arguments = command(tensorflow.python, model, grpc_port=grpc_port, rest_port=rest_port)
        done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
        assert done.stdout == ""
        return done.returncode, done.stderr

    return run


# -- the service


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models saved with the default line."""
    return make("", tmp_path_factory.mktemp("models-default-")).models


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty cache but for the environments."""
    folder = tmp_path_factory.mktemp("cache")
    for kept in ("environments", "uv"):
        (folder / kept).symlink_to(default_cache() / kept)
    return folder


@pytest.fixture(scope="session")
def objects(minio_server: tuple[str, str, str]) -> MinioObjects:
    found = MinioObjects(*minio_server, BUCKET)
    found.make_bucket()
    return found


@pytest.fixture(scope="session")
def topic_log(kafka_bootstrap: str) -> Iterator[TopicLog]:
    make_topics(kafka_bootstrap)
    found = TopicLog(kafka_bootstrap)
    yield found
    found.close()


def settings_of(minio_server: tuple[str, str, str], cache: Path) -> dict[str, str]:
    """With a door."""
    endpoint, access_key, secret_key = minio_server
    return {
        "CACHE": str(cache),
        "OBJECT_STORE__ENDPOINT": endpoint,
        "OBJECT_STORE__ACCESS_KEY": access_key,
        "OBJECT_STORE__SECRET_KEY": secret_key,
        "OBJECT_STORE__BUCKET": BUCKET,
        "SERVING__DOOR_GRPC_PORT": str(free_port()),
        "SERVING__DOOR_REST_PORT": str(free_port()),
    }


@pytest.fixture(scope="module")
def service(
    kafka_bootstrap: str,
    minio_server: tuple[str, str, str],
    objects: MinioObjects,
    topic_log: TopicLog,
    cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServiceProcess]:
    with service_running("serving", tmp_path_factory.mktemp("serving"), kafka_bootstrap, **settings_of(minio_server, cache)) as found:
        yield found


@dataclass
class Registry:
    """Stands for the registry: puts files where a run would have left them, and says that they are a model version."""

    objects: MinioObjects
    log: TopicLog

    def register(self, model: str, version: int, folder: Path, **fields: Any) -> list[Artifact]:
        files = []
        for path in sorted(it for it in folder.rglob("*") if it.is_file()):
            name = f"{folder.name}/{path.relative_to(folder)}"
            key = f"runs/{model}-{version}/1/outputs/{name}"
            self.objects.put_file(key, path)
            files.append(Artifact(path=name, size_bytes=path.stat().st_size, sha256=sha256_file(path), object_key=key))
        fact = ModelVersionRegistered(model=model, version=version, artifacts=ArtifactSet(files=files), **fields)
        self.log.publish("trainyard.models", model, fact)
        return files


@pytest.fixture(scope="session")
def registry(objects: MinioObjects, topic_log: TopicLog) -> Registry:
    return Registry(objects, topic_log)
