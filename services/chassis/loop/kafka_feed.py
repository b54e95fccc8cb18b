"""Many partitions read by hand in batches: for what folds by the thousand and keeps its own positions.

By aiokafka, whose records are parsed in C: about ten times as many a second as kafka-python, which decides how long a rebuild takes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from services.chassis.records import Place, Unavailable
from services.chassis.topics import MAX_MESSAGE_BYTES, topics

_TIMEOUT_SECONDS = 10.0
T = TypeVar("T")


class KafkaFeed:
    """Of one thread. Methods raise Unavailable where no broker answers; then it is closed and a new one made.

    The client lives on a thread of its own, so that the next records are fetched while those that came are worked on.
    """

    def __init__(self, bootstrap: str, *, most: int = 2000, wait_ms: int = 50) -> None:
        """`most` records a batch; a broker that has nothing answers after wait_ms at the latest."""
        self._kafka = bootstrap
        self._most = most
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kafka-feed", daemon=True)
        self._thread.start()
        self._consumer: Any = None
        try:
            self._call(self._start(wait_ms))
        except Unavailable:
            self.close()
            raise

    async def _start(self, wait_ms: int) -> None:
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._kafka,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=wait_ms,
            max_partition_fetch_bytes=4 * MAX_MESSAGE_BYTES,
            request_timeout_ms=int(_TIMEOUT_SECONDS * 1000),
        )
        await self._consumer.start()

    def assign(self, positions: Mapping[Place, int]) -> None:
        """Reads these partitions, each from its offset on; where that is gone, from the first that still exists."""

        async def act() -> None:
            self._consumer.assign([TopicPartition(*place) for place in positions])
            for place, offset in positions.items():
                self._consumer.seek(TopicPartition(*place), offset)

        self._call(act())

    def places(self, names: Sequence[str]) -> list[Place]:
        """Every partition. A topic that is not there (yet) is Unavailable."""
        missing = set(names) - set(self._call(self._consumer.topics()))
        if missing:
            raise Unavailable(f"Kafka at {self._kafka} has no topic {min(missing)} (yet)")
        places = [Place(name, partition) for name in names for partition in range(topics()[name].partitions)]

        async def get_to_know() -> None:
            # Otherwise it asks for the leaders of one topic after the other, a tenth of a second each.
            partitions = [TopicPartition(*place) for place in places]
            self._consumer.assign(partitions)
            self._consumer.pause(*partitions)

        self._call(get_to_know())
        return places

    def begins(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """The first offset that still exists."""
        return _by_place(self._call(self._consumer.beginning_offsets([TopicPartition(*place) for place in places])))

    def ends(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """The offset that the next record will get."""
        return _by_place(self._call(self._consumer.end_offsets([TopicPartition(*place) for place in places])))

    def at_time(self, places: Sequence[Place], milliseconds: int) -> Mapping[Place, int]:
        """The first offset whose record was written at that time or later; partitions that have none are left out."""
        found = self._call(self._consumer.offsets_for_times({TopicPartition(*place): milliseconds for place in places}))
        return _by_place({partition: it.offset for partition, it in found.items() if it is not None})

    def poll(self, timeout_ms: int) -> list[Sequence[Any]]:
        """What has come, as raw records, a list for each partition; a broker that is away gives nothing."""
        found = self._call(self._consumer.getmany(timeout_ms=timeout_ms, max_records=self._most))
        return [records for records in found.values() if records]

    def hold(self, place: Place, held: bool) -> None:
        """A partition that is held gives nothing until it is let go."""

        async def act() -> None:
            (self._consumer.pause if held else self._consumer.resume)(TopicPartition(*place))

        self._call(act())

    def close(self) -> None:
        try:
            if self._consumer is not None:
                self._call(asyncio.wait_for(self._consumer.stop(), _TIMEOUT_SECONDS))
        except Unavailable:
            pass  # what is left of a connection to a broker that is away ends with the process
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _call(self, action: Coroutine[Any, Any, T]) -> T:
        try:
            return asyncio.run_coroutine_threadsafe(action, self._loop).result()
        except (KafkaError, TimeoutError) as error:
            raise Unavailable(f"Kafka at {self._kafka}: {error}") from error


def _by_place(offsets: Mapping[Any, int]) -> dict[Place, int]:
    return {Place(partition.topic, partition.partition): int(offset) for partition, offset in offsets.items()}
