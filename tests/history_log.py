"""A log for history: runs with metrics, lines and lineage, as records that a reader could have given."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from services.chassis.records import NewRecord
from services.chassis.topics import topics
from trainyard._cloudevents import Outgoing
from trainyard._kafka import partition_of
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.dataset.v1.dataset_pb2 import DatasetVersionRegistered
from trainyard.endpoint.v1.endpoint_pb2 import EndpointLive, EndpointStarting
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet, Failure
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1 import telemetry_pb2 as telemetry
from trainyard.job.v1.spec_pb2 import DatasetInput, Distribution, EnvironmentSpec, Horovod, RunSpec
from trainyard.model.v1.model_pb2 import AliasMoved, Lineage, ModelVersionRegistered

AGENTS = "trainyard.agents"
JOBS, TASKS, METRICS, LOGS = "trainyard.jobs", "trainyard.tasks", "trainyard.metrics", "trainyard.logs"
DRIVER = "azureml-logs/70_driver_log.txt"
Headers = list[tuple[str, bytes]]


@dataclass(frozen=True)
class Raw:
    """As kafka-python gives it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


@dataclass
class Log:
    """Records in the order of their writing, one millisecond after the other."""

    now: int = 1_700_000_000_000
    records: list[Raw] = field(default_factory=list)
    _ends: dict[tuple[str, int], int] = field(default_factory=dict)
    _count: int = 0

    def say(self, topic: str, key: str, message: Message, event_id: str = "") -> Raw:
        self._count += 1
        record = new_record(topic, key, message, event_id or f"event-{self._count}")
        return self.put(topic, record.key, record.value, list(record.headers))

    def put(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, partition: int | None = None) -> Raw:
        if partition is None:
            partition = partition_of((key or b"").decode("utf-8", "replace"), topics()[topic].partitions)
        offset = self._ends.get((topic, partition), 0)
        self._ends[topic, partition] = offset + 1
        self.now += 1
        raw = Raw(topic, partition, offset, self.now, key, value, headers)
        self.records.append(raw)
        return raw

    def again(self, raw: Raw) -> Raw:
        """The same event a second time."""
        return self.put(raw.topic, raw.key, raw.value, list(raw.headers), raw.partition)  # type: ignore[arg-type]


def new_record(topic: str, key: str, message: Message, event_id: str) -> NewRecord:
    from datetime import UTC, datetime

    event = Outgoing(topic, key, message, event_id, "a test", datetime.fromtimestamp(1_700_000_000, UTC))
    return NewRecord(topic, key.encode(), event.value(), tuple(event.headers()))


def queued(run_id: str, experiment: str = "mnist", number: int = 1, **spec: Any) -> job.RunQueued:
    found = job.RunQueued(run_id=run_id, experiment=experiment, number=number, spec=RunSpec(**spec), why="waits for a node")
    found.queued_at.FromMilliseconds(1_700_000_000_000 + number)
    return found


def opened(run_id: str, experiment: str = "mnist", number: int = 1, parent: str = "", **more: Any) -> job.RunOpened:
    found = job.RunOpened(run_id=run_id, experiment=experiment, number=number, parent_run_id=parent, **more)
    found.opened_at.FromMilliseconds(1_700_000_000_000 + number)
    return found


def a_file(path: str, run_id: str = "r", size: int = 1) -> Artifact:
    return Artifact(path=path, size_bytes=size, sha256="0" * 64, object_key=f"runs/{run_id}/1/{path}")


def batch(run_id: str, *values: float, name: str = "loss", epoch: int = 1, rank: int = 0) -> telemetry.MetricBatch:
    points = [telemetry.MetricPoint(name=name, number=value, kind="scalar") for value in values]
    return telemetry.MetricBatch(run_id=run_id, epoch=epoch, rank=rank, points=points)


def chunk(run_id: str, first: int, *lines: str, epoch: int = 1, rank: int = 0, log: str = DRIVER, last: bool = False) -> telemetry.LogChunk:
    return telemetry.LogChunk(run_id=run_id, epoch=epoch, rank=rank, log=log, first_line=first, lines=lines, last=last)


def a_whole_run(log: Log, run_id: str, number: int = 1, end: str = "completed", metrics: int = 3) -> None:
    """From queued to its end, with a second of everything that a run can have."""
    data = DatasetInput(name="data", dataset="digits", version=2)
    environment = EnvironmentSpec(framework="tensorflow", framework_version="2.15")
    log.say(
        JOBS, run_id, queued(run_id, number=number, inputs=[data], environment=environment, tags={"kind": "whole"}, compute_target="cpu")
    )
    log.say(JOBS, run_id, job.RunPreparing(run_id=run_id, epoch=1, agent_ids=["agent-0"]))
    log.say(TASKS, run_id, cluster.TaskPhase(run_id=run_id, epoch=1, agent_id="agent-0", phase="environment", detail="from cache"))
    log.say(JOBS, run_id, job.RunStarted(run_id=run_id, epoch=1))
    for step in range(metrics):
        log.say(METRICS, run_id, batch(run_id, 1 / (step + 1), name=("loss", "accuracy")[step % 2]))
        log.say(LOGS, run_id, chunk(run_id, step, f"step {step}"))
    log.say(LOGS, run_id, chunk(run_id, metrics, "bye", last=True))
    log.say(JOBS, run_id, job.RunTagged(run_id=run_id, set={"best": "yes"}, removed=["kind"]))
    log.say(JOBS, run_id, job.RunFinalizing(run_id=run_id, epoch=1))
    outputs = ArtifactSet(files=[a_file("outputs/model/saved_model.pb", run_id), a_file(DRIVER, run_id)])
    log.say(TASKS, run_id, cluster.OutputsUploaded(run_id=run_id, epoch=1, agent_id="agent-0", outputs=outputs))
    if end == "completed":
        log.say(JOBS, run_id, job.RunCompleted(run_id=run_id, epoch=1, outputs=outputs))
    else:
        failure = Failure(code="ScriptFailed", message="train.py exited with code 3", last_lines=["ValueError: boom"], exit_code=3)
        log.say(JOBS, run_id, job.RunFailed(run_id=run_id, epoch=1, failure=failure, outputs=outputs))


def a_gang(log: Log, run_id: str, number: int = 1) -> None:
    """Two nodes of two ranks: preempted, restarted after rank 2 failed, then grown by a round and completed; late words of zombies between."""
    spec = {"compute_target": "cpu", "max_restarts": 1, "user": "ann", "priority": 3}
    log.say(JOBS, run_id, queued(run_id, number=number, distribution=Distribution(node_count=2, horovod=Horovod(max_nodes=3)), **spec))
    for epoch in (1, 2, 3):
        agents = [f"agent-{epoch}{node}" for node in range(2)]
        log.say(JOBS, run_id, job.RunPreparing(run_id=run_id, epoch=epoch, agent_ids=agents))
        log.say(JOBS, run_id, formed(run_id, epoch, agents))
        log.say(JOBS, run_id, job.RunStarted(run_id=run_id, epoch=epoch))
        for rank in range(4):
            log.say(TASKS, run_id, cluster.TaskStarted(run_id=run_id, epoch=epoch, agent_id=agents[rank // 2], incarnation="i", rank=rank))
            log.say(METRICS, run_id, batch(run_id, float(rank), epoch=epoch, rank=rank))
        log.say(METRICS, run_id, batch(run_id, 7.0, name="only-3", epoch=epoch, rank=3))
        log.say(TASKS, run_id, checkpoint(run_id, epoch, agents[0], 1))
        log.say(TASKS, run_id, checkpoint(run_id, epoch, agents[0], 2, "model.index", "model.data"))
        if epoch == 1:
            log.say(JOBS, run_id, job.RunPreempted(run_id=run_id, epoch=1, why="other needs the nodes", by="other"))
            log.say(JOBS, run_id, job.RunRequeued(run_id=run_id, lost_epoch=1, why="preempted by other"))
            log.say(TASKS, run_id, checkpoint(run_id, 1, agents[0], 3))
            log.say(TASKS, run_id, exited(run_id, 1, agents[0], 0, 1, at=1))
        elif epoch == 2:
            log.say(TASKS, run_id, exited(run_id, 2, agents[0], 0, -15, at=900, stopped=True))
            log.say(TASKS, run_id, exited(run_id, 2, agents[1], 3, 4, at=1001))
            log.say(TASKS, run_id, exited(run_id, 2, agents[1], 2, 3, at=1000))
            log.say(JOBS, run_id, job.RunRequeued(run_id=run_id, lost_epoch=2, why="rank 2 exited with code 3", restart=True))
    log.say(JOBS, run_id, job.GangWaiting(run_id=run_id, epoch=3, why="1 of 2 nodes"))
    log.say(JOBS, run_id, formed(run_id, 3, ["agent-30", "agent-31", "agent-9"], round_=2))
    for rank in range(4):
        log.say(TASKS, run_id, exited(run_id, 3, f"agent-3{rank // 2}", rank, 0, at=2000))
    log.say(JOBS, run_id, job.RunFinalizing(run_id=run_id, epoch=3))
    log.say(JOBS, run_id, job.RunCompleted(run_id=run_id, epoch=3, outputs=ArtifactSet(files=[a_file(DRIVER, run_id)])))


def formed(run_id: str, epoch: int, agents: Sequence[str], round_: int = 1) -> job.GangFormed:
    members = [
        job.GangMember(agent_id=agent, incarnation="i", address=f"127.0.0.{node + 2}", ranks=[2 * node, 2 * node + 1])
        for node, agent in enumerate(agents)
    ]
    return job.GangFormed(run_id=run_id, epoch=epoch, members=members, round=round_, secret="hidden")


def exited(run_id: str, epoch: int, agent: str, rank: int, code: int, *, at: int, stopped: bool = False) -> cluster.TaskExited:
    made = cluster.TaskExited(run_id=run_id, epoch=epoch, agent_id=agent, incarnation="i", rank=rank, exit_code=code, stopped=stopped)
    made.exited_at.seconds = at
    made.last_lines.append(f"rank {rank} says goodbye")
    return made


def checkpoint(run_id: str, epoch: int, agent: str, number: int, *paths: str) -> cluster.CheckpointSaved:
    files = ArtifactSet(files=[a_file(path, run_id, size=10) for path in paths or ("checkpoint",)])
    return cluster.CheckpointSaved(run_id=run_id, epoch=epoch, agent_id=agent, incarnation="i", number=number, checkpoint=files)


def a_pool(log: Log, name: str = "cpu") -> None:
    """Made, resized, changed, refused something, and the policy beside it."""
    made = cluster.PoolCreated(name=name, min_nodes=0, max_nodes=2, note="capped to 2 cores")
    log.say(AGENTS, name, made)
    log.say(AGENTS, name, cluster.PoolResized(name=name, agent_ids=["agent-0", "agent-1"], why="2 nodes for one"))
    log.say(AGENTS, name, cluster.PoolUpdated(name=name, min_nodes=1, max_nodes=8))
    log.say(AGENTS, name, cluster.PoolRejected(name=name, failure=Failure(message="no such shape")))
    log.say(AGENTS, "policy", cluster.PolicyChanged(policy=cluster.Policy(fair_share=cluster.FAIR_SHARE_USER)))


def a_model_of(log: Log, run_id: str, model: str = "digits-net", version: int = 1) -> None:
    """Registered from the run, named by an alias, and deployed; and the dataset that the run read."""
    log.say("trainyard.datasets", "digits", DatasetVersionRegistered(name="digits", version=2, based_on="raw", based_on_version=1))
    registered = ModelVersionRegistered(model=model, version=version, lineage=Lineage(run_id=run_id, epoch=1))
    log.say("trainyard.models", model, registered)
    log.say("trainyard.models", model, AliasMoved(model=model, alias="champion", version=version))
    log.say("trainyard.endpoints", "web", EndpointStarting(endpoint="web", model=model, version=version, deployment=1))
    log.say("trainyard.endpoints", "web", EndpointLive(endpoint="web", deployment=1))


def garbage(log: Log) -> None:
    """What no reader should fall over."""
    log.put(JOBS, b"a", b"\xff\xff\xff", [("ce_type", b"trainyard.job.v1.RunQueued"), ("ce_id", b"g1")])
    log.put(JOBS, b"a", b"hello", [])
    log.put(JOBS, b"a", None, [("ce_type", b"trainyard.job.v1.RunQueued"), ("ce_id", b"g2")])
    log.put(METRICS, b"\xff\xfe", b"", [("ce_type", b"trainyard.job.v1.MetricBatch"), ("ce_id", b"g3")], partition=0)
    log.put(TASKS, b"a", b"", [("ce_type", b"trainyard.job.v9.FromTheFuture"), ("ce_id", b"g4")])
    log.put(LOGS, b"a\0b", b"", [("ce_type", b"trainyard.job.v1.LogChunk"), ("ce_id", b"g5")])
    too_far = chunk("far", (1 << 64) - 2, "x")
    log.put(LOGS, b"far", too_far.SerializeToString(), [("ce_type", b"trainyard.job.v1.LogChunk"), ("ce_id", b"g6")])
    other = queued("somebody else").SerializeToString()
    log.put(JOBS, b"a", other, [("ce_type", b"trainyard.job.v1.RunQueued"), ("ce_id", b"g7")])


GARBAGE = 8


def interleaved(records: Iterable[Raw], seed: int) -> list[Raw]:
    """In another order, but each partition in its own."""
    lanes: dict[tuple[str, int], list[Raw]] = {}
    for raw in records:
        lanes.setdefault((raw.topic, raw.partition), []).append(raw)
    chance = random.Random(seed)
    order = [place for place, lane in lanes.items() for _ in lane]
    chance.shuffle(order)
    walks = {place: iter(lane) for place, lane in lanes.items()}
    return [next(walks[place]) for place in order]
