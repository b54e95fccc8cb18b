"""Runs through the whole path on real Kafka: a scheduler process, and agents that are simulated and answer at once.

Gangs of 1 to 16 whole nodes wait in one queue for 1,000 nodes. A placement is one lease of a gang that was offered. Aim: 500 a second
(published elsewhere: Kueue 42, Armada's default limit 100).
"""

from __future__ import annotations

import functools
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from kafka import KafkaConsumer, TopicPartition

from benchmarks.report import Row
from deploy.local import cache, kafka
from services.chassis.loop.kafka_client import KafkaPublisher
from services.chassis.records import NewRecord
from services.chassis.topics import make_topics, topics
from services.trainer_agent.reporter import as_record
from tests.conftest import await_port, free_port
from trainyard._cloudevents import decode
from trainyard._gang import ranks_of
from trainyard._kafka import partition_of
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.cluster.v1.resources_pb2 import Resources
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1.spec_pb2 import RunSpec

NODES = int(os.environ.get("TRAINYARD_BENCH_NODES", "1000"))
RUNS = int(os.environ.get("TRAINYARD_BENCH_RUNS", "10000"))
LOOPS = os.environ.get("TRAINYARD_BENCH_LOOPS", "faust,kafka").split(",")
POOL, SOURCE = "bench", "bench/simulated-agents"
_PORTION = 500
_PATIENCE_SECONDS = 120.0


def measure(home: Path) -> list[Row]:
    """`home` is not used: it brings its own broker, because the topics' names are fixed."""
    rows = []
    for loop in LOOPS:
        placements = Row(f"placements, whole path, {loop} loop, {RUNS} runs, {NODES} nodes", "1/s", aim="500")
        ends = Row(f"  runs from queued to completed, {loop} loop", "1/s")
        accepted = Row(f"  submissions taken into the queue, {loop} loop", "1/s")
        spent = [
            Row(f"  processor time of the {whose} a lease, {loop} loop", "ms") for whose in ("scheduler", "broker", "simulated agents")
        ]
        with broker() as (bootstrap, kafka_pid), scheduler(bootstrap, loop) as scheduler_pid:
            world = Agents(bootstrap)
            world.register()
            before = [_processor_seconds(pid) for pid in (scheduler_pid, kafka_pid, os.getpid())]
            accepted.samples.append(world.submit())
            rate, run_rate = world.work()
            placements.samples.append(rate)
            ends.samples.append(run_rate)
            for row, pid, then in zip(spent, (scheduler_pid, kafka_pid, os.getpid()), before, strict=True):
                row.samples.append(1000 * (_processor_seconds(pid) - then) / world.placed)
        rows += [placements, ends, accepted, *spent]
    return rows


def _processor_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


@contextmanager
def broker() -> Iterator[tuple[str, int]]:
    """Its address, and its process."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        process = kafka.start(cache.part("kafka"), Path(folder), port, free_port())
        try:
            await_port(port, lambda: process.poll() is None)
            make_topics(f"127.0.0.1:{port}")
            yield f"127.0.0.1:{port}", process.pid
        finally:
            process.kill()
            process.wait()


@contextmanager
def scheduler(bootstrap: str, loop: str) -> Iterator[int]:
    """Its process."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TRAINYARD_")},
            "TRAINYARD_KAFKA_BOOTSTRAP": bootstrap,
            "TRAINYARD_HOME": folder,
            "TRAINYARD_LOOP": loop,
            # Nobody beats here, and nobody is dead.
            "TRAINYARD_SCHEDULER__SUSPECT_AFTER_SECONDS": "3600",
            "TRAINYARD_SCHEDULER__LOST_AFTER_SECONDS": "7200",
            "TRAINYARD_SCHEDULER__OFFER_SECONDS": "600",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen([sys.executable, "-m", "services.scheduler"], env=environment, stdout=log, stderr=log)
        try:
            yield process.pid
        except BaseException:
            print((Path(folder) / "log").read_text()[-3000:], file=sys.stderr)
            raise
        finally:
            process.terminate()
            process.wait()


class Agents:
    """All nodes in one process: what is offered is taken, prepared, run and done at once."""

    def __init__(self, bootstrap: str) -> None:
        self._publisher = KafkaPublisher(bootstrap)
        self._consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, fetch_max_wait_ms=5)
        places = [TopicPartition(topic, part) for topic in ("trainyard.leases", "trainyard.jobs") for part in self._partitions(topic)]
        self._consumer.assign(places)
        self._consumer.seek_to_beginning(*places)
        self._held: dict[tuple[str, str], Any] = {}
        self.queued = self.placed = self.completed = 0

    def _partitions(self, topic: str) -> list[int]:
        return sorted(self._consumer.partitions_for_topic(topic))

    def register(self) -> None:
        pool = cluster.CreatePool(submission_id=POOL, name=POOL, vm_size="LOCAL", max_nodes=NODES)
        pool.provider.static.SetInParent()
        records = [as_record("trainyard.agents", POOL, pool, SOURCE)]
        for number in range(NODES):
            message = cluster.AgentRegistered(agent_id=f"bench-{number}", incarnation="1", address="127.0.0.1", pool=POOL)
            message.resources.CopyFrom(Resources(cpus=8, memory_bytes=64 << 30))
            records.append(as_record("trainyard.agents", message.agent_id, message, SOURCE))
        # One partition for all of a pool's events, another for an agent's: the pool must be there first.
        self._publish(records[:1])
        time.sleep(3)
        self._publish(records[1:])
        time.sleep(3)

    def submit(self) -> float:
        """Submissions that became queued runs, a second."""
        chance = random.Random(5)
        records = []
        for _ in range(RUNS):
            spec = RunSpec(compute_target=POOL, entry_script="a.py")
            spec.source.inline.files["a.py"] = b"print()"
            spec.distribution.node_count = chance.randint(1, 16)
            run_id = uuid.uuid4().hex
            records.append(as_record("trainyard.jobs", run_id, job.SubmitRun(submission_id=run_id, experiment="bench", spec=spec), SOURCE))
        begun = time.perf_counter()
        self._publish(records)
        self.begun = begun
        self._answer(lambda: self.queued >= RUNS)
        return RUNS / (time.perf_counter() - begun)

    def work(self) -> tuple[float, float]:
        """(placements, runs completed) a second, from the first submission to the last end."""
        self._answer(lambda: self.completed >= RUNS)
        seconds = time.perf_counter() - self.begun
        return self.placed / seconds, self.completed / seconds

    def _answer(self, enough: Any) -> None:
        heard = time.monotonic()
        while not enough():
            answers: list[NewRecord] = []
            for records in self._consumer.poll(timeout_ms=50).values():
                for record in records:
                    event = decode(record.topic, record.partition, record.offset, record.key, record.value, record.headers)
                    answers += self._answers_to(event.message, record.topic, event.key)
                    heard = time.monotonic()
            self._publish(answers)
            if time.monotonic() - heard > _PATIENCE_SECONDS:
                raise TimeoutError(f"{self.queued} queued, {self.placed} placed, {self.completed} completed, and nothing more comes")

    def _answers_to(self, message: Any, topic: str, key: str) -> list[NewRecord]:
        match message:
            case job.RunQueued():
                self.queued += 1
            case job.RunCompleted():
                self.completed += 1
            case job.RunFailed() | job.RunRejected():
                raise RuntimeError(f"{message.run_id}: {message.failure.message}")
            case cluster.LeaseOffered():
                self.placed += 1
                self._held[message.run_id, message.agent_id] = message
                ports = range(2222, 2222 + len(message.ranks))
                return [
                    self._report(message, cluster.LeaseAccepted()),
                    self._report(message, cluster.TaskPrepared(address="x", ports=ports)),
                ]
            case job.GangFormed() if topic == "trainyard.leases":
                # As agents do: whoever reads this partition, and finds its name in it.
                there = [it.agent_id for it in message.members if self._lane(it.agent_id) == self._lane(key)]
                offers = [self._held.pop((message.run_id, name), None) for name in there]
                return [report for offer in offers if offer is not None for report in self._worked(offer)]
        return []

    def _worked(self, offer: Any) -> list[NewRecord]:
        ranks = ranks_of(offer.spec.distribution, offer.node_index)
        told = [it for rank in ranks for it in (cluster.TaskStarted(rank=rank), cluster.TaskExited(rank=rank))]
        for it in told:
            stamp = it.started_at if isinstance(it, cluster.TaskStarted) else it.exited_at
            stamp.FromDatetime(datetime.now(UTC))
        return [self._report(offer, it) for it in (*told, cluster.OutputsUploaded())]

    @staticmethod
    @functools.cache
    def _lane(agent_id: str) -> int:
        return partition_of(agent_id, topics()["trainyard.leases"].partitions)

    def _report(self, offer: Any, message: Any) -> NewRecord:
        message.run_id, message.epoch, message.agent_id, message.incarnation = offer.run_id, offer.epoch, offer.agent_id, offer.incarnation
        return as_record("trainyard.tasks", offer.run_id, message, SOURCE)

    def _publish(self, records: list[NewRecord]) -> None:
        for start in range(0, len(records), _PORTION):
            self._publisher.publish(records[start : start + _PORTION])
