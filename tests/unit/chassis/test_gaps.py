"""What the loop skips is fetched: at the next record of its partition, or when the guard asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from services.chassis.engine import LoopStalled
from services.chassis.loop.memory import MemoryLog, MemoryLoop, MemoryReader
from services.chassis.records import Place, Record, Unavailable
from tests.unit.chassis.small_service import JOBS, PULSES, TASKS, SmallService, an_event, new_log, queued
from trainyard._kafka import partition_of


async def test_a_gap_is_fetched_before_the_record_behind_it() -> None:
    service = SmallService(new_log())
    records = [service.log.append(an_event(queued(), event_id=f"e{n}")) for n in range(4)]
    await service.engine.deliver(records[0])

    await service.engine.deliver(records[3])

    assert service.tally().queued == 4
    assert service.engine.counts["gaps"] == 1
    assert service.position(records[0].place) == 4


async def test_a_late_record_of_a_gap_that_was_fetched_changes_nothing() -> None:
    service = SmallService(new_log())
    records = [service.log.append(an_event(queued())) for _ in range(2)]
    await service.engine.deliver(records[1])

    await service.engine.deliver(records[0])

    assert service.tally().queued == 2


async def test_a_gap_that_cannot_be_fetched_stays_until_it_can_and_ends_nothing() -> None:
    service = SmallService(new_log())
    records = [service.log.append(an_event(queued())) for _ in range(3)]
    service.log.down = True
    await service.engine.deliver(records[1])
    while_down = service.tally()

    service.log.down = False
    await service.engine.deliver(records[2])

    assert while_down.queued == 0
    assert service.tally().queued == 3


@pytest.mark.parametrize("dropped", [{0}, {4}, {1, 2}, {0, 1, 2, 3, 4}])
async def test_what_the_loop_drops_for_ever_is_fetched(dropped: set[int]) -> None:
    service = SmallService(new_log())
    for _ in range(5):
        service.log.append(an_event(queued("r1")))
    loop = MemoryLoop(service.log, [JOBS], lambda place: 0, drop=lambda record: record.offset in dropped)
    ready = asyncio.Event()
    running = asyncio.create_task(loop.run(service.engine.deliver, ready.set))
    last = max({0, 1, 2, 3, 4} - dropped, default=None)
    place = _where(service.log, "r1")
    assert last is None or await service.engine.applied(place, last, 10)

    await service.engine.fetch_missing()
    await loop.stop()
    await running

    assert service.tally().queued == 5


async def test_fetch_missing_says_how_many_it_fetched() -> None:
    service = SmallService(new_log())
    await service.receive(an_event(queued()))
    for _ in range(3):
        service.log.append(an_event(queued()))

    counts = [await service.engine.fetch_missing(), await service.engine.fetch_missing()]

    assert counts == [3, 0]
    assert service.engine.counts["fetched_by_itself"] == 3


async def test_a_loop_that_delivers_nothing_any_more_ends_the_process_after_some_fetches() -> None:
    service = SmallService(new_log())
    for number in range(10):
        service.log.append(an_event(queued()))
        assert await service.engine.fetch_missing() == 1, number

    service.log.append(an_event(queued()))
    with pytest.raises(LoopStalled):
        await service.engine.fetch_missing()

    assert service.tally().queued == 11
    with pytest.raises(LoopStalled):
        await asyncio.wait_for(service.engine.failed(), 10)


@pytest.mark.parametrize("topic", [PULSES, TASKS])
async def test_what_the_loop_delivers_of_other_partitions_makes_up_for_nothing(topic: str) -> None:
    """A heartbeat a second would hide for ever that no other topic comes."""
    service = SmallService(new_log())

    with pytest.raises(LoopStalled, match=f"nothing of {JOBS}/"):
        for _ in range(11):
            service.log.append(an_event(queued()))
            await service.engine.fetch_missing()
            await service.receive(an_event(queued("other"), topic=topic))

    assert service.tally().queued == 11


async def test_a_loop_that_delivers_now_and_then_is_no_dead_one() -> None:
    service = SmallService(new_log())

    for _ in range(15):
        missed = service.log.append(an_event(queued()))
        await service.engine.fetch_missing()
        await service.engine.deliver(missed)

    assert service.tally().queued == 15


async def test_a_quiet_log_is_no_dead_loop() -> None:
    service = SmallService(new_log())

    counts = [await service.engine.fetch_missing() for _ in range(30)]

    assert counts == [0] * 30


async def test_what_was_missed_is_taken_in_the_order_of_the_log_over_all_topics() -> None:
    """A pool, a model, an endpoint: what was asked for last must not be taken first because its topic sorts first."""
    service = SmallService(new_log())
    await service.receive(an_event(queued(), event_id="0"))
    for number, topic in enumerate([TASKS, JOBS, TASKS, JOBS], start=1):
        service.log.append(an_event(queued(), topic=topic, event_id=str(number)))

    await service.engine.fetch_missing()

    assert service.handler.met == ["0", "1", "2", "3", "4"]


async def test_a_log_that_goes_away_in_the_middle_of_a_fetch_leaves_what_was_taken() -> None:
    log = new_log()
    service = SmallService(log, reader=_BreaksAfter(log, 2))
    await service.receive(an_event(queued()))
    for _ in range(3):
        log.append(an_event(queued()))

    with pytest.raises(Unavailable):
        await service.engine.fetch_missing()
    await service.engine.fetch_missing()

    assert service.tally().queued == 4


async def test_records_that_are_gone_from_the_log_are_passed_by_for_good() -> None:
    log = new_log()
    service = SmallService(log, reader=_Without(log, {1, 2}))
    records = [log.append(an_event(queued())) for _ in range(4)]
    await service.engine.deliver(records[0])

    await service.engine.deliver(records[3])

    assert service.tally().queued == 2
    assert service.position(records[0].place) == 4


async def test_the_end_of_a_topic_that_is_gone_is_stored_too() -> None:
    log = new_log()
    service = SmallService(log, reader=_Without(log, {1}))
    (first,) = await service.receive(an_event(queued()))
    log.append(an_event(queued()))

    await service.engine.fetch_missing()

    assert service.position(first.place) == 2


def _where(log: MemoryLog, run_id: str) -> Place:
    return Place(JOBS, partition_of(run_id, len(log.lanes([JOBS]))))


class _Reader(MemoryReader):
    """The log in memory with something wrong about it: `let` says which records are given, or raises."""

    def __init__(self, log: MemoryLog, let: Callable[[Record], bool]) -> None:
        super().__init__(log)
        self._let = let

    def read(self, place: Place, start: int, end: int) -> Iterator[Record]:
        return (record for record in super().read(place, start, end) if self._let(record))


class _Without(_Reader):
    def __init__(self, log: MemoryLog, gone: set[int]) -> None:
        super().__init__(log, lambda record: record.offset not in gone)


class _BreaksAfter(_Reader):
    """Is Unavailable once, at the count-th record that it is asked for."""

    def __init__(self, log: MemoryLog, count: int) -> None:
        left = [count]

        def let(record: Record) -> bool:
            left[0] -= 1
            if left[0] == 0:
                raise Unavailable("the log went away")
            return True

        super().__init__(log, let)
