"""Kafka by kafka-python: direct reads and acknowledged writes, where exactness matters; and a loop that needs no group."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from services.chassis.records import Deliver, NewRecord, Place, Record, Unavailable
from services.chassis.topics import MAX_MESSAGE_BYTES

_TIMEOUT_SECONDS = 30.0


def _consumer(bootstrap: str, **options: Any) -> Any:
    try:
        return KafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=4 * MAX_MESSAGE_BYTES,
            **options,
        )
    except KafkaError as error:
        raise Unavailable(f"Kafka at {bootstrap} does not answer: {error}") from error


def as_record(raw: Any) -> Record:
    return Record(raw.topic, raw.partition, raw.offset, raw.timestamp, raw.key, raw.value, tuple(raw.headers or ()))


class KafkaReader:
    """One consumer, made when first needed and made anew after an error. May be used from several threads, one at a time."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._lock = threading.RLock()
        self._made: Any = None

    def _with_consumer(self, action: Callable[[Any], Any]) -> Any:
        with self._lock:
            try:
                self._made = self._made or _consumer(self._bootstrap)
                return action(self._made)
            except KafkaError as error:
                self.close()
                raise Unavailable(f"Kafka at {self._bootstrap}: {error}") from error

    def ends(self, topics: Sequence[str]) -> Mapping[Place, int]:
        def ask(consumer: Any) -> dict[Place, int]:
            places = []
            for topic in topics:
                partitions = consumer.partitions_for_topic(topic)
                if not partitions:
                    raise Unavailable(f"Kafka at {self._bootstrap} has no topic {topic} (yet)")
                places += [TopicPartition(topic, partition) for partition in partitions]
            return {Place(place.topic, place.partition): end for place, end in consumer.end_offsets(places).items()}

        ends: dict[Place, int] = self._with_consumer(ask)
        return ends

    def read(self, place: Place, start: int, end: int) -> Iterator[Record]:
        """A consumer of its own each time: several reads may go on side by side, as a merge does."""
        if start >= end:
            return
        consumer = _consumer(self._bootstrap, fetch_max_wait_ms=100)
        try:
            partition = TopicPartition(*place)
            consumer.assign([partition])
            begin = consumer.beginning_offsets([partition])[partition]
            consumer.seek(partition, max(start, begin))
            while consumer.position(partition) < end:
                for raw in consumer.poll(timeout_ms=1000).get(partition, ()):
                    if raw.offset >= end:
                        return
                    yield as_record(raw)
        except KafkaError as error:
            raise Unavailable(f"Kafka at {self._bootstrap}: {error}") from error
        finally:
            consumer.close()

    def close(self) -> None:
        with self._lock:
            made, self._made = self._made, None
            if made is not None:
                made.close()


class KafkaPublisher:
    """Idempotent, acknowledged by all replicas. After an error the producer is made anew: what it knew of its sequence is void."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._lock = threading.Lock()
        self._made: Any = None

    def publish(self, records: Sequence[NewRecord]) -> list[tuple[Place, int]]:
        with self._lock:
            try:
                if self._made is None:
                    self._made = KafkaProducer(
                        bootstrap_servers=self._bootstrap,
                        enable_idempotence=True,
                        acks="all",
                        linger_ms=0,
                        max_request_size=2 * MAX_MESSAGE_BYTES,
                        max_block_ms=int(_TIMEOUT_SECONDS * 1000),
                        delivery_timeout_ms=int(_TIMEOUT_SECONDS * 1000),
                    )
                futures = [
                    self._made.send(record.topic, key=record.key, value=record.value, headers=list(record.headers)) for record in records
                ]
                self._made.flush(timeout=_TIMEOUT_SECONDS)
                placed = [future.get(timeout=_TIMEOUT_SECONDS) for future in futures]
            except KafkaError as error:
                self._forget()
                raise Unavailable(f"Kafka at {self._bootstrap}: {type(error).__name__}: {error}") from error
        return [(Place(it.topic, it.partition), it.offset) for it in placed]

    def _forget(self) -> None:
        made, self._made = self._made, None
        if made is not None:
            made.close(timeout=1)

    def close(self) -> None:
        with self._lock:
            self._forget()


class KafkaLoop:
    """Every partition assigned by hand, from the positions that the store knows: no group, so no rebalance."""

    def __init__(self, bootstrap: str, topics: Sequence[str], start: Callable[[Place], int | None]) -> None:
        """`start` gives the offset to begin at; None: what comes from now on."""
        self._bootstrap = bootstrap
        self._topics = list(topics)
        self._start = start
        self._stopped = threading.Event()

    async def run(self, deliver: Deliver, ready: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopped.is_set():
            try:
                await asyncio.to_thread(self._consume, loop, deliver, ready)
            except Unavailable:
                await asyncio.sleep(0.5)

    def _consume(self, loop: asyncio.AbstractEventLoop, deliver: Deliver, ready: Callable[[], None]) -> None:
        consumer = _consumer(self._bootstrap, fetch_max_wait_ms=250)
        try:
            places = [TopicPartition(topic, n) for topic in self._topics for n in consumer.partitions_for_topic(topic) or ()]
            consumer.assign(places)
            for place in places:
                offset = self._start(Place(place.topic, place.partition))
                if offset is None:
                    consumer.seek_to_end(place)
                else:
                    consumer.seek(place, offset)
                consumer.position(place)
            loop.call_soon_threadsafe(ready)
            while not self._stopped.is_set():
                for records in consumer.poll(timeout_ms=250).values():
                    for raw in records:
                        asyncio.run_coroutine_threadsafe(_call(deliver, as_record(raw)), loop).result()
        except KafkaError as error:
            raise Unavailable(f"Kafka at {self._bootstrap}: {error}") from error
        finally:
            consumer.close()

    async def stop(self) -> None:
        self._stopped.set()


async def _call(deliver: Deliver, record: Record) -> None:
    await deliver(record)
