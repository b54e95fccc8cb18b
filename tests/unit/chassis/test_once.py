"""Every record takes effect once, whatever the loop delivers twice or late."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.chassis.engine import LogReplaced
from services.chassis.loop.memory import MemoryLog
from services.chassis.records import Place
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


async def test_what_has_the_id_of_an_event_that_was_taken_is_passed_over_whatever_it_holds() -> None:
    service = SmallService(new_log())
    first = an_event(queued(), event_id="same")

    await service.receive(first, replace(first, value=b"\xff"))

    assert service.engine.counts["repeated_events"] == 1
    assert service.engine.unsent() == []


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


async def test_what_a_handler_counts_in_memory_counts_once_though_a_record_beside_it_fails() -> None:
    service = SmallService(new_log())
    pulses = [service.log.append(an_event(queued(), topic=PULSES)) for _ in range(3)]
    broken = service.log.append(an_event(queued(experiment="boom")))

    await service.engine.deliver(*pulses, broken)

    assert service.handler.pulses == 3
