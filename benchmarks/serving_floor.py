"""Our model server beside servers that do nothing: TensorFlow Serving's API over gRPC and REST, each in turn on core 0, load from core 1.

What nothing costs is what gRPC in Python and an ASGI server cost; the rest is ours. h2load (Debian: nghttp2-client) makes the load.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx

from benchmarks.report import Row
from services.chassis import environments
from services.serving.adapters.server_process import SERVER_PACKAGES
from services.serving.model_server.wire import Wire
from tests.conftest import await_port, free_port
from trainyard._environment_cache import default_cache

REPO = Path(__file__).resolve().parents[1]
TRIALS, REQUESTS = 5, {1: 2000, 16: 6000}
_CALL = "/tensorflow.serving.PredictionService/Predict"
_PATH = "/v1/models/mlp:predict"
_X = [(number % 17) / 17 for number in range(784)]
_AIM = "0.8 of what nothing makes"


def measure(_: Path) -> list[Row]:
    for tool in ("h2load", "taskset"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is not here; on Debian it is in the package {'nghttp2-client' if tool == 'h2load' else 'util-linux'}")
    ours = _python(environments.definition("tensorflow", "2.21", [], extra=SERVER_PACKAGES))
    asgi = _python(environments.definition("none", "", ["uvicorn==0.54.0", "httptools==0.9.0"]))
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        subprocess.run([ours, REPO / "benchmarks" / "serving_model.py", folder / "model"], check=True, capture_output=True)
        ports = {"grpc": free_port(), "rest": free_port()}
        about = ["--model-name=mlp", f"--model-path={folder / 'model'}", "--version=1"]
        doors = [f"--grpc-port={ports['grpc']}", f"--rest-port={ports['rest']}"]
        stack.enter_context(_running([ours, "-m", "services.serving.model_server", *about, *doors], ports["rest"]))
        bodies, answers = _bodies(folder), _answers(ports)
        nothing = {"grpc": free_port(), "rest": free_port()}
        for way, python in (("grpc", ours), ("rest", asgi)):
            (folder / f"{way}.answer").write_bytes(answers[way])
            command = [python, REPO / "benchmarks" / "serving_nothing.py", way, nothing[way], folder / f"{way}.answer"]
            stack.enter_context(_running(command, nothing[way]))
        rates: dict[tuple[str, int, str], list[float]] = defaultdict(list)
        for _trial in range(TRIALS):
            for way, body in bodies.items():
                for at_once, requests in REQUESTS.items():
                    rates[way, at_once, "nothing"].append(_load(nothing[way], way, body, at_once, requests))
                    rates[way, at_once, "ours"].append(_load(ports[way], way, body, at_once, requests))
    return [row for way in ("grpc", "rest") for at_once in REQUESTS for row in _rows(way, at_once, rates)]


def _rows(way: str, at_once: int, rates: dict[tuple[str, int, str], list[float]]) -> Iterator[Row]:
    what = f"{way} Predict, {at_once} in flight"
    mine, floor = rates[way, at_once, "ours"], rates[way, at_once, "nothing"]
    yield Row(f"{what}", "requests/s", mine)
    yield Row(f"{what}, doing nothing", "requests/s", floor)
    yield Row(f"{what}, to nothing", "times", [a / b for a, b in zip(mine, floor, strict=True)], _AIM)


def _python(definition: environments.Definition) -> Path:
    return environments.build(definition, default_cache(), lambda line: None).python


@contextmanager
def _running(command: list[Any], port: int) -> Iterator[None]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO)}
    arguments = ["taskset", "-c", "0", *map(str, command)]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        try:
            await_port(port, lambda: process.poll() is None, 120.0)
            yield
        finally:
            process.terminate()
            process.wait(30)


def _request() -> bytes:
    request = Wire().PredictRequest()
    request.model_spec.name = "mlp"
    tensor = request.inputs["x"]
    tensor.dtype, tensor.tensor_content = 1, struct.pack("<784f", *_X)
    for size in (1, 784):
        tensor.tensor_shape.dim.add(size=size)
    return bytes(request.SerializeToString())


def _bodies(folder: Path) -> dict[str, Path]:
    message = _request()
    made = {"grpc": folder / "grpc.bin", "rest": folder / "rest.json"}
    made["grpc"].write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    made["rest"].write_text(json.dumps({"instances": [_X]}))
    return made


def _answers(ports: dict[str, int]) -> dict[str, bytes]:
    """What our server says, once it does: the same is sent by whoever does nothing."""
    url, deadline = f"http://127.0.0.1:{ports['rest']}", time.monotonic() + 120
    while httpx.get(f"{url}/readyz").status_code != 200:
        if time.monotonic() > deadline:
            raise RuntimeError("the model server is not ready")
        time.sleep(0.1)
    with grpc.insecure_channel(f"127.0.0.1:{ports['grpc']}") as channel:
        by_grpc = channel.unary_unary(_CALL, bytes, bytes)(_request(), timeout=60)
    by_rest = httpx.post(f"{url}{_PATH}", json={"instances": [_X]}, timeout=60)
    assert len(by_rest.json()["predictions"][0]) == 10
    return {"grpc": by_grpc, "rest": by_rest.content}


def _load(port: int, way: str, body: Path, at_once: int, requests: int) -> float:
    """Requests a second."""
    command = ["taskset", "-c", "1", "h2load", "-n", str(requests), "-c", str(at_once), "-m", "1", "-d", str(body)]
    target = [f"http://127.0.0.1:{port}{_CALL if way == 'grpc' else _PATH}"]
    extra = (
        ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        if way == "grpc"
        else ["--h1", "-H", "content-type: application/json"]
    )
    begin = time.perf_counter()
    said = subprocess.run([*command, *target, *extra], capture_output=True, text=True, check=True).stdout
    seconds = time.perf_counter() - begin
    if f"status codes: {requests} 2xx" not in said:
        raise RuntimeError(f"not every answer was well: {said}")
    return requests / seconds
