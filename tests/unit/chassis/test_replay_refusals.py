"""A replay leaves out what could not be taken when it came, and refuses what nobody has met."""

from __future__ import annotations

import pytest

from services.chassis.dead_letters import Limit, TooManyDeadLetters
from services.chassis.records import NewRecord
from tests.unit.chassis.small_service import (
    JOBS,
    LETTERS,
    SmallService,
    Tally,
    an_event,
    cancel,
    events,
    letters,
    new_log,
    queued,
    speaks,
)
from trainyard.event.v1.dead_letter_pb2 import DeadLetter
from trainyard.job.v1.job_pb2 import CancelRun, RunCancelRequested

both_parts = pytest.mark.parametrize("spoke_later", [False, True])


@pytest.mark.parametrize("refused", [cancel(reason="invalid"), cancel(reason="boom"), queued(experiment="boom")])
async def test_what_was_refused_has_no_effect_in_a_replay_either(refused: CancelRun) -> None:
    live = SmallService(new_log())
    await live.receive(an_event(refused), an_event(queued()))
    await live.settle()

    new = SmallService(live.log)
    new.handler.broken = None
    await new.engine.catch_up()

    assert new.tallies() == live.tallies()
    assert new.engine.unsent() == []


async def test_what_another_service_refused_has_its_effect_here() -> None:
    log = new_log()
    record = log.append(an_event(cancel("r1")))
    letter = DeadLetter(topic=record.topic, partition=record.partition, offset=record.offset, service="another")
    log.append(an_event(letter, key="r1", topic=LETTERS))

    service = SmallService(log)
    await service.engine.catch_up()

    assert service.tally().asked == 1


@both_parts
async def test_a_record_that_apply_fails_on_becomes_a_dead_letter_and_the_replay_goes_on(spoke_later: bool) -> None:
    log = new_log()
    log.append(an_event(queued(experiment="boom")))
    log.append(an_event(queued()))
    speaks(log, spoke_later)

    service = SmallService(log)
    await service.engine.catch_up()

    assert service.tally().queued == 1
    assert [letter.error for letter in letters(service.engine.unsent())] == ["RuntimeError: boom"]


@both_parts
async def test_a_handler_that_fails_on_everything_stops_a_replay_too(spoke_later: bool) -> None:
    log = new_log()
    for _ in range(3):
        log.append(an_event(queued(experiment="boom")))
    speaks(log, spoke_later)
    service = SmallService(log, limit=Limit(failures=3))

    with pytest.raises(TooManyDeadLetters, match="3 records in a row"):
        await service.engine.catch_up()

    assert service.store.positions() == {}


async def test_unreadable_and_unknown_records_that_the_service_has_met_are_passed_over_by_a_replay() -> None:
    log = new_log()
    log.append(NewRecord(JOBS, b"r1", b"\xff", (("ce_type", b"trainyard.job.v1.RunQueued"), ("ce_id", b"1"))))
    log.append(NewRecord(JOBS, b"r1", b"", (("ce_type", b"trainyard.job.v9.RunTeleported"), ("ce_id", b"2"))))
    log.append(an_event(queued()))
    speaks(log, True)

    service = SmallService(log)
    await service.engine.catch_up()

    assert service.tally().queued == 1
    assert service.engine.unsent() == []


@both_parts
async def test_an_input_that_was_never_met_and_cannot_be_taken_becomes_a_dead_letter_without_effect(spoke_later: bool) -> None:
    log = new_log()
    log.append(an_event(cancel("r1", reason="invalid")))
    log.append(an_event(cancel("r1", reason="boom")))
    log.append(an_event(cancel("r2")))
    speaks(log, spoke_later)

    service = SmallService(log)
    await service.engine.catch_up()

    told = [letter.error for letter in letters(service.engine.unsent())]
    assert told == ["InvalidMessage: the reason is invalid", "RuntimeError: boom"]
    assert len(events(service.engine.unsent(), RunCancelRequested)) == 1
    assert service.tally("r1") == Tally()
    assert service.tally("r2").asked == 1


@both_parts
async def test_a_handler_that_fails_on_every_open_input_stops_a_replay(spoke_later: bool) -> None:
    log = new_log()
    for _ in range(3):
        log.append(an_event(cancel(reason="boom")))
    speaks(log, spoke_later)
    service = SmallService(log, limit=Limit(failures=3))

    with pytest.raises(TooManyDeadLetters):
        await service.engine.catch_up()

    assert service.store.positions() == {}
