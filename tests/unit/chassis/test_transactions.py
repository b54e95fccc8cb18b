"""One input is one transaction: a database that fails, and a process that ends anywhere, leave all of it or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from services.chassis.handler import Command
from services.chassis.loop.memory import MemoryPublisher
from services.chassis.store import Store, Transaction
from tests.unit.chassis.small_service import JOBS, LETTERS, Prepared, SmallService, an_event, cancel, events, new_log, queued
from trainyard.job.v1.job_pb2 import RunPreparing


class FailingStore(Store):
    """Its next transactions fail as a database does: at the end of the work, or when the commit is asked for."""

    failing = 0

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with super().transaction() as transaction:
            yield transaction
            if self.failing:
                self.failing -= 1
                raise OperationalError("COMMIT", {}, Exception("disk I/O error"))


async def test_a_transaction_that_fails_leaves_neither_effect_nor_offset_nor_answer() -> None:
    store = FailingStore("sqlite://")
    service = SmallService(new_log(), store)
    store.failing = 1

    with pytest.raises(OperationalError):
        await service.receive(an_event(cancel()))

    assert service.tallies() == {}
    assert store.positions() == {}
    assert service.engine.unsent() == []


async def test_a_database_that_fails_is_no_messages_fault_and_ends_the_engine() -> None:
    store = FailingStore("sqlite://")
    service = SmallService(new_log(), store)
    store.failing = 1

    with pytest.raises(OperationalError):
        await service.receive(an_event(queued()))

    with pytest.raises(OperationalError):
        await asyncio.wait_for(service.engine.failed(), 10)


async def test_a_commit_that_fails_makes_the_handler_forget_what_it_kept_in_memory() -> None:
    store = FailingStore("sqlite://")
    service = SmallService(new_log(), store)
    store.failing = 1
    with pytest.raises(OperationalError):
        await service.receive(an_event(queued()))

    await service.engine.fetch_missing()

    assert service.tally().queued == 1


async def test_a_handler_that_raises_forgets_what_it_kept_in_memory() -> None:
    service = SmallService(new_log())
    await service.receive(an_event(queued()), an_event(queued(experiment="boom")))

    await service.receive(an_event(queued()))

    assert service.tally().queued == 2


async def test_a_command_whose_transaction_fails_emits_nothing_and_ends_the_engine() -> None:
    store = FailingStore("sqlite://")
    service = SmallService(new_log(), store)
    store.failing = 1

    with pytest.raises(SQLAlchemyError):
        await service.engine.command(Command(Prepared("r1")))

    assert service.engine.unsent() == []
    with pytest.raises(SQLAlchemyError):
        await asyncio.wait_for(service.engine.failed(), 10)


async def test_a_command_that_the_handler_fails_on_is_its_givers_problem_and_the_engine_goes_on() -> None:
    service = SmallService(new_log())

    with pytest.raises(RuntimeError, match="boom"):
        await service.engine.command(Command(Prepared("boom")))
    await service.receive(an_event(queued()))

    assert service.engine.unsent() == []
    assert service.tally().queued == 1


async def test_the_facts_of_a_command_derive_from_its_cause() -> None:
    log = new_log()
    one, other = SmallService(log), SmallService(log)

    await one.engine.command(Command(Prepared("r1"), cause_id="request-1", correlation_id="run-1"))
    await other.engine.command(Command(Prepared("r1"), cause_id="request-1", correlation_id="run-1"))

    facts, again = events(one.engine.unsent()), events(other.engine.unsent())
    assert [(fact.causation_id, fact.correlation_id) for fact in facts] == [("request-1", "run-1")] * 2
    assert [fact.event_id for fact in facts] == [fact.event_id for fact in again]


async def test_commands_without_a_cause_make_events_of_their_own() -> None:
    service = SmallService(new_log())

    for _ in range(2):
        await service.engine.command(Command(Prepared("r1")))

    facts = events(service.engine.unsent(), RunPreparing)
    assert len({fact.event_id for fact in facts}) == 2


async def test_a_command_that_recurs_makes_new_events_each_time_and_names_its_cause() -> None:
    service = SmallService(new_log())

    for _ in range(2):
        await service.engine.command(Command(Prepared("r1"), cause_id="request-1", recurs=True))

    facts = events(service.engine.unsent(), RunPreparing)
    assert len({fact.event_id for fact in facts}) == 2
    assert [fact.causation_id for fact in facts] == ["request-1"] * 2


async def test_a_crash_between_the_commit_and_the_sending_sends_the_same_events(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tally.db'}"
    service = SmallService(new_log(), Store(url))
    await service.receive(an_event(cancel()))
    before = service.engine.unsent()

    again = SmallService(service.log, Store(url))
    await again.engine.catch_up()

    assert len(before) == 3
    assert again.engine.unsent() == before


async def test_a_crash_after_the_sending_sends_the_same_events_again_and_they_take_effect_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tally.db'}"
    service = SmallService(new_log(), Store(url))
    await service.receive(an_event(cancel()))
    MemoryPublisher(service.log).publish(service.engine.unsent())

    again = SmallService(service.log, Store(url))
    await again.settle()

    answers = [event for event in events(service.log.everything()) if event.causation_id]
    assert len(answers) == 6
    assert len({event.event_id for event in answers}) == 3
    assert again.tally().requested == 1


async def test_the_outbox_keeps_the_order_of_the_answers_and_of_the_inputs() -> None:
    service = SmallService(new_log())

    await service.receive(an_event(cancel("r1"), event_id="1"), an_event(cancel("r2"), event_id="2"))

    assert [event.causation_id for event in events(service.engine.unsent())] == ["1"] * 3 + ["2"] * 3


async def test_the_outbox_is_sent_in_portions() -> None:
    service = SmallService(new_log())
    await service.receive(an_event(cancel()))

    portions = []
    while records := service.engine.unsent(limit=2):
        portions.append(len(records))
        service.engine.sent()

    assert portions == [2, 1]


async def test_whoever_waits_for_something_to_send_is_woken_by_an_answer_and_by_a_dead_letter() -> None:
    service = SmallService(new_log())
    for request, topic in ((cancel(), JOBS), (cancel(reason="invalid"), LETTERS)):
        waiting = asyncio.create_task(service.engine.wait_for_unsent(timeout=60))
        await asyncio.sleep(0)

        await service.receive(an_event(request))

        await asyncio.wait_for(waiting, 10)
        assert topic in {record.topic for record in service.engine.unsent()}
        service.engine.sent()


async def test_what_is_refused_before_anything_was_applied_costs_no_reset() -> None:
    service = SmallService(new_log())

    await service.receive(*(an_event(cancel(reason=reason)) for reason in ("invalid", "boom", "invalid")))

    assert service.handler.resets == 0


async def test_what_fails_once_something_was_applied_resets_the_handler() -> None:
    service = SmallService(new_log())

    await service.receive(an_event(queued(experiment="boom")), an_event(cancel(reason="too much")))

    assert service.handler.resets == 2
