"""Every record takes effect once, whatever the loop delivers twice, late or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from services.chassis.engine import LogReplaced
from services.chassis.loop.memory import MemoryLog, MemoryLoop, MemoryReader
from services.chassis.records import Place, Record, Unavailable
from tests.unit.chassis.small_service import JOBS, PULSES, TASKS, SmallService, an_event, cancel, events, new_log, queued
from trainyard._kafka import partition_of
from trainyard.cluster.v1.cluster_pb2 import AgentHeartbeat
from trainyard.job.v1.job_pb2 import RunCancelRequested, RunWarned


async def test_a_record_that_comes_twice_takes_effect_once() -> None:
    service = SmallService(new_log())

    (record,) = await service.receive(an_event(queued()))
    await service.engine.deliver(record)

    assert service.tally().queued == 1
    assert service.engine.counts["repeated_records"] == 1


async def test_an_event_that_lies_in_the_log_twice_takes_effect_once() -> None:
    service = SmallService(new_log())

    records = await service.receive(an_event(queued(), event_id="same"), an_event(queued(), event_id="same"))

    assert service.tally().queued == 1
    assert service.engine.counts["repeated_events"] == 1
    assert service.position(records[0].place) == 2


async def test_a_request_that_is_published_twice_is_answered_once() -> None:
    service = SmallService(new_log())

    await service.receive(an_event(cancel(), event_id="same"), an_event(cancel(), event_id="same"))

    assert len(events(service.engine.unsent(), RunCancelRequested)) == 1


async def test_an_answer_takes_effect_at_once_and_not_again_when_it_comes_back_by_the_log() -> None:
    service = SmallService(new_log())
    await service.receive(an_event(cancel()))
    before = service.tally()

    service.send()
    await service.engine.fetch_missing()

    assert before.requested == 1 and before.warned == 2
    assert service.tally() == before


async def test_answers_carry_their_cause_and_ids_of_their_own() -> None:
    service = SmallService(new_log())

    await service.receive(an_event(cancel("r7"), event_id="the-cause"))

    answers = events(service.engine.unsent())
    assert [event.causation_id for event in answers] == ["the-cause"] * 3
    assert [event.correlation_id for event in answers] == ["r7"] * 3
    assert [event.topic for event in answers] == [JOBS, TASKS, TASKS]
    assert len({event.event_id for event in answers}) == 3


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


async def test_a_log_that_ends_before_what_was_read_of_it_is_refused() -> None:
    service = SmallService(new_log())
    await service.receive(an_event(queued()))

    another = SmallService(new_log(), service.store)

    with pytest.raises(LogReplaced, match="tally"):
        await another.engine.catch_up()


async def test_a_restart_goes_on_where_the_store_stands() -> None:
    service = SmallService(new_log())
    await service.receive(an_event(queued()), an_event(cancel()))
    service.log.append(an_event(queued()))

    again = SmallService(service.log, service.store)
    count = await again.engine.catch_up()

    assert count == 1
    assert again.tally().queued == 2
    assert again.tally().requested == 1


async def test_an_ephemeral_topic_moves_no_position_and_is_never_fetched() -> None:
    service = SmallService(new_log())
    beat = an_event(AgentHeartbeat(agent_id="a1"), topic=PULSES, key="a1")
    await service.receive(beat)

    service.log.append(beat)
    count = await service.engine.fetch_missing()

    assert count == 0
    assert service.store.positions() == {}


async def test_a_repeat_on_an_ephemeral_topic_is_handled_again() -> None:
    service = SmallService(new_log())

    (record,) = await service.receive(an_event(queued(), topic=PULSES))
    await service.engine.deliver(record)

    assert service.tally().queued == 2


async def test_partitions_are_counted_apart() -> None:
    service = SmallService(new_log())
    first, second = _keys_of_two_partitions(service.log)

    await service.receive(an_event(queued(first)), an_event(queued(second)), an_event(queued(first)))

    assert service.position(_where(service.log, first)) == 2
    assert service.position(_where(service.log, second)) == 1


async def test_a_record_without_a_key_is_taken() -> None:
    service = SmallService(new_log())
    record = service.log.append(an_event(queued()))

    await service.engine.deliver(replace(record, key=None))

    assert service.tally().queued == 1


async def test_an_answer_to_an_event_of_another_topic_may_go_there() -> None:
    service = SmallService(new_log())

    await service.receive(an_event(cancel(), topic=TASKS))
    service.send()

    assert len(events(service.log.everything(), RunWarned)) == 2


def _where(log: MemoryLog, run_id: str) -> Place:
    return Place(JOBS, partition_of(run_id, len(log.lanes([JOBS]))))


def _keys_of_two_partitions(log: MemoryLog) -> tuple[str, str]:
    keys = [f"r{number}" for number in range(100)]
    return next((keys[0], key) for key in keys if _where(log, key) != _where(log, keys[0]))


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
