"""A new database is filled from the log, and then nobody can tell it from the old one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chassis.loop.memory import MemoryLog, MemoryReader
from services.chassis.records import NewRecord, Place, Record, Unavailable
from services.chassis.store import Store
from tests.unit.chassis.small_service import (
    JOBS,
    TASKS,
    SmallService,
    an_event,
    cancel,
    events,
    new_log,
    queued,
    speaks,
)
from trainyard.job.v1.job_pb2 import RunCancelRequested, RunScaling, RunWarned

both_parts = pytest.mark.parametrize("spoke_later", [False, True])

both_parts = pytest.mark.parametrize("spoke_later", [False, True])


async def test_a_new_store_is_filled_with_what_the_old_one_knew() -> None:
    live = SmallService(new_log())
    await live.receive(an_event(queued("r1")), an_event(cancel("r1")), an_event(queued("r2")), an_event(cancel("r1")))
    await live.settle()

    new = SmallService(live.log)
    count = await new.engine.catch_up()

    assert new.tallies() == live.tallies()
    assert count == len(live.log.everything())


async def test_a_replay_answers_nothing_that_the_log_has_an_answer_to() -> None:
    live = SmallService(new_log())
    await live.receive(an_event(cancel("r1")), an_event(cancel("r2")))
    await live.settle()

    new = SmallService(live.log)
    await new.engine.catch_up()

    assert new.engine.unsent() == []


async def test_a_replay_answers_what_nobody_has_answered() -> None:
    live = SmallService(new_log())
    await live.receive(an_event(cancel("r1"), event_id="answered"))
    await live.settle()
    live.log.append(an_event(cancel("r2"), event_id="open"))

    new = SmallService(live.log)
    await new.engine.catch_up()

    assert [event.causation_id for event in events(new.engine.unsent())] == ["open"] * 3
    assert new.tally("r2").requested == 1


@both_parts
async def test_an_answer_by_somebody_else_is_not_ours(spoke_later: bool) -> None:
    log = new_log()
    log.append(an_event(cancel("r1"), event_id="asked"))
    log.append(_answer_of("trainyard/another", "asked"))
    speaks(log, spoke_later)

    service = SmallService(log)
    await service.engine.catch_up()

    assert [event.causation_id for event in events(service.engine.unsent(), RunCancelRequested)] == ["asked"]


async def test_a_fact_of_our_own_is_no_input_even_if_its_like_from_others_is() -> None:
    log = new_log()
    log.append(an_event(cancel("r1"), source="trainyard/tally"))

    service = SmallService(log)
    await service.engine.catch_up()

    assert service.engine.unsent() == []
    assert service.tally().asked == 1


@both_parts
async def test_an_input_that_lies_in_the_log_twice_is_answered_once(spoke_later: bool) -> None:
    log = new_log()
    for _ in range(2):
        log.append(an_event(cancel("r1"), event_id="same"))
    speaks(log, spoke_later)

    service = SmallService(log)
    await service.engine.catch_up()

    assert len(events(service.engine.unsent(), RunCancelRequested)) == 1
    assert service.tally().asked == 1


async def test_what_came_after_the_services_last_word_is_taken_as_if_it_came_now() -> None:
    """A service that starts for the first time with requests waiting answers them as if it had been there."""
    log = new_log()
    for _ in range(3):
        log.append(an_event(cancel("r1")))
    log.append(NewRecord(JOBS, b"r1", b"\xff", (("ce_type", b"trainyard.job.v1.RunQueued"), ("ce_id", b"1"))))
    late, live = SmallService(log), SmallService(log)
    for record in log.everything():
        await live.engine.deliver(record)

    await late.engine.catch_up()

    assert late.engine.unsent() == live.engine.unsent()
    assert late.tallies() == live.tallies()


@both_parts
async def test_topics_are_replayed_in_the_order_in_which_the_broker_took_their_records(spoke_later: bool) -> None:
    log = new_log()
    order = [(TASKS, "r1"), (JOBS, "r2"), (JOBS, "r1"), (TASKS, "r2"), (JOBS, "r2")]
    for number, (topic, run_id) in enumerate(order):
        log.append(an_event(RunScaling(run_id=run_id), event_id=str(number), topic=topic))
    speaks(log, spoke_later)
    service = SmallService(log)

    await service.engine.catch_up()

    with service.store.reading() as documents:
        assert dict(documents.all("to prepare")) == {"r1": b"r1 2", "r2": b"r2 4"}


async def test_a_replay_that_is_cut_off_begins_anew_and_answers_what_is_open(tmp_path: Path) -> None:
    """Half a replay that passed for a whole one would answer old requests a second time, from half of what was known."""
    live = SmallService(new_log())
    await live.receive(an_event(cancel("r1")), an_event(cancel("r2")))
    await live.settle()
    live.log.append(an_event(cancel("r3"), event_id="open"))
    url = f"sqlite:///{tmp_path / 'tally.db'}"
    cut_off = SmallService(live.log, Store(url), reader=_GoesAway(live.log, after=4))
    with pytest.raises(Unavailable):
        await cut_off.engine.catch_up()

    again = SmallService(live.log, Store(url))
    await again.engine.catch_up()

    assert {event.causation_id for event in events(again.engine.unsent())} == {"open"}
    assert again.tally("r1") == live.tally("r1")
    assert again.tally("r3").requested == 1


async def test_a_replay_may_be_tried_again_by_the_same_engine() -> None:
    log = new_log()
    log.append(an_event(cancel("r1"), event_id="open"))
    for _ in range(5):
        log.append(an_event(queued("r1")))
    service = SmallService(log, reader=_GoesAway(log, after=3))
    with pytest.raises(Unavailable):
        await service.engine.catch_up()

    await service.engine.catch_up()

    assert service.tally("r1").queued == 5
    assert [event.causation_id for event in events(service.engine.unsent(), RunCancelRequested)] == ["open"]


async def test_after_a_replay_the_next_records_are_taken_as_they_come() -> None:
    live = SmallService(new_log())
    await live.receive(an_event(queued()))
    new = SmallService(live.log)
    await new.engine.catch_up()

    await new.receive(an_event(cancel()))

    assert new.tally().queued == 1
    assert new.tally().requested == 1


async def test_topics_that_are_only_replayed_fill_a_new_store_and_are_read_never_again() -> None:
    log = new_log()
    log.append(an_event(queued(), topic=TASKS))
    log.append(an_event(queued(), topic=JOBS))
    service = SmallService(log, topics=[JOBS], replayed=[TASKS])

    await service.engine.catch_up()
    log.append(an_event(queued(), topic=TASKS))
    await service.engine.catch_up()

    assert service.tally().queued == 2
    assert {place.topic for place in service.store.positions()} == {JOBS}


async def test_an_empty_log_is_no_replay() -> None:
    service = SmallService(new_log())

    count = await service.engine.catch_up()
    await service.receive(an_event(cancel()))

    assert count == 0
    assert service.tally().requested == 1


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["r1", "r2", "r3"]), st.sampled_from(["queue", "enough", "invalid", "boom", "silence", "send"])),
        max_size=20,
    )
)
async def test_live_and_replayed_are_the_same_whatever_happened(steps: list[tuple[str, str]]) -> None:
    live = SmallService(new_log())
    for run_id, what in steps:
        if what == "send":
            live.send()
        else:
            await live.receive(an_event(queued(run_id) if what == "queue" else cancel(run_id, what)))
    await live.settle()

    new = SmallService(live.log)
    await new.engine.catch_up()

    assert new.tallies() == live.tallies()
    assert events(new.engine.unsent(), RunCancelRequested, RunWarned) == []


def _answer_of(source: str, cause: str) -> NewRecord:
    record = an_event(RunCancelRequested(run_id="r1"), source=source)
    return NewRecord(record.topic, record.key, record.value, (*record.headers, ("ce_causationid", cause.encode())))


class _GoesAway(MemoryReader):
    """Is Unavailable once, after so many records."""

    def __init__(self, log: MemoryLog, after: int) -> None:
        super().__init__(log)
        self._left = after

    def read(self, place: Place, start: int, end: int) -> Iterator[Record]:
        for record in super().read(place, start, end):
            self._left -= 1
            if self._left == 0:
                raise Unavailable("the log went away")
            yield record
