"""Records of a log, as bytes, and the ports through which services meet the log. Nothing here knows Kafka."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol


class Place(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


@dataclass(frozen=True)
class Record:
    """One record as it lies in the log. `timestamp` is the broker's, in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()

    @cached_property
    def place(self) -> Place:
        return Place(self.topic, self.partition)

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}@{self.offset}"


@dataclass(frozen=True)
class NewRecord:
    """One record on its way into the log."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Unavailable(Exception):
    """The log does not answer now; trying again later is right."""


class LogReader(Protocol):
    """Direct reads, outside of any consumer group. Blocking; raises Unavailable."""

    def ends(self, topics: Sequence[str]) -> Mapping[Place, int]:
        """The offset that the next record of each partition will get."""
        ...

    def read(self, place: Place, start: int, end: int) -> Iterator[Record]:
        """Records with start <= offset < end that still exist, in order."""
        ...

    def close(self) -> None: ...


def in_time_order(reader: LogReader, ranges: Mapping[Place, tuple[int, int]]) -> Iterator[Record]:
    """Records with start <= offset < end of several partitions, in the order in which the broker took them. Raises Unavailable.

    Read one topic after the other, a request could come before the facts that were there when it was made.
    """
    streams = [reader.read(place, start, end) for place, (start, end) in sorted(ranges.items()) if start < end]
    return heapq.merge(*streams, key=lambda record: (record.timestamp, record.topic, record.partition, record.offset))


class Publisher(Protocol):
    """Blocking; raises Unavailable, after which some of the records may or may not lie in the log."""

    def publish(self, records: Sequence[NewRecord]) -> list[tuple[Place, int]]:
        """Where each record came to lie; returns when all are acknowledged."""
        ...

    def close(self) -> None: ...


class Deliver(Protocol):
    async def __call__(self, *records: Record) -> None: ...


class EventLoop(Protocol):
    """Delivers records of some topics, each partition in order, one call at a time, with all that have come since the last.

    It may deliver a record twice and may skip one: the engine's sequencer makes up for both. `deliver` must not raise; if it
    does the loop ends with that error and moves past nothing.
    """

    async def run(self, deliver: Deliver, ready: Callable[[], None]) -> None:
        """Until stopped; calls ready() whenever it has (again) begun to deliver. Raises what broke it."""
        ...

    async def stop(self) -> None: ...
