"""What run.log costs the training thread, and metrics per second from a script until history has answered with all of them, against MLflow
with SQLite, which is installed into an environment of its own, beside.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import grpc
from uv import find_uv_bin

from benchmarks.report import Row
from benchmarks.stack import Stack, Tail
from services.chassis.settings import default_cache
from trainyard import Experiment, Run, Workspace
from trainyard.cluster.v1 import cluster_pb2
from trainyard.history.v1.history_pb2 import GetMetricsRequest
from trainyard.history.v1.history_pb2_grpc import HistoryServiceStub
from trainyard.job.v1 import job_pb2, spec_pb2

MLFLOW = "mlflow==3.17.2"
STORES = ("sqlite", "file")
TRIALS = 5
SDK = Path(__file__).resolve().parents[1] / "sdk"
ON_THE_THREAD = """
import json, statistics, time
from trainyard import Run
run = Run.get_context()
run.log("warm", 0.0); run.flush()
begun = time.perf_counter()
for number in range(100_000): run.log("loss", number / 3, step=number)
burst = (time.perf_counter() - begun) / 100_000
run.flush()
alone = []
for number in range(2_000):
    work = sum(range(20_000))
    begun = time.perf_counter(); run.log("loss", number / 3, step=number); alone.append(time.perf_counter() - begun)
print(json.dumps({"burst": burst * 1e6, "step": statistics.median(alone) * 1e6}))
"""
LOGGING = b"""
import time
from trainyard import Run
run = Run.get_context()
run.log("warm", 0.0); run.flush()
begun = time.time()
for number in range(%d): run.log("loss", number / 3, step=number)
run.flush()
print("LOGGED", begun, time.time(), flush=True)
"""
POINTS = 200_000


def measure(home: Path) -> list[Row]:
    burst = Row("run.log on the training thread, in a tight loop", "us", aim="at most 5 us")
    step = Row("run.log on the training thread, between steps of work", "us", aim="at most 5 us")
    ours = Row("run.log, script to Kafka", "metrics/s")
    theirs = {
        (store, name): Row(f"MLflow {what}, {store}", "metrics/s")
        for store in STORES
        for name, what in (
            ("log_metric", "log_metric"),
            ("log_batch", "log_batch of 1,000"),
            ("log_batch_answered", "log_batch, until get_metric_history has given all"),
        )
    }
    queryable = Row("run.log, script to history that answers with all of them applied", "metrics/s")
    answered = Row("run.log, script to get_metrics of all", "metrics/s")
    ratio = Row("run.log to queryable history : MLflow's best, stored", "x", aim="at least 10")
    like_for_like = Row("run.log to get_metrics of all : MLflow until it has given all", "x", aim="at least 10")
    stack, python = Stack(home), _mlflow()
    for _ in range(TRIALS):
        cost = _on_the_thread()
        burst.samples.append(cost["burst"])
        step.samples.append(cost["step"])
        kept, applied, seen = _logged(stack)
        ours.samples.append(kept)
        queryable.samples.append(applied)
        answered.samples.append(seen)
        best, best_answered = 0.0, 0.0
        for store in STORES:
            said = subprocess.run([python, str(Path(__file__).with_name("mlflow_logging.py")), store], capture_output=True, check=True)
            found: dict[str, float] = json.loads(said.stdout)
            for name, rate in found.items():
                theirs[store, name].samples.append(rate)
            best, best_answered = max(best, *found.values()), max(best_answered, found["log_batch_answered"])
        ratio.samples.append(applied / best)
        like_for_like.samples.append(seen / best_answered)
    return [burst, step, ours, queryable, answered, *theirs.values(), ratio, like_for_like]


def _mlflow() -> str:
    """The interpreter of its environment, made once."""
    folder = default_cache() / "benchmarks" / MLFLOW
    python = folder / "bin" / "python"
    if not (folder / "whole").exists():
        print(f"installing {MLFLOW} into an environment of its own ...", flush=True)
        subprocess.run([find_uv_bin(), "venv", "-q", "--clear", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([find_uv_bin(), "pip", "install", "-q", "--python", str(python), MLFLOW], check=True)
        (folder / "whole").touch()
    return str(python)


def _on_the_thread() -> dict[str, float]:
    """A script as the agent starts it, and a listener that only reads."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/s"
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(path)
        server.listen()
        threading.Thread(target=_swallow, args=(server,), daemon=True).start()
        names = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SDK), "TRAINYARD_RUN_SOCKET": path}
        result = subprocess.run([sys.executable, "-c", ON_THE_THREAD], env=names, capture_output=True, check=True)
        server.close()
    found: dict[str, float] = json.loads(result.stdout)
    return found


def _swallow(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        while data := connection.recv(1 << 20):
            if b'{"ask"' in data:
                connection.sendall(b'{"ok": true}\n')


def _logged(stack: Stack) -> tuple[float, float, float]:
    """Metrics per second of a script in a run: from the first call until flush says that all lies in the log, until history, which answers
    no sooner than it knows all that lay there, has given a page of them, and until a client has all of them as get_metrics gives them."""
    pool = "bench-logging"
    stack.compute.CreatePool(cluster_pb2.CreatePool(submission_id=pool, name=pool, vm_size="LOCAL", min_nodes=1, max_nodes=1), timeout=30)
    run_id = f"bench_{int(time.time())}_{uuid.uuid4().hex[:8]}"
    spec = spec_pb2.RunSpec(compute_target=pool, entry_script="log.py", environment=spec_pb2.EnvironmentSpec(framework="none"))
    spec.source.inline.files["log.py"] = LOGGING % POINTS
    workspace = Workspace.from_config(stack.home / "config.json")
    tail = stack.tail(("trainyard.logs",))
    stack.jobs.SubmitRun(job_pb2.SubmitRun(submission_id=run_id, experiment="bench", spec=spec), timeout=30)
    begun, kept = _told(tail, run_id)
    history = HistoryServiceStub(grpc.insecure_channel(stack.config["services"]["history"]))
    assert history.GetMetrics(GetMetricsRequest(run_id=run_id, page_size=1), timeout=60).runs
    applied = time.time()
    values = Run(Experiment(workspace, "bench"), run_id).get_metrics()["loss"]
    seen = time.time()
    tail.close()
    if len(values) != POINTS:
        raise RuntimeError(f"history has {len(values)} of {POINTS} metrics of run {run_id}")
    return POINTS / (kept - begun), POINTS / (applied - begun), POINTS / (seen - begun)


def _told(tail: Tail, run_id: str) -> tuple[float, float]:
    """When the script began, and when the log had it all."""
    for event in tail.until(lambda _: False):
        for line in event.message.lines if event.key == run_id else ():  # type: ignore[attr-defined]
            if line.startswith("LOGGED "):
                _, begun, kept = line.split()
                return float(begun), float(kept)
    raise AssertionError("until never ends but by an error")
