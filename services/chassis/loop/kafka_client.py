"""Kafka by kafka-python: direct reads and acknowledged writes, where exactness matters; and a loop that needs no group."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient

from services.chassis.records import Deliver, NewRecord, Place, Record, Unavailable
from services.chassis.topics import MAX_MESSAGE_BYTES

# After an outage a client must be back within a second or so, not after the half minute that it may back off to by default.
_RECONNECT_MS = 1000
_LOOP_TIMEOUT_SECONDS = 10.0
# What is published together leaves together, when it is flushed. Without it the first record of each partition would leave alone, and
# a request for each costs client and broker more than its records do.
_LINGER_MS = 1000


def _client(kind: Any, bootstrap: str, timeout_seconds: float, **options: Any) -> Any:
    """A consumer or producer. Raises Unavailable where no broker answers in time."""
    made = []

    def remember(**config: Any) -> Any:
        made.append(KafkaNetClient(**config))
        return made[-1]

    try:
        return kind(
            bootstrap_servers=bootstrap,
            bootstrap_timeout_ms=int(timeout_seconds * 1000),
            request_timeout_ms=int(timeout_seconds * 1000),
            reconnect_backoff_max_ms=_RECONNECT_MS,
            kafka_client=remember,
            **options,
        )
    except KafkaError as error:
        # The library leaves the thread and the sockets of a failed attempt behind; an outage would use up all there are.
        for client in made:
            client.close()
        raise Unavailable(f"Kafka at {bootstrap} does not answer: {error}") from error


def _consumer(bootstrap: str, timeout_seconds: float, **options: Any) -> Any:
    return _client(
        KafkaConsumer,
        bootstrap,
        timeout_seconds,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 * MAX_MESSAGE_BYTES,
        **options,
    )


def as_record(raw: Any) -> Record:
    return Record(raw.topic, raw.partition, raw.offset, raw.timestamp, raw.key, raw.value, tuple(raw.headers or ()))


class KafkaReader:
    """One consumer, made when first needed and made anew after an error. May be used from several threads, one at a time."""

    def __init__(self, bootstrap: str, timeout_seconds: float = 10.0) -> None:
        """A log that is silent for so long is Unavailable."""
        self._bootstrap = bootstrap
        self._timeout_seconds = timeout_seconds
        self._lock = threading.RLock()
        self._made: Any = None

    def _with_consumer(self, action: Callable[[Any], Any]) -> Any:
        with self._lock:
            try:
                self._made = self._made or _consumer(self._bootstrap, self._timeout_seconds, fetch_max_wait_ms=100)
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
        consumer = _consumer(self._bootstrap, self._timeout_seconds, fetch_max_wait_ms=100)
        try:
            partition = TopicPartition(*place)
            consumer.assign([partition])
            begin = consumer.beginning_offsets([partition])[partition]
            at = max(start, begin)
            consumer.seek(partition, at)
            heard = time.monotonic()
            while at < end:
                for raw in consumer.poll(timeout_ms=500).get(partition, ()):
                    if raw.offset >= end:
                        return
                    yield as_record(raw)
                # The position also passes what is no record: transaction markers, compacted offsets.
                before, at = at, consumer.position(partition, timeout_ms=1000) or at
                if at != before:
                    heard = time.monotonic()
                elif time.monotonic() - heard > self._timeout_seconds:
                    raise Unavailable(f"Kafka at {self._bootstrap} gives nothing of {place.topic}/{place.partition} from {at} on")
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

    def __init__(self, bootstrap: str, timeout_seconds: float = 30.0) -> None:
        """Records that are not acknowledged after so long are Unavailable."""
        self._bootstrap = bootstrap
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._made: Any = None

    def publish(self, records: Sequence[NewRecord]) -> list[tuple[Place, int]]:
        with self._lock:
            try:
                self._made = self._made or self._producer()
                futures = [
                    self._made.send(record.topic, key=record.key, value=record.value, headers=list(record.headers)) for record in records
                ]
                self._made.flush(timeout=self._timeout_seconds)
                placed = [future.get(timeout=self._timeout_seconds) for future in futures]
            except KafkaError as error:
                self._forget()
                raise Unavailable(f"Kafka at {self._bootstrap}: {type(error).__name__}: {error}") from error
        return [(Place(it.topic, it.partition), it.offset) for it in placed]

    def _producer(self) -> Any:
        return _client(
            KafkaProducer,
            self._bootstrap,
            self._timeout_seconds,
            enable_idempotence=True,
            acks="all",
            linger_ms=_LINGER_MS,
            max_request_size=2 * MAX_MESSAGE_BYTES,
            max_block_ms=int(self._timeout_seconds * 1000),
            delivery_timeout_ms=int(self._timeout_seconds * 1000) + _LINGER_MS,
        )

    def _forget(self) -> None:
        made, self._made = self._made, None
        if made is not None:
            made.close(timeout=1)

    def close(self) -> None:
        with self._lock:
            self._forget()


class KafkaLoop:
    """Every partition assigned by hand, from positions that the caller knows: no group, so no rebalance."""

    def __init__(
        self,
        bootstrap: str,
        topics: Sequence[str],
        start: Callable[[Place], int | None],
        only: Callable[[Place, int], bool] = lambda place, partitions: True,
    ) -> None:
        """`start` gives the offset to begin at; None: what comes from now on. `only` chooses partitions, given how many there are."""
        self._bootstrap = bootstrap
        self._topics = list(topics)
        self._start = start
        self._only = only
        self._at: dict[Place, int] = {}
        self._stopped = threading.Event()

    async def run(self, deliver: Deliver, ready: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopped.is_set():
            try:
                await asyncio.to_thread(self._consume, loop, deliver, ready)
            except Unavailable:
                await asyncio.sleep(0.5)

    def _consume(self, loop: asyncio.AbstractEventLoop, deliver: Deliver, ready: Callable[[], None]) -> None:
        # Errors of `deliver` are raised out here, so that a KafkaError among them does not pass for a log that is away.
        with contextlib.closing(self._polls(loop, ready)) as polls:
            for records in polls:
                asyncio.run_coroutine_threadsafe(deliver(*records), loop).result()
                self._at |= {record.place: record.offset + 1 for record in records}

    def _polls(self, loop: asyncio.AbstractEventLoop, ready: Callable[[], None]) -> Generator[list[Record], None, None]:
        consumer = _consumer(self._bootstrap, _LOOP_TIMEOUT_SECONDS, fetch_max_wait_ms=250)
        try:
            self._assign(consumer)
            loop.call_soon_threadsafe(ready)
            while not self._stopped.is_set():
                records = [as_record(raw) for raw in itertools.chain.from_iterable(consumer.poll(timeout_ms=250).values())]
                if records and not self._stopped.is_set():
                    yield records
        except KafkaError as error:
            raise Unavailable(f"Kafka at {self._bootstrap}: {error}") from error
        finally:
            consumer.close()

    def _assign(self, consumer: Any) -> None:
        """After a broken connection it goes on where it was, also where it began at the end."""
        places = []
        for topic in self._topics:
            partitions = consumer.partitions_for_topic(topic)
            if not partitions:
                raise Unavailable(f"Kafka at {self._bootstrap} has no topic {topic} (yet)")
            places += [place for n in sorted(partitions) if self._only(place := Place(topic, n), len(partitions))]
        consumer.assign([TopicPartition(*place) for place in places])
        for place in places:
            offset = self._at.get(place, self._start(place))
            if offset is None:
                consumer.seek_to_end(TopicPartition(*place))
            else:
                consumer.seek(TopicPartition(*place), offset)
            at = consumer.position(TopicPartition(*place), timeout_ms=int(_LOOP_TIMEOUT_SECONDS * 1000))
            if at is None:
                raise Unavailable(f"Kafka at {self._bootstrap} does not say where {place.topic}/{place.partition} stands")
            self._at[place] = at

    async def stop(self) -> None:
        self._stopped.set()
