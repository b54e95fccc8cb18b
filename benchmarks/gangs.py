"""How long a gang takes to begin, and to train again after one of its agents was killed: by a new attempt, and elastically.

Every rank says by the machine's clock when its script began, when TensorFlow was imported, when `hvd.init()` was done, and each step.
The stack needs four nodes free (`make up NODE_SLOTS=4`). Aim: submit to `hvd.init()` done on 2x2 ranks under 5 s, warm.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.report import Row
from benchmarks.stack import Stack, Tail
from trainyard import AmlCompute, ComputeTarget, Experiment, MpiConfiguration, TensorFlow, Workspace
from trainyard._cloudevents import Received

STARTS, KILLS = 5, 3
TOPICS = ("trainyard.jobs", "trainyard.logs", "trainyard.agents")
FINAL = ("RunCompleted", "RunFailed", "RunCanceled")
START = """
import time
begun = time.time()
import horovod.tensorflow as hvd
imported = time.time()
hvd.init()
print("READY", begun, imported, time.time(), hvd.size(), flush=True)
"""
ELASTIC = """
import time
begun = time.time()
import horovod.tensorflow as hvd, tensorflow as tf
imported = time.time()
hvd.init()
state = hvd.elastic.TensorFlowState(variables=[tf.Variable(0.0)], step=0)
print("READY", begun, imported, time.time(), hvd.size(), flush=True)
@hvd.elastic.run
def train(state):
    while True:
        hvd.allreduce(tf.constant(1.0))
        state.step += 1
        print("STEP", time.time(), state.step, hvd.size(), flush=True)
        time.sleep(0.2)
        state.commit()
train(state)
"""
RESTART = """
import os, time
begun = time.time()
import horovod.tensorflow as hvd, tensorflow as tf
imported = time.time()
hvd.init()
print("READY", begun, imported, time.time(), hvd.size(), flush=True)
step = tf.Variable(0)
saved = tf.train.Checkpoint(step=step)
manager = tf.train.CheckpointManager(saved, "outputs", 2)
saved.restore(manager.latest_checkpoint)
while True:
    hvd.allreduce(tf.constant(1.0))
    step.assign_add(1)
    print("STEP", time.time(), int(step), hvd.size(), flush=True)
    if hvd.rank() == 0:
        manager.save()
    time.sleep(0.2)
"""


def measure(home: Path) -> list[Row]:
    bench = Bench(home)
    try:
        return [
            *bench.starts(),
            *bench.recovery("a new attempt", RESTART, elastic=False),
            *bench.recovery("elastic", ELASTIC, elastic=True),
        ]
    finally:
        bench.close()


@dataclass
class Story:
    """What a run's ranks and the platform have told. Times in seconds since 1970."""

    ready: list[list[float]] = field(default_factory=list)
    """Begun, imported, initialized, size; one a rank."""
    steps: list[list[float]] = field(default_factory=list)
    """Time, step, size."""
    facts: list[tuple[str, float, Any]] = field(default_factory=list)

    def saw(self, event: Received) -> None:
        kind = event.type.rpartition(".")[2]
        self.facts.append((kind, event.time.timestamp(), event.message))
        for line in getattr(event.message, "lines", ()):
            word, *numbers = line.split()[:5] or [""]
            if word in ("READY", "STEP"):
                (self.ready if word == "READY" else self.steps).append([float(it) for it in numbers])

    def first(self, kind: str, after: float) -> float:
        return next((at for told, at, _ in self.facts if told == kind and at > after), float("nan"))


class Bench:
    def __init__(self, home: Path) -> None:
        self._stack = Stack(home)
        self._workspace = Workspace.from_config(str(home / "config.json"))
        self._scratch = tempfile.TemporaryDirectory()
        self._pool = ComputeTarget.create(
            self._workspace,
            f"gangs{uuid.uuid4().hex[:6]}",
            AmlCompute.provisioning_configuration("STANDARD_D1", min_nodes=2, max_nodes=2),
        )
        self._pool.wait_for_completion()

    def close(self) -> None:
        self._pool.delete()
        self._scratch.cleanup()

    def starts(self) -> list[Row]:
        total = Row("submit to hvd.init() done on 2x2 ranks, warm", "s", aim="under 5 s")
        parts = [
            Row(f"  of which {name}", "s") for name in ("until the last script began", "TensorFlow's and Horovod's import", "hvd.init()")
        ]
        for trial in range(STARTS + 1):
            run, tail, submitted = self._submit(START, process_count_per_node=2)
            story = self._until(tail, run, lambda story: any(kind in FINAL for kind, _, _ in story.facts))
            if len(story.ready) != 4:
                raise RuntimeError(f"{run.id} ended in {story.facts[-1][2]}")
            if trial == 0:  # builds the environment and warms the page cache
                continue
            begun, imported, ready = (max(column) for column in list(zip(*story.ready, strict=True))[:3])
            total.samples.append(ready - submitted)
            for row, seconds in zip(parts, (begun - submitted, imported - begun, ready - imported), strict=True):
                row.samples.append(seconds)
        return [total, *parts]

    def recovery(self, label: str, script: str, *, elastic: bool) -> list[Row]:
        total = Row(f"agent killed to training again, {label}", "s")
        parts = {
            name: Row(f"  until {what}", "s")
            for name, what in (
                ("AgentRegistered", "the killed agent's successor registers"),
                ("RunRequeued", "the attempt is given up") if not elastic else ("RunScaling", "it is said"),
                ("GangFormed", "a new shape is told"),
                ("READY", "hvd.init() is done anew"),
            )
        }
        lost = Row("  steps done twice", "steps")
        for _ in range(KILLS):
            options = {"max_restarts": 3} if not elastic else {}
            bounds = {"min_nodes": 1, "max_nodes": 2} if elastic else {}
            run, tail, _ = self._submit(script, bounds=bounds, **options)
            story = self._until(tail, run, lambda story: bool(story.steps) and story.steps[-1][1] >= 75)
            killed = time.time()
            before = max(step for _, step, _ in story.steps)
            os.kill(self._pid(self._members(story)[1]), signal.SIGKILL)
            self._until(tail, run, lambda story, killed=killed: self._again(story, killed) is not None, story)
            at, step = self._again(story, killed) or (float("nan"), 0.0)
            total.samples.append(at - killed)
            lost.samples.append(before - step + 1)
            for kind, row in parts.items():
                when = max(it[2] for it in story.ready) if kind == "READY" else story.first(kind, killed)
                if when > killed:
                    row.samples.append(when - killed)
            run.cancel()
            self._until(tail, run, lambda story: any(kind in FINAL for kind, _, _ in story.facts), story)
            tail.close()
        return [total, *(row for row in parts.values() if row.samples), lost]

    def _again(self, story: Story, killed: float) -> tuple[float, float] | None:
        """The first step of the gang's next shape: (when, which)."""
        formed = story.first("GangFormed", killed)
        return next(((at, step) for at, step, _ in story.steps if at > formed), None)

    def _submit(
        self, script: str, *, bounds: dict[str, int] | None = None, process_count_per_node: int = 1, **options: Any
    ) -> tuple[Any, Tail, float]:
        folder = Path(self._scratch.name, uuid.uuid4().hex)
        folder.mkdir()
        (folder / "train.py").write_text(script)
        estimator = TensorFlow(
            str(folder),
            entry_script="train.py",
            compute_target=self._pool,
            framework_version="2.15",
            node_count=2,
            process_count_per_node=process_count_per_node,
            distributed_training=MpiConfiguration(**(bounds or {})),
            **options,
        )
        tail = self._stack.tail(TOPICS)
        submitted = time.time()
        return Experiment(self._workspace, "bench-gangs").submit(estimator), tail, submitted

    def _until(self, tail: Tail, run: Any, enough: Callable[[Story], bool], story: Story | None = None) -> Story:
        story = story or Story()

        def saw(event: Received) -> bool:
            if getattr(event.message, "run_id", run.id) == run.id:
                story.saw(event)
            return enough(story)

        for _ in tail.until(saw, 600.0):
            continue
        return story

    @staticmethod
    def _members(story: Story) -> Sequence[str]:
        return [it.agent_id for kind, _, message in story.facts if kind == "GangFormed" for it in message.members]

    @staticmethod
    def _pid(agent_id: str) -> int:
        for process in psutil.process_iter(["cmdline"]):
            if "services.trainer_agent" in (process.info["cmdline"] or []) and process.environ().get("TRAINYARD_AGENT__ID") == agent_id:
                return process.pid
        raise RuntimeError(f"no process of {agent_id} runs here")
