"""Many partitions read by hand in batches: for what folds by the thousand and keeps its own positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from kafka import TopicPartition
from kafka.errors import KafkaError

from services.chassis.loop.kafka_client import _consumer
from services.chassis.records import Place, Unavailable
from services.chassis.topics import MAX_MESSAGE_BYTES

_TIMEOUT_SECONDS = 10.0
T = TypeVar("T")


class KafkaFeed:
    """Of one thread. Every method raises Unavailable where no broker answers; then it is closed and a new one made."""

    def __init__(self, bootstrap: str, *, most: int = 2000, wait_ms: int = 50) -> None:
        """`most` records a batch; a broker that has nothing answers after wait_ms at the latest."""
        self._bootstrap = bootstrap
        self._consumer = _consumer(
            bootstrap,
            _TIMEOUT_SECONDS,
            fetch_max_wait_ms=wait_ms,
            max_poll_records=most,
            fetch_max_bytes=64 * MAX_MESSAGE_BYTES,
        )

    def assign(self, positions: Mapping[Place, int]) -> None:
        """Reads these partitions, each from its offset on; where that is gone, from the first that still exists."""

        def act() -> None:
            self._consumer.assign([TopicPartition(*place) for place in positions])
            for place, offset in positions.items():
                self._consumer.seek(TopicPartition(*place), offset)

        self._call(act)

    def places(self, topics: Sequence[str]) -> list[Place]:
        """Every partition. A topic that is not there (yet) is Unavailable."""

        def ask() -> list[Place]:
            found = []
            for topic in topics:
                partitions = self._consumer.partitions_for_topic(topic)
                if not partitions:
                    raise Unavailable(f"Kafka at {self._bootstrap} has no topic {topic} (yet)")
                found += [Place(topic, partition) for partition in sorted(partitions)]
            return found

        return self._call(ask)

    def begins(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """The first offset that still exists."""
        return self._offsets(lambda partitions: self._consumer.beginning_offsets(partitions), places)

    def ends(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """The offset that the next record will get."""
        return self._offsets(lambda partitions: self._consumer.end_offsets(partitions), places)

    def at_time(self, places: Sequence[Place], milliseconds: int) -> Mapping[Place, int]:
        """The first offset whose record was written at that time or later; partitions that have none are left out."""

        def ask(partitions: list[Any]) -> dict[Any, int]:
            found = self._consumer.offsets_for_times(dict.fromkeys(partitions, milliseconds))
            return {partition: it.offset for partition, it in found.items() if it is not None}

        return self._offsets(ask, places)

    def poll(self, timeout_ms: int) -> list[list[Any]]:
        """What has come, as raw records of kafka-python, a list for each partition."""
        return self._call(lambda: list(self._consumer.poll(timeout_ms=timeout_ms).values()))

    def hold(self, place: Place, held: bool) -> None:
        """A partition that is held gives nothing until it is let go."""
        (self._consumer.pause if held else self._consumer.resume)(TopicPartition(*place))

    def close(self) -> None:
        self._consumer.close()

    def _offsets(self, ask: Callable[[list[Any]], Mapping[Any, int]], places: Sequence[Place]) -> Mapping[Place, int]:
        found = self._call(lambda: ask([TopicPartition(*place) for place in places]))
        return {Place(place.topic, place.partition): int(offset) for place, offset in found.items()}

    def _call(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except KafkaError as error:
            raise Unavailable(f"Kafka at {self._bootstrap}: {error}") from error
