"""What cannot be taken: who keeps it as a dead letter, what goes on, and when the service stops."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from google.protobuf.message import Message

from services.chassis.dead_letters import Limit, TooManyDeadLetters
from services.chassis.records import NewRecord
from tests.unit.chassis.small_service import JOBS, PULSES, SmallService, an_event, cancel, letters, new_log, queued
from trainyard.job.v1.job_pb2 import RunQueued

POISON = NewRecord(JOBS, b"r1", b"\xff\xff\xff", (("ce_type", b"trainyard.job.v1.RunQueued"), ("ce_id", b"poison")))


def a_time_that_no_calendar_has() -> RunQueued:
    """The small service reads it in apply."""
    message = queued()
    message.queued_at.seconds = 1 << 62
    return message


async def test_a_handler_that_raises_leaves_a_dead_letter_with_its_stack_and_the_service_goes_on() -> None:
    service = SmallService(new_log())

    bad, good = await service.receive(an_event(cancel(reason="boom")), an_event(queued()))

    (letter,) = letters(service.engine.unsent())
    assert letter.error == "RuntimeError: boom"
    assert "in react" in letter.stack and "RuntimeError: boom" in letter.stack
    assert (letter.topic, letter.partition, letter.offset) == (bad.topic, bad.partition, bad.offset)
    assert (letter.key, letter.value) == (bad.key, bad.value)
    assert [(header.name, header.value) for header in letter.headers] == list(bad.headers)
    assert letter.service == "tally"
    assert service.position(good.place) == 2
    assert service.tally().queued == 1


async def test_a_handler_that_raises_half_way_through_leaves_no_effect() -> None:
    service = SmallService(new_log())

    await service.receive(an_event(queued(experiment="boom")), an_event(queued()))

    assert service.tally().queued == 1
    assert len(letters(service.engine.unsent())) == 1


async def test_an_invalid_message_leaves_a_dead_letter_with_the_reason_and_no_effect() -> None:
    service = SmallService(new_log())

    (record,) = await service.receive(an_event(cancel(reason="invalid")))

    (letter,) = letters(service.engine.unsent())
    assert letter.error == "InvalidMessage: the reason is invalid"
    assert letter.stack == ""
    assert service.tally().asked == 0
    assert service.position(record.place) == 1


async def test_what_cannot_be_read_is_kept_by_the_owner_of_the_topic() -> None:
    service = SmallService(new_log(), owned=[JOBS])

    (record,) = await service.receive(POISON)

    (letter,) = letters(service.engine.unsent())
    assert letter.error.startswith("Undecodable: ")
    assert letter.value == POISON.value
    assert service.position(record.place) == 1


async def test_what_cannot_be_read_is_passed_over_by_everybody_else() -> None:
    service = SmallService(new_log(), owned=[])

    (record,) = await service.receive(POISON)

    assert letters(service.engine.unsent()) == []
    assert service.position(record.place) == 1


async def test_a_type_of_trainyard_that_is_unknown_is_ignored_and_counted() -> None:
    service = SmallService(new_log())
    newer = NewRecord(JOBS, b"r1", b"", (("ce_type", b"trainyard.job.v9.RunTeleported"), ("ce_id", b"1")))

    _, good = await service.receive(newer, an_event(queued()))

    assert service.engine.counts["unknown_types"] == 1
    assert service.engine.unsent() == []
    assert service.tally().queued == 1


async def test_a_dead_letter_of_an_ephemeral_topic_moves_no_position() -> None:
    service = SmallService(new_log())

    await service.receive(an_event(cancel(reason="invalid"), topic=PULSES))

    assert len(letters(service.engine.unsent())) == 1
    assert service.store.positions() == {}


async def test_the_same_refusal_has_the_same_id_whoever_meets_it_again() -> None:
    log = new_log()
    one, other = SmallService(log), SmallService(log)
    (record,) = await one.receive(an_event(cancel(reason="invalid")))

    await other.engine.deliver(record)

    ids = [dict(service.engine.unsent()[0].headers)["ce_id"] for service in (one, other)]
    assert ids[0] == ids[1]


@pytest.mark.parametrize("message", [cancel(reason="boom"), queued(experiment="boom")])
async def test_a_handler_that_fails_on_everything_stops_the_service_before_it_diverts_the_topic(message: Message) -> None:
    service = SmallService(new_log(), limit=Limit(failures=3))
    await service.receive(an_event(message), an_event(message))

    with pytest.raises(TooManyDeadLetters, match="3 records in a row"):
        await service.receive(an_event(message))

    assert len(letters(service.engine.unsent())) == 2
    with pytest.raises(TooManyDeadLetters):
        await asyncio.wait_for(service.engine.failed(), 10)


async def test_the_record_at_the_limit_is_not_lost() -> None:
    service = SmallService(new_log(), limit=Limit(failures=1))
    with pytest.raises(TooManyDeadLetters):
        await service.receive(an_event(queued(experiment="boom")))

    mended = SmallService(service.log, service.store)
    mended.handler.broken = None
    await mended.engine.catch_up()

    assert mended.tally().queued == 1


async def test_failures_with_a_success_between_them_do_not_add_up() -> None:
    service = SmallService(new_log(), limit=Limit(failures=2))

    for bad in (an_event(cancel(reason="boom")), POISON, an_event(cancel(reason="boom")), POISON):
        await service.receive(bad, an_event(queued()))

    assert service.tally().queued == 4


@pytest.mark.security
async def test_what_is_the_messages_own_fault_never_stops_the_service() -> None:
    service = SmallService(new_log(), limit=Limit(failures=1))
    hostile = (POISON, an_event(cancel(reason="invalid")), an_event(a_time_that_no_calendar_has()))

    await service.receive(*(record for _ in range(5) for record in hostile), an_event(queued()))

    assert service.tally().queued == 1
    assert len(letters(service.engine.unsent())) == 15


async def test_a_handler_that_fails_counts_on_whatever_invalid_messages_lie_between() -> None:
    service = SmallService(new_log(), limit=Limit(failures=2))
    await service.receive(an_event(cancel(reason="boom")), an_event(cancel(reason="invalid")), POISON)

    with pytest.raises(TooManyDeadLetters):
        await service.receive(an_event(cancel(reason="boom")))


@pytest.mark.security
@pytest.mark.parametrize("replayed", [False, True])
async def test_a_time_that_no_calendar_has_is_the_messages_fault_and_no_failure_of_the_handler(replayed: bool) -> None:
    log = new_log()
    record = an_event(a_time_that_no_calendar_has())
    service = SmallService(log, limit=Limit(failures=1))

    if replayed:
        log.append(record)
        log.append(an_event(queued(), source="trainyard/tally"))
        await service.engine.catch_up()
    else:
        await service.receive(record)

    (letter,) = letters(service.engine.unsent())
    assert letter.error.startswith("InvalidMessage: ")
    assert letter.stack == ""


async def test_an_answer_that_no_topic_takes_makes_a_dead_letter_and_holds_nothing_up() -> None:
    service = SmallService(new_log())

    await service.receive(an_event(cancel(reason="too much")), an_event(cancel()))

    first, *rest = service.engine.unsent()
    (letter,) = letters([first])
    assert "RunCancelRequested for trainyard.jobs, key 'r1', has 2097" in letter.error
    assert len(rest) == 3


async def test_a_year_before_time_began_is_unreadable_and_not_a_failure_of_the_handler() -> None:
    service = SmallService(new_log(), limit=Limit(failures=1))
    record = an_event(queued())
    early = tuple((name, b"0001-01-01T00:00:00+14:00" if name == "ce_time" else value) for name, value in record.headers)

    await service.receive(replace(record, headers=early))

    (letter,) = letters(service.engine.unsent())
    assert letter.error.startswith("Undecodable: ce_time")
