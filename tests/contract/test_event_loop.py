"""Whoever delivers records, memory, kafka-python or faust: the same promises, and only those."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from services.chassis.records import EventLoop, NewRecord, Place, Record
from tests.contract.conftest import Log

pytestmark = pytest.mark.contract
_SECONDS = 40.0


class Received:
    """What the loop delivered. `failing` is raised for a record that says so."""

    def __init__(self, failing: BaseException | None = None) -> None:
        self.records: list[Record] = []
        self.at_once = self.most_at_once = 0
        self._failing = failing
        self._changed = asyncio.Condition()

    async def deliver(self, *records: Record) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        for record in records:
            if self._failing is not None and record.value == b"bad":
                raise self._failing
            async with self._changed:
                self.records.append(record)
                self._changed.notify_all()

    def values(self) -> list[bytes | None]:
        return [record.value for record in self.records]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(_SECONDS):
            async with self._changed:
                await self._changed.wait_for(condition)


@asynccontextmanager
async def running(loop: EventLoop, received: Received) -> AsyncIterator[None]:
    """From its first ready() on."""
    ready = asyncio.Event()
    task = asyncio.create_task(loop.run(received.deliver, ready.set))
    try:
        async with asyncio.timeout(_SECONDS):
            await ready.wait()
        yield
    finally:
        await loop.stop()
        async with asyncio.timeout(_SECONDS):
            await task


def some(topic: str, count: int, first: int = 0) -> list[NewRecord]:
    return [NewRecord(topic, f"key-{number % 7}".encode(), str(number).encode()) for number in range(first, first + count)]


async def test_what_lies_in_the_log_arrives_and_each_partition_in_order(looped: Log) -> None:
    placed = looped.publisher.publish(some(looped.topic, 100) + some(looped.other_topic, 20))
    received = Received()

    async with running(looped.loop(), received):
        await received.until(lambda: len({(record.place, record.offset) for record in received.records}) == 120)

    assert {(record.place, record.offset) for record in received.records} == set(placed)
    by_place: dict[Place, list[int]] = {}
    for record in received.records:
        by_place.setdefault(record.place, []).append(record.offset)
    assert all(list(dict.fromkeys(offsets)) == sorted(set(offsets)) for offsets in by_place.values())


async def test_what_comes_while_it_runs_arrives_too(looped: Log) -> None:
    looped.publisher.publish(some(looped.topic, 5))
    received = Received()

    async with running(looped.loop(), received):
        await received.until(lambda: len(set(received.values())) == 5)
        for first in range(5, 50, 5):
            await asyncio.to_thread(looped.publisher.publish, some(looped.topic, 5, first))
        await received.until(lambda: len(set(received.values())) == 50)

    assert set(received.values()) == {str(number).encode() for number in range(50)}


async def test_a_record_arrives_as_it_was_published(looped: Log) -> None:
    headers = (("name", b"1"), ("name", b"2"), ("bytes", b"\xff\x00"), ("empty", b""))
    sent = NewRecord(looped.topic, b"\xff key", bytes(range(256)), headers)
    ((place, offset),) = looped.publisher.publish([sent])
    received = Received()

    async with running(looped.loop(), received):
        await received.until(lambda: bool(received.records))

    (stored,) = looped.reader.read(place, offset, offset + 1)
    record = received.records[0]
    assert (record.topic, record.partition, record.offset) == (*place, offset)
    assert (record.key, record.value, record.headers) == (sent.key, sent.value, headers)
    assert record.timestamp == stored.timestamp > 0


async def test_records_without_key_value_or_headers_arrive(looped: Log) -> None:
    looped.publisher.publish(
        [NewRecord(looped.topic, b"key", None), NewRecord(looped.topic, None, b"value"), NewRecord(looped.topic, b"", b"")]
    )
    received = Received()

    async with running(looped.loop(), received):
        await received.until(lambda: len(received.records) >= 3)

    assert {(record.key, record.value) for record in received.records} == {(b"key", None), (None, b"value"), (b"", b"")}


async def test_more_than_a_slow_service_takes_at_once_arrives_whole_and_in_order(looped: Log) -> None:
    """More than any loop reads ahead."""
    count = 3000
    for first in range(0, count, 500):
        looped.publisher.publish(some(looped.topic, 500, first))
    received = Received()

    async with running(looped.loop(), received):
        await received.until(lambda: len({(record.place, record.offset) for record in received.records}) == count)

    by_place: dict[Place, list[int]] = {}
    for record in received.records:
        by_place.setdefault(record.place, []).append(record.offset)
    assert all(list(dict.fromkeys(offsets)) == sorted(set(offsets)) for offsets in by_place.values())


async def test_one_call_goes_on_at_a_time(looped: Log) -> None:
    looped.publisher.publish(some(looped.topic, 50))
    received = Received()

    async with running(looped.loop(), received):
        await received.until(lambda: len(received.records) >= 50)

    assert received.most_at_once == 1


async def test_a_deliver_that_raises_ends_the_loop_and_a_new_one_delivers_the_record_again(looped: Log) -> None:
    values = [b"good", b"bad", b"after"]
    looped.publisher.publish([NewRecord(looped.topic, b"key", value) for value in values])
    first = Received(failing=RuntimeError("no more"))
    with pytest.raises(RuntimeError, match="no more"):
        await asyncio.wait_for(looped.loop().run(first.deliver, lambda: None), _SECONDS)

    second = Received()
    async with running(looped.loop(), second):
        await second.until(lambda: b"after" in second.values())

    assert first.values() == [b"good"]
    assert second.values()[-2:] == [b"bad", b"after"]


async def test_a_stop_in_the_middle_moves_past_nothing_that_was_not_delivered(looped: Log) -> None:
    looped.publisher.publish([NewRecord(looped.topic, b"key", str(number).encode()) for number in range(10)])
    hanging = asyncio.Event()

    async def deliver(*records: Record) -> None:
        if any(record.value == b"3" for record in records):
            hanging.set()
            await asyncio.Event().wait()

    loop = looped.loop()
    task = asyncio.create_task(loop.run(deliver, lambda: None))
    async with asyncio.timeout(_SECONDS):
        await hanging.wait()
        await loop.stop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    again = Received()
    async with running(looped.loop(), again):
        await again.until(lambda: b"9" in again.values())

    assert again.values()[-7:] == [str(number).encode() for number in range(3, 10)]


async def test_stop_ends_the_loop(looped: Log) -> None:
    looped.publisher.publish(some(looped.topic, 5))
    received = Received()
    loop = looped.loop()
    task = asyncio.create_task(loop.run(received.deliver, lambda: None))
    await received.until(lambda: bool(received.records))

    await loop.stop()

    async with asyncio.timeout(_SECONDS):
        await task
    assert task.exception() is None
