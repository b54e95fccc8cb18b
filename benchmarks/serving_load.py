"""What the benchmarks of servers have in common: servers on core 0, and h2load (Debian: nghttp2-client) on core 1."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from services.chassis import environments
from services.serving.adapters.server_environment import SERVER_PACKAGES
from trainyard._environment_cache import default_cache

REPO = Path(__file__).resolve().parents[1]
_PATIENCE_SECONDS = 120


def check_tools() -> None:
    """Ends the process where one is missing."""
    for tool in ("h2load", "taskset"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is not here; on Debian it is in the package {'nghttp2-client' if tool == 'h2load' else 'util-linux'}")


def our_python() -> Path:
    """Of the environment that model servers have."""
    return python(environments.definition("tensorflow", "2.21", [], extra=SERVER_PACKAGES))


def python(definition: environments.Definition) -> Path:
    return environments.build(definition, default_cache(), lambda line: None).python


def save_model(path: Path, kind: str = "perceptron") -> None:
    run([our_python(), REPO / "benchmarks" / "serving_model.py", path, kind])


def run(command: Sequence[Any]) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


@contextmanager
def model_server(folder: Path, rest_port: int, grpc_port: int, *options: object) -> Iterator[subprocess.Popen[bytes]]:
    """Ours, ready. `options` say what it serves."""
    ports = ["--grpc-port", grpc_port, "--rest-port", rest_port, "--parent-pid", os.getpid()]
    command = [our_python(), "-m", "services.serving.model_server", *options, *ports]
    with running("trainyard", command, lambda: get(f"http://127.0.0.1:{rest_port}/readyz"), folder, PYTHONPATH=str(REPO)) as process:
        yield process


def get(url: str) -> bytes:
    """Raises OSError where it is not answered with 200."""
    import urllib.request

    with urllib.request.urlopen(url, timeout=5) as answer:
        found: bytes = answer.read()
    return found


@contextmanager
def running(
    name: str, command: Sequence[object], answers: Callable[[], object], folder: Path, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """On core 0, from when `answers` raises no OSError any more."""
    log = folder / f"{name}.log"
    arguments = ["taskset", "-c", "0", *map(str, command)]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **variables}
    with (
        log.open("w") as written,
        subprocess.Popen(arguments, stdout=written, stderr=written, env=environment, cwd=folder, start_new_session=True) as process,
    ):
        try:
            _await(name, answers, process, log)
            yield process
        finally:
            process.terminate()
            process.wait(60)
            with suppress(ProcessLookupError):  # LitServe's workers outlive it
                os.killpg(process.pid, signal.SIGKILL)


def _await(name: str, answers: Callable[[], object], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            answers()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"{name} is not ready: {log.read_text()[-2000:]}")


def frame(message: bytes) -> bytes:
    """As gRPC sends it."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def load(url: str, body: Path, at_once: int, requests: int) -> tuple[float, list[float]]:
    """Requests a second, and how long each took in milliseconds. By gRPC where the body's name ends so, and else by HTTP/1.1."""
    said = load_log(url, body, at_once, requests)
    return said[0], [milliseconds for _, milliseconds in said[1]]


def load_log(url: str, body: Path, at_once: int, requests: int) -> tuple[float, list[tuple[float, float]]]:
    """The same, each with when it began, in seconds since 1970."""
    log = body.with_suffix(".log")
    log.unlink(missing_ok=True)
    kind = (
        ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        if body.suffix == ".grpc"
        else ["--h1", "-H", "content-type: application/json"]
    )
    command = ["taskset", "-c", "1", "h2load", "-n", requests, "-c", at_once, "-m", 1, "-d", body, f"--log-file={log}", url, *kind]
    begun = time.perf_counter()
    said = run(command)
    seconds = time.perf_counter() - begun
    lines = [line.split("\t") for line in log.read_text().splitlines()]
    failed = [line for line in lines if line[1] != "200"]
    if failed or len(lines) != requests:
        raise RuntimeError(f"{url}: {len(failed)} of {len(lines)} answers were no 200: {said}")
    return requests / seconds, [(int(line[0]) / 1e6, int(line[2]) / 1000) for line in lines]


def percentile(times: Sequence[float], percent: int) -> float:
    return statistics.quantiles(times, n=100)[percent - 1]
