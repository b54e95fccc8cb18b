"""Our model server beside servers that do nothing: TensorFlow Serving's API over gRPC and REST, each in turn on core 0, load from core 1.

What nothing costs is what gRPC in Python and an ASGI server cost; the rest is ours. h2load (Debian: nghttp2-client) makes the load.
"""

from __future__ import annotations

import json
import socket
import struct
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import grpc
import httpx

from benchmarks import serving_load
from benchmarks.report import Row
from services.chassis import environments
from services.serving.model_server.wire import Wire
from tests.conftest import free_port

TRIALS, REQUESTS = 5, {1: 2000, 16: 6000}
_CALL = "/tensorflow.serving.PredictionService/Predict"
_PATH = "/v1/models/mlp:predict"
_X = [(number % 17) / 17 for number in range(784)]
_AIM = "0.8 of what nothing makes"


def measure(_: Path) -> list[Row]:
    serving_load.check_tools()
    asgi = serving_load.python(environments.definition("none", "", ["uvicorn==0.54.0", "httptools==0.9.0"]))
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        serving_load.save_model(folder / "model")
        ports, nothing = ({"grpc": free_port(), "rest": free_port()} for _ in range(2))
        about = ["--model-name=mlp", f"--model-path={folder / 'model'}", "--version=1"]
        stack.enter_context(serving_load.model_server(folder, ports["rest"], ports["grpc"], *about))
        bodies, answers = _bodies(folder), _answers(ports)
        for way, python in (("grpc", serving_load.our_python()), ("rest", asgi)):
            (folder / f"{way}.answer").write_bytes(answers[way])
            command = [python, serving_load.REPO / "benchmarks" / "serving_nothing.py", way, nothing[way], folder / f"{way}.answer"]
            stack.enter_context(serving_load.running(f"nothing-{way}", command, partial(_connect, nothing[way]), folder))
        rates: dict[tuple[str, int, str], list[float]] = defaultdict(list)
        for _trial in range(TRIALS):
            for way, body in bodies.items():
                for at_once, requests in REQUESTS.items():
                    rates[way, at_once, "nothing"].append(_load(nothing[way], way, body, at_once, requests))
                    rates[way, at_once, "ours"].append(_load(ports[way], way, body, at_once, requests))
    return [row for way in ("grpc", "rest") for at_once in REQUESTS for row in _rows(way, at_once, rates)]


def _connect(port: int) -> None:
    """Raises OSError where nobody listens."""
    socket.create_connection(("127.0.0.1", port), 5).close()


def _rows(way: str, at_once: int, rates: dict[tuple[str, int, str], list[float]]) -> Iterator[Row]:
    what = f"{way} Predict, {at_once} in flight"
    mine, floor = rates[way, at_once, "ours"], rates[way, at_once, "nothing"]
    yield Row(f"{what}", "requests/s", mine)
    yield Row(f"{what}, doing nothing", "requests/s", floor)
    yield Row(f"{what}, to nothing", "times", [a / b for a, b in zip(mine, floor, strict=True)], _AIM)


def request(model: str) -> bytes:
    """A PredictRequest with one row for it."""
    made = Wire().PredictRequest()
    made.model_spec.name = model
    tensor = made.inputs["x"]
    tensor.dtype, tensor.tensor_content = 1, struct.pack("<784f", *_X)
    for size in (1, 784):
        tensor.tensor_shape.dim.add(size=size)
    return bytes(made.SerializeToString())


def _bodies(folder: Path) -> dict[str, Path]:
    message = request("mlp")
    made = {"grpc": folder / "body.grpc", "rest": folder / "body.json"}
    made["grpc"].write_bytes(serving_load.frame(message))
    made["rest"].write_text(json.dumps({"instances": [_X]}))
    return made


def _answers(ports: dict[str, int]) -> dict[str, bytes]:
    """What our server says, once it does: the same is sent by whoever does nothing."""
    url = f"http://127.0.0.1:{ports['rest']}"
    with grpc.insecure_channel(f"127.0.0.1:{ports['grpc']}") as channel:
        by_grpc = channel.unary_unary(_CALL, bytes, bytes)(request("mlp"), timeout=60)
    by_rest = httpx.post(f"{url}{_PATH}", json={"instances": [_X]}, timeout=60)
    assert len(by_rest.json()["predictions"][0]) == 10
    return {"grpc": by_grpc, "rest": by_rest.content}


def _load(port: int, way: str, body: Path, at_once: int, requests: int) -> float:
    """Requests a second."""
    return serving_load.load(f"http://127.0.0.1:{port}{_CALL if way == 'grpc' else _PATH}", body, at_once, requests)[0]
