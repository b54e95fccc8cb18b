"""From a line that a script writes to the same line printed by a client that follows: the clocks are one machine's."""

from __future__ import annotations

import statistics
import time
import uuid
from datetime import UTC
from pathlib import Path

from benchmarks.report import Row
from benchmarks.stack import Stack
from trainyard import Workspace
from trainyard._watch import DRIVER_LOG, Line, follow
from trainyard.cluster.v1 import cluster_pb2
from trainyard.job.v1 import job_pb2, spec_pb2

LINES, TRIALS = 200, 3
SCRIPT = b"""
import time
time.sleep(2)  # the client that follows is there by then
for number in range(%d):
    print("AT", time.time(), flush=True)
    time.sleep(0.02 + (number * 7 %% 31) / 1000)
"""


def measure(home: Path) -> list[Row]:
    stack = Stack(home)
    workspace = Workspace.from_config(home / "config.json")
    middle = Row("log line written to seen by a following client, p50", "ms", aim="under 100 ms")
    late = Row("log line written to seen by a following client, p99", "ms")
    for _ in range(TRIALS):
        taken = _one(stack, workspace)
        middle.samples.append(statistics.median(taken))
        late.samples.append(statistics.quantiles(taken, n=100)[98])
    return [middle, late]


def _one(stack: Stack, workspace: Workspace) -> list[float]:
    """Milliseconds, line by line."""
    pool = "bench-logging"
    stack.compute.CreatePool(cluster_pb2.CreatePool(submission_id=pool, name=pool, vm_size="LOCAL", min_nodes=1, max_nodes=1), timeout=30)
    run_id = f"bench_{int(time.time())}_{uuid.uuid4().hex[:8]}"
    spec = spec_pb2.RunSpec(compute_target=pool, entry_script="say.py", environment=spec_pb2.EnvironmentSpec(framework="none"))
    spec.source.inline.files["say.py"] = SCRIPT % LINES
    run = stack.jobs.SubmitRun(job_pb2.SubmitRun(submission_id=run_id, experiment="bench", spec=spec), timeout=30).run
    taken = [
        (time.time() - float(news.text[3:])) * 1000
        for news in follow(workspace, run_id, run.queued_at.ToDatetime(UTC), logs=True)
        if isinstance(news, Line) and news.log == DRIVER_LOG and news.text.startswith("AT ")
    ]
    if len(taken) != LINES:
        raise RuntimeError(f"run {run_id} wrote {LINES} lines, {len(taken)} were seen")
    return taken
