"""What run.log costs the training thread, and metrics per second from a script until Kafka has them, against MLflow with SQLite.

MLflow is installed into an environment of its own, beside. Until the history service is asked here, Kafka is where a metric is
"kept": its reader can have it from then on.
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

from uv import find_uv_bin

from benchmarks.report import Row
from benchmarks.stack import Stack
from services.chassis.settings import default_cache
from trainyard.cluster.v1 import cluster_pb2
from trainyard.job.v1 import job_pb2, spec_pb2

MLFLOW = "mlflow==3.17.2"
TRIALS = 3
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
TO_KAFKA = b"""
import time
from trainyard import Run
run = Run.get_context()
run.log("warm", 0.0); run.flush()
begun = time.perf_counter()
for number in range(%d): run.log("loss", number / 3, step=number)
run.flush()
print("PER SECOND", %d / (time.perf_counter() - begun), flush=True)
"""
POINTS = 200_000


def measure(home: Path) -> list[Row]:
    burst = Row("run.log on the training thread, in a tight loop", "us", aim="at most 5 us")
    step = Row("run.log on the training thread, between steps of work", "us", aim="at most 5 us")
    ours = Row("run.log, script to Kafka", "metrics/s")
    single = Row("MLflow log_metric, SQLite", "metrics/s")
    batched = Row("MLflow log_batch of 1,000, SQLite", "metrics/s")
    ratio = Row("run.log to Kafka : MLflow's best", "x", aim="at least 10")
    stack, python = Stack(home), _mlflow()
    for _ in range(TRIALS):
        cost = _on_the_thread()
        burst.samples.append(cost["burst"])
        step.samples.append(cost["step"])
        ours.samples.append(_to_kafka(stack))
        found = json.loads(
            subprocess.run([python, str(Path(__file__).with_name("mlflow_logging.py"))], capture_output=True, check=True).stdout
        )
        single.samples.append(found["log_metric"])
        batched.samples.append(found["log_batch"])
        ratio.samples.append(ours.samples[-1] / max(found.values()))
    return [burst, step, ours, single, batched, ratio]


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


def _to_kafka(stack: Stack) -> float:
    """By a script in a run of its own: from the first call until flush says that all lies in the log."""
    pool = "bench-logging"
    stack.compute.CreatePool(cluster_pb2.CreatePool(submission_id=pool, name=pool, vm_size="LOCAL", min_nodes=1, max_nodes=1), timeout=30)
    run_id = f"bench_{int(time.time())}_{uuid.uuid4().hex[:8]}"
    spec = spec_pb2.RunSpec(compute_target=pool, entry_script="log.py", environment=spec_pb2.EnvironmentSpec(framework="none"))
    spec.source.inline.files["log.py"] = TO_KAFKA % (POINTS, POINTS)
    tail = stack.tail(("trainyard.logs",))
    stack.jobs.SubmitRun(job_pb2.SubmitRun(submission_id=run_id, experiment="bench", spec=spec), timeout=30)
    found = 0.0
    for event in tail.until(lambda event: event.key == run_id and event.message.last):  # type: ignore[attr-defined]
        for line in event.message.lines if event.key == run_id else ():  # type: ignore[attr-defined]
            if line.startswith("PER SECOND "):
                found = float(line.rpartition(" ")[2])
    tail.close()
    if not found:
        raise RuntimeError(f"run {run_id} did not say how fast it was")
    return found
