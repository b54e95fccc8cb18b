"""Reading events straight from Kafka, without a consumer group: from a point, to the end or for as long as wanted."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from kafka.partitioner.default import murmur2

from trainyard._errors import PlatformUnavailableException

if TYPE_CHECKING:
    from trainyard._cloudevents import Received

_POLL_MS = 100


def partition_of(key: str, partitions: int) -> int:
    """Where every producer with Kafka's default partitioner puts that key."""
    return int((murmur2(key.encode()) & 0x7FFFFFFF) % partitions)


@dataclass(frozen=True)
class Raw:
    """A record and what it says; `event` is None where it cannot be read, `trouble` says why."""

    topic: str
    partition: int
    offset: int
    at: datetime
    key: bytes
    value: bytes
    event: Received | None
    trouble: str = ""


def in_causal_order(records: Iterable[Raw]) -> list[Raw]:
    """By time, but never before their cause, and within a partition as they lie there: clocks differ a little, causes do not."""
    items = sorted(records, key=lambda record: (record.topic, record.partition, record.offset))
    by_id = {record.event.event_id: index for index, record in reversed(list(enumerate(items))) if record.event is not None}
    waits = [0] * len(items)
    follows: list[list[int]] = [[] for _ in items]

    def after(first: int, second: int) -> None:
        follows[first].append(second)
        waits[second] += 1

    for index, record in enumerate(items):
        before = items[index - 1] if index else None
        if before is not None and (before.topic, before.partition) == (record.topic, record.partition):
            after(index - 1, index)
        cause = by_id.get(record.event.causation_id) if record.event is not None and record.event.causation_id else None
        if cause is not None and cause != index:
            after(cause, index)
    ready = [(items[index].at, index) for index in range(len(items)) if not waits[index]]
    heapq.heapify(ready)
    placed: set[int] = set()
    ordered: list[Raw] = []
    while len(ordered) < len(items):
        if not ready:
            # Forged causes may form a circle: take the earliest, so that nothing is ever left out.
            heapq.heappush(ready, min((items[index].at, index) for index in range(len(items)) if index not in placed))
        _, index = heapq.heappop(ready)
        if index in placed:
            continue
        placed.add(index)
        ordered.append(items[index])
        for later in follows[index]:
            waits[later] -= 1
            if not waits[later] and later not in placed:
                heapq.heappush(ready, (items[later].at, later))
    return ordered


class Events:
    """Reads topics of one broker."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    @contextmanager
    def _consumer(self) -> Iterator[Any]:
        try:
            consumer = KafkaConsumer(
                bootstrap_servers=self.bootstrap,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=_POLL_MS,
                max_partition_fetch_bytes=4 << 20,
            )
        except KafkaError as error:
            raise PlatformUnavailableException(
                f"Kafka at {self.bootstrap} does not answer: {error}",
                target=self.bootstrap,
                hint="see `make status`; start it with `make up`",
            ) from error
        try:
            yield consumer
        finally:
            consumer.close()

    def topics(self) -> list[str]:
        with self._consumer() as consumer:
            return sorted(topic for topic in consumer.topics() if topic.startswith("trainyard."))

    def partitions(self, topic: str) -> int:
        """How many the topic has; 0: there is none of that name."""
        with self._consumer() as consumer:
            return len(consumer.partitions_for_topic(topic) or ())

    def read(
        self,
        topics: Sequence[str],
        *,
        key: str = "",
        since: datetime | None = None,
        from_end: bool = False,
        after: Mapping[tuple[str, int], int] | None = None,
        follow: Callable[[], bool] | None = None,
    ) -> Iterator[list[Raw]]:
        """Batches as they arrive: first up to the end as it is now, then, as long as follow()
        says so, what comes; an empty batch when idle. `after` names last offsets that are known already.

        With a key only its partition is read, and only its records are given. When follow() turns false the rest up to the
        end of that moment is read still, so that what was written before is never missed.
        """
        with self._consumer() as consumer:
            places = [place for topic in topics for place in self._places(consumer, topic, key)]
            if not places:
                return
            consumer.assign(places)
            self._seek(consumer, places, since, from_end)
            for place in places:
                if after and (place.topic, place.partition) in after:
                    consumer.seek(place, after[place.topic, place.partition] + 1)
            wanted = key.encode()
            ends = consumer.end_offsets(places)
            last_lap = follow is None
            while True:
                batch = [record for records in consumer.poll(timeout_ms=_POLL_MS).values() for record in records]
                yield [_raw(record) for record in batch if not key or record.key == wanted]
                if last_lap:
                    if all(consumer.position(place) >= ends[place] for place in places):
                        return
                elif follow is not None and not follow():
                    last_lap, ends = True, consumer.end_offsets(places)

    def read_all(self, topics: Sequence[str], *, key: str = "", since: datetime | None = None) -> list[Raw]:
        return [record for batch in self.read(topics, key=key, since=since) for record in batch]

    @staticmethod
    def _places(consumer: Any, topic: str, key: str) -> list[TopicPartition]:
        partitions = consumer.partitions_for_topic(topic) or set()
        if key and partitions:
            return [TopicPartition(topic, partition_of(key, len(partitions)))]
        return [TopicPartition(topic, partition) for partition in sorted(partitions)]

    @staticmethod
    def _seek(consumer: Any, places: list[TopicPartition], since: datetime | None, from_end: bool) -> None:
        if from_end:
            consumer.seek_to_end(*places)
            return
        if since is None:
            consumer.seek_to_beginning(*places)
            return
        found = consumer.offsets_for_times({place: int(since.timestamp() * 1000) for place in places})
        ends = consumer.end_offsets(places)
        for place in places:
            at = found.get(place)
            consumer.seek(place, at.offset if at is not None else ends[place])


def _raw(record: Any) -> Raw:
    from trainyard import _cloudevents

    at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
    event, trouble = None, ""
    try:
        event = _cloudevents.decode(record.topic, record.partition, record.offset, record.key, record.value, record.headers)
        at = event.time
    except (_cloudevents.Undecodable, _cloudevents.UnknownType) as error:
        trouble = f"{type(error).__name__}: {error}"
    return Raw(record.topic, record.partition, record.offset, at, record.key or b"", record.value or b"", event, trouble)
