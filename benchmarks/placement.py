"""The scheduler's core alone, without Kafka and store: what one decision costs, and how that grows with the queue.

Gangs of 1 to 16 nodes, whole ones and parts, with priorities, in one pool of 1,000 nodes that is full all the time. A trial ends a run
and lets the next ones start. Aim: 500 placements a second on the whole path, and growth near flat.
"""

from __future__ import annotations

import os
import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.report import Row
from services.scheduler.domain import State, World, decide, evolve, fold
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.cluster.v1.resources_pb2 import Resources
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1.spec_pb2 import RunSpec

NODES, ENDS = 1_000, 300
QUEUES = tuple(int(it) for it in os.environ.get("TRAINYARD_BENCH_QUEUES", "1000,10000,100000").split(","))
START = datetime(2026, 1, 1, tzinfo=UTC)


def measure(home: Path) -> list[Row]:
    """`home` is not used: nothing but functions is measured."""
    rows = []
    for length in QUEUES:
        begun = time.perf_counter()
        yard = Yard(length)
        queued = Row(f"submissions decided, up to {length} queued", "1/s", [length / (time.perf_counter() - begun)])
        spent, placed = yard.work(ENDS)
        ordered = sorted(spent)
        rows += [
            queued,
            Row(f"placements with {length} queued", "1/s", [placed / sum(spent)], aim="500"),
            Row("  one decision that places, p50", "ms", [1000 * ordered[len(ordered) // 2]]),
            Row("  one decision that places, p99", "ms", [1000 * ordered[int(len(ordered) * 0.99)]]),
        ]
    return rows


class Yard:
    def __init__(self, length: int) -> None:
        self.state, self.world = State(), World(now=START)
        self._chance = random.Random(7)
        pool = cluster.CreatePool(submission_id="p", name="pool", vm_size="LOCAL", max_nodes=NODES)
        pool.provider.static.SetInParent()
        self._tell(pool)
        for number in range(NODES):
            size = Resources(cpus=64, memory_bytes=256 << 30, gpus=8)
            self._tell(cluster.AgentRegistered(agent_id=f"node-{number}", incarnation="1", pool="pool", resources=size))
        for number in range(length + NODES):
            self._tell(job.SubmitRun(submission_id=f"run-{number}", experiment=f"exp-{number % 20}", spec=self._spec()))

    def _spec(self) -> Any:
        spec = RunSpec(compute_target="pool", entry_script="a.py", priority=self._chance.choice((0, 0, 0, 5)))
        spec.source.inline.files["a.py"] = b"print()"
        spec.distribution.node_count = self._chance.randint(1, 16)
        if self._chance.random() < 0.5:
            spec.resources.CopyFrom(Resources(cpus=8, memory_bytes=8 << 30, gpus=self._chance.randint(1, 4)))
        return spec

    def _tell(self, message: Any) -> list[Any]:
        facts = decide(self.state, message, self.world)
        self.state = fold(evolve(self.state, message, self.world.now), facts, self.world.now)
        return [fact.message for fact in facts]

    def work(self, ends: int) -> tuple[list[float], int]:
        """Seconds of each decision that ended a run and placed others, and how many leases were offered."""
        spent, placed = [], 0
        for _ in range(ends):
            run = self._chance.choice(list(self.state.attempts()))
            self.world = World(now=self.world.now + timedelta(seconds=1))
            self._tell(job.CancelRun(run_id=run.id))
            for member in run.members:
                message = cluster.OutputsUploaded(run_id=run.id, epoch=run.epoch, agent_id=member.agent_id, incarnation=member.incarnation)
                begun = time.perf_counter()
                told = self._tell(message)
                seconds = time.perf_counter() - begun
            spent.append(seconds)
            placed += sum(isinstance(it, cluster.LeaseOffered) for it in told)
            self.state = self.state.without_ended([run.id])
        return spent, placed
