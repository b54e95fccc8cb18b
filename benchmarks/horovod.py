"""Horovod's step under our rendezvous against plain `horovodrun --gloo` on the same two ranks, and how long hvd.init() takes.

The same script, wheel and environment: what differs is who starts the ranks and how they find each other. Trials alternate, so that
a machine that is busy for a while is busy for both.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.report import Row
from services.chassis.environments import acquire, definition
from services.trainer_agent.horovod import Ring
from trainyard._environment_cache import default_cache
from trainyard.job.v1.job_pb2 import GangFormed, GangMember

TRIALS = 9
STEPS = 300
SCRIPT = f"""
import json, os, time
import horovod.tensorflow as hvd
import tensorflow as tf
begun = time.perf_counter()
hvd.init()
ready = time.perf_counter() - begun
gradients = [tf.ones([size]) for size in (1_000_000, 100_000, 1_000, 10)]
def step():
    return hvd.grouped_allreduce(gradients)
for _ in range(30): step()
times = []
for _ in range({STEPS}):
    begun = time.perf_counter()
    step()
    times.append(time.perf_counter() - begun)
if hvd.rank() == 0:
    print("RESULT", json.dumps([ready, sorted(times)[len(times) // 4]]), flush=True)
"""
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}


def measure(home: Path) -> list[Row]:
    environment, hold = acquire(definition("tensorflow", "2.15", [], horovod=True), default_cache(), print)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "step.py")
        script.write_text(SCRIPT)
        theirs, ours = [], []
        for trial in range(TRIALS):
            # Who comes second in a pair has no advantage over all.
            if trial % 2:
                ours.append(asyncio.run(_by_ring(environment.python, script)))
            theirs.append(_by_horovodrun(environment.python, script))
            if not trial % 2:
                ours.append(asyncio.run(_by_ring(environment.python, script)))
    hold.release()
    ratios = [their_step / our_step for (_, their_step), (_, our_step) in zip(theirs, ours, strict=True)]
    return [
        Row("Horovod: step with 4.4 MB of gradients on two ranks", "ms", [step * 1e3 for _, step in ours]),
        Row("the same by plain horovodrun --gloo", "ms", [step * 1e3 for _, step in theirs]),
        Row("plain step over ours", "ratio", ratios, "at least 0.98"),
        Row("hvd.init() on two ranks", "ms", [ready * 1e3 for ready, _ in ours]),
        Row("the same by plain horovodrun --gloo", "ms", [ready * 1e3 for ready, _ in theirs]),
    ]


def _by_horovodrun(python: Path, script: Path) -> tuple[float, float]:
    argv = [
        str(python.parent / "horovodrun"),
        "--gloo",
        "-np",
        "2",
        "-H",
        "localhost:2",
        "--network-interfaces",
        "lo",
        str(python),
        str(script),
    ]
    given = {**_given(), "PATH": f"{python.parent}:{os.environ['PATH']}"}
    return _result(subprocess.run(argv, env=given, capture_output=True, text=True, check=False).stdout)


async def _by_ring(python: Path, script: Path) -> tuple[float, float]:
    ring = Ring("agent-0")
    await ring.start("127.0.0.1", 0, "of the benchmark")
    gang = GangFormed(run_id="benchmark", epoch=1, round=1, secret="of the benchmark")
    gang.members.append(GangMember(agent_id="agent-0", address="127.0.0.1", ports=[1], ranks=[0, 1]))
    ring.formed(gang)
    ranks = [
        await asyncio.create_subprocess_exec(
            str(python), str(script), env={**_given(), **ring.variables(gang, rank)}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        for rank in range(2)
    ]
    told = [(await rank.communicate())[0].decode() for rank in ranks]
    await ring.close()
    return _result(told[0])


def _given() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **QUIET}


def _result(output: str) -> tuple[float, float]:
    line = next((line for line in output.splitlines() if "RESULT" in line), None)
    if line is None:
        sys.exit(f"No rank told its times; the output was:\n{output}")
    ready, step = json.loads(line.partition("RESULT")[2])
    return float(ready), float(step)
