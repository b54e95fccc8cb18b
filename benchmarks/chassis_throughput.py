"""Events per second through the chassis (consume, effect in SQL, emit) against bare kafka-python (consume, produce), side by side."""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

from benchmarks.report import Row
from benchmarks.stack import Stack
from services.chassis.engine import Engine
from services.chassis.handler import Command, Emit
from services.chassis.loop.faust_loop import FaustLoop
from services.chassis.loop.kafka_client import KafkaLoop, KafkaPublisher, KafkaReader
from services.chassis.records import EventLoop, NewRecord
from services.chassis.service import send_for_ever
from services.chassis.store import Documents, Store
from trainyard._cloudevents import Outgoing, Received
from trainyard.job.v1 import job_pb2

EVENTS, KEYS, TRIALS = 5000, 50, 3


class Counting:
    """One document a key, one event out for each event in."""

    answers = (job_pb2.CancelRun,)

    def __init__(self, target: str) -> None:
        self._target = target

    def react(self, event: Received, documents: Documents) -> Iterable[Emit]:
        if not isinstance(event.message, job_pb2.CancelRun):
            return ()
        return [Emit(self._target, event.key, job_pb2.RunCancelRequested(run_id=event.key))]

    def apply(self, event: Received, documents: Documents) -> None:
        if isinstance(event.message, job_pb2.CancelRun):
            documents.put("count", event.key, str(int(documents.get("count", event.key) or 0) + 1).encode())

    def command(self, command: Command, documents: Documents) -> Iterable[Emit]:
        return ()

    def reset(self, documents: Documents) -> None:
        """Nothing is kept in memory."""


def measure(home: Path) -> list[Row]:
    bootstrap = Stack(home).config["kafka_bootstrap"]
    rows = {name: Row(f"events through {name}", "1/s") for name in ("bare kafka-python", "chassis on faust", "chassis on kafka-python")}
    ratio = Row("chassis on faust / bare kafka-python", "ratio")
    for trial in range(TRIALS + 1):
        rates = {
            "bare kafka-python": _bare(bootstrap),
            "chassis on faust": _chassis(bootstrap, "faust"),
            "chassis on kafka-python": _chassis(bootstrap, "kafka"),
        }
        if trial:
            for name, rate in rates.items():
                rows[name].samples.append(rate)
            ratio.samples.append(rates["chassis on faust"] / rates["bare kafka-python"])
    return [*rows.values(), ratio]


def _topics(bootstrap: str) -> tuple[str, str]:
    """Two new topics, the first filled with events."""
    mark = uuid.uuid4().hex[:8]
    source, target = f"bench.{mark}.in", f"bench.{mark}.out"
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic(name, num_partitions=4, replication_factor=1) for name in (source, target)])
    admin.close()
    events = []
    for number in range(EVENTS):
        key = f"run-{number % KEYS}"
        outgoing = Outgoing(source, key, job_pb2.CancelRun(run_id=key), str(uuid.uuid4()), "bench", datetime.now(UTC))
        events.append(NewRecord(source, key.encode(), outgoing.value(), tuple(outgoing.headers())))
    publisher = KafkaPublisher(bootstrap)
    for start in range(0, EVENTS, 500):
        publisher.publish(events[start : start + 500])
    publisher.close()
    return source, target


def _bare(bootstrap: str) -> float:
    source, target = _topics(bootstrap)
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    places = [TopicPartition(source, number) for number in range(4)]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    begun, count = time.perf_counter(), 0
    while count < EVENTS:
        for records in consumer.poll(timeout_ms=1000).values():
            for record in records:
                producer.send(target, key=record.key, value=record.value, headers=record.headers)
                count += 1
        producer.flush()
    seconds = time.perf_counter() - begun
    producer.close()
    consumer.close()
    return EVENTS / seconds


def _chassis(bootstrap: str, kind: str) -> float:
    source, target = _topics(bootstrap)
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_through(bootstrap, kind, source, target, Path(folder)))


async def _through(bootstrap: str, kind: str, source: str, target: str, folder: Path) -> float:
    """From the loop's first record to the last acknowledged output; joining the group is start-up, not throughput."""
    store = Store(f"sqlite:///{folder / 'bench.db'}")
    reader, publisher = KafkaReader(bootstrap), KafkaPublisher(bootstrap)
    engine = Engine("bench", store, Counting(target), reader, topics=[source])
    loop: EventLoop = (
        FaustLoop(bootstrap, f"bench-{uuid.uuid4().hex}", [source])
        if kind == "faust"
        else KafkaLoop(bootstrap, [source], lambda place: engine.positions.get(place, 0))
    )
    begun: list[float] = []

    async def deliver(*records: Any) -> None:
        begun or begun.append(time.perf_counter())  # type: ignore[func-returns-value]
        await engine.deliver(*records)

    tasks = [asyncio.create_task(loop.run(deliver, lambda: None)), asyncio.create_task(send_for_ever(engine, publisher))]
    while sum((await asyncio.to_thread(reader.ends, [target])).values()) < EVENTS:
        await asyncio.sleep(0.02)
    seconds = time.perf_counter() - begun[0]
    await loop.stop()
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    publisher.close()
    reader.close()
    store.close()
    return EVENTS / seconds
