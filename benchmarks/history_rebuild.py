"""A rebuild of history (read, decode, fold, SQL, swap) against bare kafka-python that reads the same log and does nothing, side by side.

It brings a broker of its own, so that the log is known: runs with their facts, metrics of ten points a batch, log lines five a chunk.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from benchmarks.report import Row
from deploy.local import cache, kafka
from services.chassis.settings import Settings
from services.chassis.topics import make_topics
from services.history.__main__ import history_of
from services.history.applying import TOPICS
from trainyard._cloudevents import Outgoing
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet
from trainyard.job.v1 import job_pb2, telemetry_pb2
from trainyard.job.v1.spec_pb2 import DatasetInput, EnvironmentSpec, RunSpec

RUNS, BATCHES, CHUNKS, TRIALS = 1000, 80, 80, 3
_PORTS = (17490, 17491)


def measure(_: Path) -> list[Row]:
    rebuilt = Row("events a rebuild of history applies", "1/s", aim="at least 20,000")
    bare = Row("events bare kafka-python reads", "1/s")
    ratio = Row("rebuild of history / bare kafka-python", "ratio")
    with tempfile.TemporaryDirectory() as folder, _broker(Path(folder)) as bootstrap:
        count = _fill(bootstrap)
        for trial in range(TRIALS):
            read = _bare(bootstrap, count)
            applied = asyncio.run(_rebuild(bootstrap, Path(folder) / f"trial-{trial}", count))
            bare.samples.append(read)
            rebuilt.samples.append(applied)
            ratio.samples.append(applied / read)
    return [rebuilt, bare, ratio]


@contextmanager
def _broker(folder: Path) -> Iterator[str]:
    process = kafka.start(cache.part("kafka"), folder / "kafka", *_PORTS)
    bootstrap = f"127.0.0.1:{_PORTS[0]}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                make_topics(bootstrap)
                break
            except Exception:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.2)
        yield bootstrap
    finally:
        process.kill()
        process.wait()


def _fill(bootstrap: str) -> int:
    """Runs side by side, as they are on a platform. Returns how many events."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=50, batch_size=1 << 18)
    count = 0
    walks = [_run(f"bench_{number:05d}_{uuid.uuid4().hex[:8]}", number + 1) for number in range(RUNS)]
    for start in range(0, RUNS, 50):
        some = walks[start : start + 50]
        for step in zip(*some, strict=True):
            for topic, key, message in step:
                event = Outgoing(topic, key, message, str(uuid.uuid4()), "bench", datetime.now(UTC))
                producer.send(topic, key=key.encode(), value=event.value(), headers=event.headers())
                count += 1
    producer.flush()
    producer.close()
    return count


def _run(run_id: str, number: int) -> Iterator[tuple[str, str, Message]]:
    data = DatasetInput(name="data", dataset="digits", version=1)
    spec = RunSpec(
        entry_script="train.py", inputs=[data], environment=EnvironmentSpec(framework="tensorflow"), tags={"number": str(number)}
    )
    yield "trainyard.jobs", run_id, job_pb2.RunQueued(run_id=run_id, experiment=f"e{number % 10}", number=number, spec=spec)
    yield "trainyard.jobs", run_id, job_pb2.RunPreparing(run_id=run_id, epoch=1, agent_ids=["agent-0"])
    yield "trainyard.jobs", run_id, job_pb2.RunStarted(run_id=run_id, epoch=1)
    for step in range(max(BATCHES, CHUNKS)):
        points = [telemetry_pb2.MetricPoint(name=f"metric_{it}", number=step / 7, kind="scalar", step=step) for it in range(10)]
        yield "trainyard.metrics", run_id, telemetry_pb2.MetricBatch(run_id=run_id, epoch=1, points=points)
        lines = [f"step {step} of {BATCHES}: loss 0.123456, accuracy 0.98{it}" for it in range(5)]
        log = "azureml-logs/70_driver_log.txt"
        yield "trainyard.logs", run_id, telemetry_pb2.LogChunk(run_id=run_id, epoch=1, log=log, first_line=5 * step, lines=lines)
    outputs = ArtifactSet(files=[Artifact(path=f"outputs/file-{it}", size_bytes=1, sha256="0" * 64) for it in range(5)])
    yield "trainyard.jobs", run_id, job_pb2.RunFinalizing(run_id=run_id, epoch=1)
    yield "trainyard.jobs", run_id, job_pb2.RunCompleted(run_id=run_id, epoch=1, outputs=outputs)


def _bare(bootstrap: str, count: int) -> float:
    consumer: Any = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=20_000,
        max_partition_fetch_bytes=4 << 20,
    )
    places = [TopicPartition(topic, number) for topic in TOPICS for number in sorted(consumer.partitions_for_topic(topic))]
    consumer.assign(places)
    begun, read = time.perf_counter(), 0
    while read < count:
        read += sum(len(records) for records in consumer.poll(timeout_ms=500).values())
    seconds = time.perf_counter() - begun
    consumer.close()
    return count / seconds


async def _rebuild(bootstrap: str, home: Path, count: int) -> float:
    history = history_of(Settings(service="history", home=home, kafka_bootstrap=bootstrap))
    begun = time.perf_counter()
    await asyncio.to_thread(history.rebuilder.run, lambda step: None)
    seconds = time.perf_counter() - begun
    positions = history.applier.database.positions()
    assert sum(positions.values()) == count, "it applied all of the log"
    history.applier.database.close()
    return count / seconds
