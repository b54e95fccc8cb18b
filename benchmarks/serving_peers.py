"""Our model server beside others, one after another: the same model and the same V2 request, each in turn on core 0, load from core 1.

h2load (Debian: nghttp2-client) makes the load; it sees only HTTP's status, so each server is first asked once and its answer compared.
"""

from __future__ import annotations

import json
import shutil
import struct
import sys
import tempfile
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from benchmarks import serving_load
from benchmarks.report import Row
from services.chassis import environments
from services.serving.model_server.wire import Wire
from tests.conftest import free_port

TRIALS, REQUESTS = 3, {1: 2000, 16: 6000}
_CALL = "/inference.GRPCInferenceService/ModelInfer"
_X = [(number % 17) / 17 for number in range(784)]
_OURS = "trainyard"
_AIMS = {"grpc": "2.5 times MLServer's", "rest": "3 times MLServer's"}
# KServe and MLServer speak V2 over REST; the others' own handlers take and give the same JSON.
_PINS = {"MLServer": "mlserver==1.7.1", "KServe": "kserve==0.21.0", "Ray Serve": "ray[serve]==2.60.0",
         "BentoML": "bentoml==1.4.39", "LitServe": "litserve==0.2.19"}  # fmt: skip


@dataclass(frozen=True)
class Server:
    name: str
    rest_port: int
    grpc_port: int = 0
    """0: it is measured over REST only."""


def measure(_: Path) -> list[Row]:
    serving_load.check_tools()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        serving_load.save_model(folder / "model")
        for file in (serving_load.REPO / "benchmarks").glob("serving_*.py"):
            shutil.copy(file, folder)
        return [row for name in _PINS for row in _beside(name, folder)]


def _beside(name: str, folder: Path) -> list[Row]:
    """In turns: what else goes on on the machine strikes both."""
    python = serving_load.python(environments.definition("none", "", [_PINS[name], "tensorflow-cpu==2.21.0"]))
    rates: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    times: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        servers = [stack.enter_context(_ours(folder)), stack.enter_context(_peer(name, python, folder))]
        bodies = {way: body for way, body in _bodies(folder).items() if way == "rest" or servers[1].grpc_port}
        _check_answers(servers)
        for _ in range(TRIALS):
            for way, body in bodies.items():
                for at_once, requests in REQUESTS.items():
                    for server in servers:
                        rate, took = serving_load.load(_url(server, way), body, at_once, requests)
                        rates[server.name, way, at_once].append(rate)
                        times[server.name, way, at_once] += took
    return [row for way in bodies for at_once in REQUESTS for row in _rows(servers, way, at_once, rates, times)]


def _rows(servers: list[Server], way: str, at_once: int, rates: Any, times: Any) -> Iterator[Row]:
    what = f"{way} V2, {at_once} in flight"
    for server in servers:
        key = server.name, way, at_once
        beside = f" beside {servers[1].name}" if server.name == _OURS else ""
        yield Row(f"{server.name}{beside}, {what}", "requests/s", rates[key])
        yield Row(f"{server.name}{beside}, {what}, p50", "ms", [serving_load.percentile(times[key], 50)])
        yield Row(f"{server.name}{beside}, {what}, p99", "ms", [serving_load.percentile(times[key], 99)])
    first, second = (rates[server.name, way, at_once] for server in servers)
    aim = _AIMS[way] if servers[1].name == "MLServer" else "more"
    yield Row(f"{_OURS} to {servers[1].name}, {what}", "times", [a / b for a, b in zip(first, second, strict=True)], aim)


# -- servers


@contextmanager
def _ours(folder: Path) -> Iterator[Server]:
    server = Server(_OURS, free_port(), free_port())
    about = ["--model-name=mlp", f"--model-path={folder / 'model'}", "--version=1"]
    with serving_load.model_server(folder, server.rest_port, server.grpc_port, *about):
        yield server


@contextmanager
def _peer(name: str, python: Path, folder: Path) -> Iterator[Server]:
    server = Server(name, free_port(), free_port() if name == "MLServer" else 0)
    variables = {"PYTHONPATH": str(folder), "MODEL": str(folder / "model")}  # a real answer is awaited: who says when it is ready differs
    by_script = {"KServe": "serving_with_kserve.py", "Ray Serve": "serving_with_ray.py", "LitServe": "serving_with_litserve.py"}
    command: list[Any]
    if name == "MLServer":
        command = [python.with_name("mlserver"), "start", _mlserver_settings(server, folder)]
    elif name == "BentoML":
        command = [python, "-m", "bentoml", "serve", "serving_with_bentoml:Perceptron", "--host", "127.0.0.1", "--port", server.rest_port]
    else:
        command = [python, folder / by_script[name], server.rest_port, folder / "model"]
    with serving_load.running(name, command, lambda: _by_rest(server), folder, **variables):
        yield server


def _mlserver_settings(server: Server, folder: Path) -> Path:
    home = folder / "mlserver"
    home.mkdir()
    settings = {"debug": False, "parallel_workers": 0, "host": "127.0.0.1", "metrics_endpoint": None}
    ports = {"http_port": server.rest_port, "grpc_port": server.grpc_port}
    (home / "settings.json").write_text(json.dumps(settings | ports))
    model = {"name": "mlp", "implementation": "serving_mlserver_runtime.SessionRuntime", "parameters": {"uri": str(folder / "model")}}
    (home / "model-settings.json").write_text(json.dumps(model))
    return home


# -- load


def _bodies(folder: Path) -> dict[str, Path]:
    """One request in each protocol, as their users send it: raw over gRPC, and JSON over REST."""
    made = {"grpc": folder / "body.grpc", "rest": folder / "body.json"}
    made["grpc"].write_bytes(serving_load.frame(_message()))
    made["rest"].write_bytes(_json())
    return made


def _message() -> bytes:
    request = Wire().message("inference.ModelInferRequest")(model_name="mlp", raw_input_contents=[struct.pack("<784f", *_X)])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 784])
    return bytes(request.SerializeToString())


def _json() -> bytes:
    return json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 784], "data": _X}]}).encode()


def _check_answers(servers: list[Server]) -> None:
    """Every server says the same, whatever protocol it is asked in."""
    found = [_by_rest(server) for server in servers] + [_by_grpc(server) for server in servers if server.grpc_port]
    for answer in found:
        if len(answer) != 10 or any(abs(a - b) > 1e-5 for a, b in zip(answer, found[0], strict=True)):
            raise RuntimeError(f"the servers disagree: {found}")


def _by_grpc(server: Server) -> list[float]:
    response = Wire().message("inference.ModelInferResponse")
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        answer = channel.unary_unary(_CALL, bytes, response.FromString)(_message(), timeout=60)
    raw = answer.raw_output_contents
    return list(struct.unpack("<10f", raw[0]) if raw else answer.outputs[0].contents.fp32_contents)


def _by_rest(server: Server) -> list[float]:
    url = f"http://127.0.0.1:{server.rest_port}/v2/models/mlp/infer"
    asked = urllib.request.Request(url, _json(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        found: list[float] = json.load(answer)["outputs"][0]["data"]
    return found


def _url(server: Server, way: str) -> str:
    return f"http://127.0.0.1:{server.grpc_port}{_CALL}" if way == "grpc" else f"http://127.0.0.1:{server.rest_port}/v2/models/mlp/infer"


if __name__ == "__main__":
    from benchmarks.report import print_table

    print_table(measure(Path(".trainyard")))
    sys.exit(0)
