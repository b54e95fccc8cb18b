"""A log in memory, for tests and simulations: deterministic, same promises as Kafka."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from services.chassis.records import Deliver, NewRecord, Place, Record, Unavailable


class MemoryLog:
    """Partitions as lists. `clock` gives the broker's time in milliseconds. `down` makes every call raise Unavailable."""

    def __init__(self, partitions: Mapping[str, int], clock: Callable[[], int] | None = None) -> None:
        self._records: dict[Place, list[Record]] = {Place(topic, n): [] for topic, count in partitions.items() for n in range(count)}
        self._counts = dict(partitions)
        self._ticks = 0
        self._clock = clock or self._tick
        self._lock = threading.Lock()
        self.down = False

    def _tick(self) -> int:
        self._ticks += 1
        return self._ticks

    def check(self) -> None:
        if self.down:
            raise Unavailable("the log in memory is switched off")

    def append(self, record: NewRecord, partition: int | None = None) -> Record:
        from trainyard._kafka import partition_of

        with self._lock:
            if partition is None:
                partition = partition_of((record.key or b"").decode("utf-8", "replace"), self._counts[record.topic])
            lane = self._records[Place(record.topic, partition)]
            lane.append(Record(record.topic, partition, len(lane), self._clock(), record.key, record.value, record.headers))
            return lane[-1]

    def lanes(self, topics: Sequence[str]) -> dict[Place, list[Record]]:
        with self._lock:
            return {place: list(lane) for place, lane in self._records.items() if place.topic in topics}

    def everything(self) -> list[Record]:
        """All records in the order in which they came."""
        with self._lock:
            return sorted((record for lane in self._records.values() for record in lane), key=lambda record: record.timestamp)


class MemoryReader:
    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def ends(self, topics: Sequence[str]) -> Mapping[Place, int]:
        self._log.check()
        return {place: len(lane) for place, lane in self._log.lanes(topics).items()}

    def read(self, place: Place, start: int, end: int) -> Iterator[Record]:
        self._log.check()
        yield from self._log.lanes([place.topic])[place][start:end]

    def close(self) -> None:
        """Nothing is open."""


class MemoryPublisher:
    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def publish(self, records: Sequence[NewRecord]) -> list[tuple[Place, int]]:
        self._log.check()
        made = [self._log.append(record) for record in records]
        return [(record.place, record.offset) for record in made]

    def close(self) -> None:
        """Nothing is open."""


class MemoryLoop:
    """Delivers from given positions on; `drop` says which records it skips the first time, as faust does now and then."""

    def __init__(
        self, log: MemoryLog, topics: Sequence[str], start: Callable[[Place], int], drop: Callable[[Record], bool] = lambda record: False
    ) -> None:
        self._log = log
        self._topics = list(topics)
        self._start = start
        self._drop = drop
        self._stopped = False

    async def run(self, deliver: Deliver, ready: Callable[[], None]) -> None:
        positions = {place: self._start(place) for place in self._log.lanes(self._topics)}
        ready()
        while not self._stopped:
            idle = True
            for place, lane in self._log.lanes(self._topics).items():
                come = lane[positions[place] :]
                if come:
                    idle = False
                    positions[place] = come[-1].offset + 1
                    await deliver(*(record for record in come if not self._drop(record)))
            await asyncio.sleep(0.001 if idle else 0)

    async def stop(self) -> None:
        self._stopped = True
