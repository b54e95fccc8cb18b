"""From the submission to the first line of the user's script: pool warm, and pool at zero. Aims: under 1 s, under 3 s."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

from benchmarks.report import Row
from benchmarks.stack import Stack
from trainyard.cluster.v1 import cluster_pb2
from trainyard.job.v1 import job_pb2, spec_pb2

SCRIPT = b"import time\nprint('FIRST', time.time(), flush=True)\n"
PHASES = ("RunQueued", "RunScaling", "LeaseOffered", "LeaseAccepted", "TaskPrepared", "GangFormed", "TaskStarted")
TERMINAL = {f"trainyard.job.v1.{name}" for name in ("RunCompleted", "RunFailed", "RunCanceled", "RunRejected")}
TRIALS = 10


def measure(home: Path) -> list[Row]:
    stack = Stack(home)
    rows = _series(stack, "warm pool", "under 1 s", [_pool(stack, min_nodes=1)] * (TRIALS + 1))
    return rows + _series(stack, "pool at zero", "under 3 s", [_pool(stack, min_nodes=0) for _ in range(TRIALS + 1)])


def _pool(stack: Stack, min_nodes: int) -> str:
    name = f"bench{uuid.uuid4().hex[:8]}"
    request = cluster_pb2.CreatePool(
        submission_id=name, name=name, vm_size="STANDARD_D1", vm_priority="dedicated", min_nodes=min_nodes, max_nodes=1
    )
    request.idle_before_scaledown.FromSeconds(1)
    stack.compute.CreatePool(request, timeout=30)
    return name


def _series(stack: Stack, label: str, aim: str, pools: list[str]) -> list[Row]:
    total = Row(f"submit to first line, {label}", "s", aim=aim)
    phases = {phase: Row(f"  until {phase}, {label}", "s") for phase in PHASES}
    for trial, pool in enumerate(pools):
        first_line, seen = _one(stack, pool)
        if trial == 0:  # builds the environment and warms the page cache
            continue
        total.samples.append(first_line)
        for phase, at in seen.items():
            phases[phase].samples.append(at)
    stack.compute.DeletePool(cluster_pb2.DeletePool(name=pools[-1]), timeout=30) if len(set(pools)) == 1 else None
    return [total, *(row for row in phases.values() if row.samples)]


def _one(stack: Stack, pool: str) -> tuple[float, dict[str, float]]:
    """Seconds from the call to the script's first line, and to each phase by its event's time."""
    run_id = f"bench_{int(time.time())}_{uuid.uuid4().hex[:8]}"
    spec = spec_pb2.RunSpec(compute_target=pool, entry_script="first.py", environment=spec_pb2.EnvironmentSpec(framework="none"))
    spec.source.inline.files["first.py"] = SCRIPT
    tail = stack.tail()
    begun = time.time()
    stack.jobs.SubmitRun(job_pb2.SubmitRun(submission_id=run_id, experiment="bench", spec=spec), timeout=30)
    first_line = float("nan")
    seen: dict[str, float] = {}
    events = list(tail.until(lambda event: event.type in TERMINAL and event.message.run_id == run_id))  # type: ignore[attr-defined]
    tail.close()
    for event in events:
        if getattr(event.message, "run_id", "") != run_id:
            continue
        phase = event.type.rpartition(".")[2]
        if phase in PHASES:
            seen.setdefault(phase, event.time.timestamp() - begun)
        for line in getattr(event.message, "lines", ()):
            if line.startswith("FIRST "):
                first_line = float(line.split()[1]) - begun
    if first_line != first_line:
        raise RuntimeError(f"run {run_id} printed nothing; its end: {events[-1].message}")
    return first_line, seen
