"""The parts of a service's life that need no Kafka: sending what follows, catching up, saying ready, being the only one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from services.chassis.context import Context
from services.chassis.loop.memory import MemoryLog, MemoryPublisher, MemoryReader
from services.chassis.records import NewRecord, Place, Record, Unavailable
from services.chassis.service import _catch_up, _check_topics, _say_ready, _send_once_filled, send_for_ever
from services.chassis.settings import Settings
from services.chassis.single import OnlyOne
from services.chassis.store import Store
from services.chassis.topics import WrongPartitions
from tests.unit.chassis.small_service import JOBS, TASKS, SmallService, an_event, cancel, events, new_log, queued
from trainyard.job.v1.job_pb2 import RunCancelRequested


class TroubledPublisher(MemoryPublisher):
    """Raises what it is given, one after the other, before or after the records came to lie in the log; then works."""

    def __init__(self, log: MemoryLog, *troubles: BaseException, reached: bool = False) -> None:
        super().__init__(log)
        self.tried = 0
        self._troubles = list(troubles)
        self._reached = reached

    def publish(self, records: Sequence[NewRecord]) -> list[tuple[Place, int]]:
        self.tried += 1
        if not self._troubles:
            return super().publish(records)
        if self._reached:
            super().publish(records)
        raise self._troubles.pop(0)


class Ready:
    """What the service says of itself."""

    def __init__(self) -> None:
        self.said = asyncio.Event()

    async def say(self, *, ready: bool) -> None:
        assert ready
        self.said.set()


@asynccontextmanager
async def running(coroutine: Any) -> AsyncIterator[asyncio.Task[Any]]:
    task = asyncio.ensure_future(coroutine)
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def once(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


# -- the outbox


async def test_what_follows_is_sent_in_order_and_forgotten() -> None:
    service = SmallService(new_log())
    await service.receive(an_event(cancel("r1")), an_event(cancel("r2")))
    waiting = service.engine.unsent()

    async with running(send_for_ever(service.engine, MemoryPublisher(service.log))):
        await once(lambda: not service.store.unsent(1))

    sent = [record for record in service.log.everything() if any(name == "ce_causationid" for name, _ in record.headers)]
    assert [(record.topic, record.value) for record in sent] == [(record.topic, record.value) for record in waiting]


async def test_what_follows_later_is_sent_too() -> None:
    service = SmallService(new_log())
    async with running(send_for_ever(service.engine, MemoryPublisher(service.log))):
        await asyncio.sleep(0)

        await service.receive(an_event(cancel("r1")))

        await once(lambda: len(events(service.log.everything(), RunCancelRequested)) == 1)


async def test_what_is_added_to_the_outbox_meanwhile_is_not_waited_for() -> None:
    service = SmallService(new_log())
    await service.receive(an_event(cancel("r1")))
    told = asyncio.create_task(service.engine.told(60))
    await asyncio.sleep(0)

    service.engine.unsent()
    await service.receive(an_event(cancel("r2")))
    before = told.done()
    service.engine.sent()
    await service.engine.wake()

    assert not before
    assert await told
    assert service.engine.unsent() != []


class SlowReader(MemoryReader):
    """Its log gives nothing more until it is let."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.let = threading.Event()

    def read(self, place: Place, start: int, end: int) -> Iterator[Record]:
        self.let.wait(20)
        yield from super().read(place, start, end)


async def test_what_lies_in_the_outbox_is_sent_while_much_is_still_to_be_read(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tally.db'}"
    before = SmallService(new_log(), Store(url))
    await before.receive(an_event(cancel("r1")))
    before.log.append(an_event(queued("r1")))
    reader = SlowReader(before.log)
    service = SmallService(before.log, Store(url), reader)

    async with running(_send_once_filled(service.engine, MemoryPublisher(service.log))):
        async with running(service.engine.catch_up()) as catching_up:
            await once(lambda: events(service.log.everything(), RunCancelRequested))
            was_reading = not catching_up.done()
            reader.let.set()
            await catching_up

    assert was_reading


async def test_nothing_is_sent_while_a_new_store_is_filled() -> None:
    service = SmallService(new_log())
    service.log.append(an_event(cancel("r1")))
    reader = SlowReader(service.log)
    service = SmallService(service.log, reader=reader)
    publisher = TroubledPublisher(service.log)

    async with running(_send_once_filled(service.engine, publisher)):
        async with running(service.engine.catch_up()) as filling:
            for _ in range(20):
                await asyncio.sleep(0)
            before = service.engine.filled.is_set()
            reader.let.set()
            await filling
        await once(lambda: events(service.log.everything(), RunCancelRequested))

    assert not before


async def test_what_was_sent_is_remembered_until_it_is_read_again() -> None:
    service = SmallService(new_log(), Store("sqlite://", remembered=8))
    await service.receive(an_event(cancel("r1")))
    async with running(send_for_ever(service.engine, MemoryPublisher(service.log))):
        await once(lambda: not service.store.unsent(1))

    others = [service.log.append(an_event(queued(f"other-{number}"))) for number in range(50)]
    ends = service.reader.ends([JOBS, TASKS])
    for record in others:
        # As if these had come long before: none of the places of what was sent is reached.
        with service.store.transaction() as transaction:
            transaction.mark_seen(str(record))
    await service.engine.fetch_missing()

    assert sum(ends.values()) == sum(service.store.positions().values())
    assert service.tally("r1").requested == 1
    assert service.tally("r1").warned == 2


@pytest.mark.parametrize("reached", [False, True])
async def test_what_a_log_that_is_away_did_not_take_is_sent_when_it_is_back(reached: bool) -> None:
    service = SmallService(new_log())
    await service.receive(an_event(cancel("r1")))
    publisher = TroubledPublisher(service.log, Unavailable("away"), reached=reached)

    async with running(send_for_ever(service.engine, publisher)):
        await once(lambda: not service.store.unsent(1))

    answers = events(service.log.everything(), RunCancelRequested)
    assert len(answers) == (2 if reached else 1)
    assert len({answer.event_id for answer in answers}) == 1


@pytest.mark.parametrize("reached", [False, True])
async def test_a_process_that_ends_while_it_sends_has_forgotten_nothing(reached: bool) -> None:
    service = SmallService(new_log())
    await service.receive(an_event(cancel("r1")))
    before = service.engine.unsent()

    with pytest.raises(RuntimeError, match="the end"):
        await send_for_ever(service.engine, TroubledPublisher(service.log, RuntimeError("the end"), reached=reached))

    assert service.engine.unsent() == before


# -- the start


async def test_a_log_that_is_not_there_yet_is_waited_for() -> None:
    service = SmallService(new_log())
    service.log.append(an_event(queued()))
    service.log.down = True
    async with running(_catch_up(service.engine)) as catching_up:
        for _ in range(100):
            await asyncio.sleep(0)
        before = catching_up.done()

        service.log.down = False

        async with asyncio.timeout(20):
            await catching_up
    assert not before
    assert service.tally().queued == 1


@pytest.mark.parametrize("partitions", [8, 4])
async def test_a_start_on_topics_with_other_partitions_than_are_told_is_refused(partitions: int) -> None:
    reader = MemoryReader(MemoryLog({JOBS: 8, TASKS: partitions}))

    with pytest.raises(WrongPartitions, match=r"tasks has 4 .* says 8") if partitions != 8 else nullcontext():
        await _check_topics(reader, [JOBS, TASKS])


async def test_ready_is_said_once_the_loop_delivers_and_nothing_was_missed_in_between() -> None:
    service, ready, begun = SmallService(new_log()), Ready(), asyncio.Event()
    context = Context(
        Settings.load("tally"), service.store, service.engine, MemoryPublisher(service.log), service.reader, MemoryPublisher(service.log)
    )
    service.log.append(an_event(queued()))
    async with running(_say_ready(begun, context, ready)):  # type: ignore[arg-type]
        for _ in range(20):
            await asyncio.sleep(0)
        before = ready.said.is_set()

        begun.set()

        async with asyncio.timeout(20):
            await ready.said.wait()
    assert not before
    assert service.tally().queued == 1


async def test_ready_is_not_said_while_the_log_is_away() -> None:
    service, ready, begun = SmallService(new_log()), Ready(), asyncio.Event()
    context = Context(
        Settings.load("tally"), service.store, service.engine, MemoryPublisher(service.log), service.reader, MemoryPublisher(service.log)
    )
    service.log.down = True
    begun.set()
    async with running(_say_ready(begun, context, ready)):  # type: ignore[arg-type]
        await once(begun.is_set)
        for _ in range(100):
            await asyncio.sleep(0)
        before = ready.said.is_set()

        service.log.down = False

        async with asyncio.timeout(20):
            await ready.said.wait()
    assert not before


# -- one process


def test_a_second_process_of_a_service_ends_with_a_reason(tmp_path: Path) -> None:
    lock = tmp_path / "db" / "tally.lock"
    with OnlyOne(lock):
        with pytest.raises(RuntimeError, match="another process of this service holds .*tally.lock"):
            with OnlyOne(lock):
                pass


def test_the_next_process_takes_the_place_of_one_that_ended(tmp_path: Path) -> None:
    lock = tmp_path / "db" / "tally.lock"
    with OnlyOne(lock):
        pass

    with OnlyOne(lock):
        assert lock.exists()
