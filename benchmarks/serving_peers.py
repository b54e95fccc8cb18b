"""Our model server beside others, one after another: the same model and the same V2 request, each in turn on core 0, load from core 1.

h2load (Debian: nghttp2-client) makes the load; it sees only HTTP's status, so each server is first asked once and its answer compared.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from benchmarks.report import Row
from services.chassis import environments
from services.serving.adapters.server_process import SERVER_PACKAGES
from services.serving.model_server.wire import Wire
from tests.conftest import free_port
from trainyard._environment_cache import default_cache

REPO = Path(__file__).resolve().parents[1]
TRIALS, REQUESTS = 3, {1: 2000, 16: 6000}
_SERVER_CORE, _LOAD_CORE = "0", "1"
_PATIENCE_SECONDS = 120
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
    for tool in ("h2load", "taskset"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is not here; on Debian it is in the package {'nghttp2-client' if tool == 'h2load' else 'util-linux'}")
    ours = _python(environments.definition("tensorflow", "2.21", [], extra=SERVER_PACKAGES))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _run([ours, REPO / "benchmarks" / "serving_model.py", folder / "model"])
        for file in (REPO / "benchmarks").glob("serving_*.py"):
            shutil.copy(file, folder)
        return [row for name in _PINS for row in _beside(name, ours, folder)]


def _beside(name: str, ours: Path, folder: Path) -> list[Row]:
    """In turns: what else goes on on the machine strikes both."""
    python = _python(environments.definition("none", "", [_PINS[name], "tensorflow-cpu==2.21.0"]))
    rates: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    times: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        servers = [stack.enter_context(_ours(ours, folder)), stack.enter_context(_peer(name, python, folder))]
        bodies = {way: body for way, body in _bodies(folder).items() if way == "rest" or servers[1].grpc_port}
        _check_answers(servers)
        for _ in range(TRIALS):
            for way, body in bodies.items():
                for at_once, requests in REQUESTS.items():
                    for server in servers:
                        rate, took = _load(server, way, body, at_once, requests, folder)
                        rates[server.name, way, at_once].append(rate)
                        times[server.name, way, at_once] += took
    return [row for way in bodies for at_once in REQUESTS for row in _rows(servers, way, at_once, rates, times)]


def _rows(servers: list[Server], way: str, at_once: int, rates: Any, times: Any) -> Iterator[Row]:
    what = f"{way} V2, {at_once} in flight"
    for server in servers:
        key = server.name, way, at_once
        beside = f" beside {servers[1].name}" if server.name == _OURS else ""
        yield Row(f"{server.name}{beside}, {what}", "requests/s", rates[key])
        cuts = statistics.quantiles(times[key], n=100)
        yield Row(f"{server.name}{beside}, {what}, p50", "ms", [cuts[49]])
        yield Row(f"{server.name}{beside}, {what}, p99", "ms", [cuts[98]])
    first, second = (rates[server.name, way, at_once] for server in servers)
    aim = _AIMS[way] if servers[1].name == "MLServer" else "more"
    yield Row(f"{_OURS} to {servers[1].name}, {what}", "times", [a / b for a, b in zip(first, second, strict=True)], aim)


def _python(definition: environments.Definition) -> Path:
    return environments.build(definition, default_cache(), lambda line: None).python


def _run(command: list[Any]) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


# -- servers


@contextmanager
def _ours(python: Path, folder: Path) -> Iterator[Server]:
    server = Server(_OURS, free_port(), free_port())
    about = ["--model-name", "mlp", "--model-path", folder / "model", "--version", "1", "--parent-pid", os.getpid()]
    ports = ["--grpc-port", server.grpc_port, "--rest-port", server.rest_port]
    with _running(server, [python, "-m", "services.serving.model_server", *about, *ports], {"PYTHONPATH": str(REPO)}, folder):
        yield server


@contextmanager
def _peer(name: str, python: Path, folder: Path) -> Iterator[Server]:
    server = Server(name, free_port(), free_port() if name == "MLServer" else 0)
    variables = {"PYTHONPATH": str(folder), "MODEL": str(folder / "model")}
    by_script = {"KServe": "serving_with_kserve.py", "Ray Serve": "serving_with_ray.py", "LitServe": "serving_with_litserve.py"}
    command: list[Any]
    if name == "MLServer":
        command = [python.with_name("mlserver"), "start", _mlserver_settings(server, folder)]
    elif name == "BentoML":
        command = [python, "-m", "bentoml", "serve", "serving_with_bentoml:Perceptron", "--host", "127.0.0.1", "--port", server.rest_port]
    else:
        command = [python, folder / by_script[name], server.rest_port, folder / "model"]
    with _running(server, command, variables, folder):
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


@contextmanager
def _running(server: Server, command: list[Any], variables: dict[str, str], folder: Path) -> Iterator[None]:
    log = folder / f"{server.name}.log"
    arguments = ["taskset", "-c", _SERVER_CORE, *map(str, command)]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **variables}
    with log.open("w") as written, subprocess.Popen(arguments, stdout=written, stderr=written, env=environment, cwd=folder) as process:
        try:
            _await_answer(server, process, log)
            yield
        finally:
            process.terminate()
            process.wait(60)


def _await_answer(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """The first real one: what says that it is ready differs from server to server."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            _by_rest(server)
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"{server.name} is not ready: {log.read_text()[-2000:]}")


# -- load


def _bodies(folder: Path) -> dict[str, Path]:
    """One request in each protocol, as their users send it: raw over gRPC, and JSON over REST."""
    made = {"grpc": folder / "grpc.bin", "rest": folder / "rest.json"}
    message = _message()
    made["grpc"].write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
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


def _load(server: Server, way: str, body: Path, at_once: int, requests: int, folder: Path) -> tuple[float, list[float]]:
    """Requests a second, and how long each took in milliseconds."""
    log = folder / "h2load.log"
    log.unlink(missing_ok=True)
    common = ["taskset", "-c", _LOAD_CORE, "h2load", "-n", requests, "-c", at_once, "-m", 1, "-d", body, f"--log-file={log}"]
    if way == "grpc":
        target = [f"http://127.0.0.1:{server.grpc_port}{_CALL}", "-H", "content-type: application/grpc", "-H", "te: trailers"]
    else:
        target = [f"http://127.0.0.1:{server.rest_port}/v2/models/mlp/infer", "--h1", "-H", "content-type: application/json"]
    begun = time.perf_counter()
    said = _run([*common, *target])
    seconds = time.perf_counter() - begun
    lines = [line.split("\t") for line in log.read_text().splitlines()]
    failed = [line for line in lines if line[1] != "200"]
    if failed or len(lines) != requests:
        raise RuntimeError(f"{server.name}, {way}: {len(failed)} of {len(lines)} answers were no 200: {said}")
    return requests / seconds, [int(line[2]) / 1000 for line in lines]


if __name__ == "__main__":
    from benchmarks.report import print_table

    print_table(measure(Path(".trainyard")))
    sys.exit(0)
