"""What a servicer is given: requests that return once they have taken effect, and reads that see all that came before."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from services.chassis import context as chassis
from services.chassis.context import Context
from services.chassis.grpc_server import Code, Refused
from services.chassis.loop.memory import MemoryLog, MemoryLoop, MemoryPublisher
from services.chassis.records import NewRecord, Place, Unavailable
from services.chassis.service import send_for_ever
from services.chassis.settings import Settings
from tests.unit.chassis.small_service import JOBS, SmallService, an_event, cancel, events, new_log, queued
from trainyard.job.v1.job_pb2 import CancelRun, RunCancelRequested


def a_context(service: SmallService) -> Context:
    return Context(
        Settings.load("tally"), service.store, service.engine, MemoryPublisher(service.log), service.reader, MemoryPublisher(service.log)
    )


@asynccontextmanager
async def at_work(service: SmallService) -> AsyncIterator[None]:
    """Its loop delivers, and what follows is sent."""
    loop = MemoryLoop(service.log, [JOBS], lambda place: 0)
    running = asyncio.create_task(loop.run(service.engine.deliver, lambda: None))
    sending = asyncio.create_task(send_for_ever(service.engine, MemoryPublisher(service.log)))
    yield
    await loop.stop()
    await running
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


async def test_a_request_returns_when_it_has_taken_effect() -> None:
    service = SmallService(new_log())
    async with at_work(service):
        event_id = await a_context(service).request(JOBS, "r1", cancel("r1"))

    assert service.tally("r1").requested == 1
    (answer,) = events(service.log.everything(), RunCancelRequested)
    assert answer.causation_id == event_id


async def test_a_request_does_not_wait_for_ever_for_what_follows_to_lie_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chassis, "_TELL_SECONDS", 0.01)
    service = SmallService(new_log())
    loop = MemoryLoop(service.log, [JOBS], lambda place: 0)
    running = asyncio.create_task(loop.run(service.engine.deliver, lambda: None))

    await a_context(service).request(JOBS, "r1", cancel("r1"))

    assert len(events(service.engine.unsent(), RunCancelRequested)) == 1
    await loop.stop()
    await running


async def test_a_request_that_no_topic_takes_is_refused_before_it_is_published() -> None:
    service = SmallService(new_log())

    with pytest.raises(Refused) as caught:
        await a_context(service).request(JOBS, "r1", cancel("r1", "x" * (2 << 20)))

    assert (caught.value.status, caught.value.failure.code) == (Code.INVALID_ARGUMENT, "RequestTooLarge")
    assert service.log.everything() == []


async def test_an_answer_is_given_once_it_is_found_and_lies_in_the_log() -> None:
    service = SmallService(new_log())
    asking = asyncio.create_task(a_context(service).answer(lambda documents: documents.get("tally", "r1"), 60))
    await service.receive(an_event(cancel("r1")))
    for _ in range(20):
        await asyncio.sleep(0)
    before = asking.done()

    async with at_work(service):
        answer = await asking

    assert not before
    assert answer is not None
    assert len(events(service.log.everything(), RunCancelRequested)) == 1


async def test_an_answer_that_is_not_found_in_time_is_none() -> None:
    service = SmallService(new_log())

    assert await a_context(service).answer(lambda documents: documents.get("tally", "r1"), 0.01) is None


async def test_a_request_lies_in_the_log_as_any_client_would_have_published_it() -> None:
    service = SmallService(new_log())
    async with at_work(service):
        event_id = await a_context(service).request(JOBS, "r1", cancel("r1"))

    (event,) = events(service.log.everything(), CancelRun)
    assert (event.event_id, event.key, event.source) == (event_id, "r1", "trainyard/tally/grpc")


async def test_a_request_that_takes_no_effect_in_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chassis, "_APPLY_SECONDS", 0.01)
    service = SmallService(new_log())

    with pytest.raises(Refused) as caught:
        await a_context(service).request(JOBS, "r1", cancel("r1"))

    assert caught.value.status is Code.DEADLINE_EXCEEDED


async def test_a_request_while_the_log_is_away_says_so() -> None:
    service = SmallService(new_log())
    service.log.down = True

    with pytest.raises(Unavailable):
        await a_context(service).request(JOBS, "r1", cancel("r1"))


async def test_a_reader_waits_for_what_lay_in_the_keys_partition_before() -> None:
    service = SmallService(new_log())
    record = service.log.append(an_event(queued("r1")))
    waiting = asyncio.create_task(a_context(service).caught_up(JOBS, "r1"))
    await service.receive(an_event(queued(_of_another_partition(service, record.partition))))
    before = waiting.done()

    await service.engine.deliver(record)
    await waiting

    assert not before
    assert service.tally("r1").queued == 1


async def test_a_partition_in_which_nothing_lies_is_not_waited_for() -> None:
    await a_context(SmallService(new_log())).caught_up(JOBS, "r1")


async def test_a_service_that_lags_for_too_long_says_so() -> None:
    service = SmallService(new_log())
    service.log.append(an_event(queued("r1")))

    with pytest.raises(Unavailable, match="lags behind trainyard.jobs"):
        await a_context(service).caught_up(JOBS, "r1", timeout=0.01)


def _of_another_partition(service: SmallService, partition: int) -> str:
    keys = (f"other-{number}" for number in range(100))
    return next(key for key in keys if service.log.append(an_event(queued(key), topic="trainyard.tasks")).partition != partition)


async def test_a_request_that_became_a_dead_letter_is_answered_with_its_reason() -> None:
    service = SmallService(new_log())
    async with at_work(service):
        with pytest.raises(Refused) as caught:
            await a_context(service).request(JOBS, "r1", cancel("r1", "invalid"))

    assert caught.value.status is Code.INVALID_ARGUMENT
    assert "the reason is invalid" in caught.value.failure.message


async def test_a_request_that_the_service_failed_on_is_not_the_callers_fault() -> None:
    service = SmallService(new_log())
    async with at_work(service):
        with pytest.raises(Refused) as caught:
            await a_context(service).request(JOBS, "r1", cancel("r1", "boom"))

    assert caught.value.status is Code.INTERNAL


class StuckPublisher(MemoryPublisher):
    """The log is away: it does not return until it is let."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.let = threading.Event()

    def publish(self, records: Sequence[NewRecord]) -> list[tuple[Place, int]]:
        self.let.wait(60)
        raise Unavailable("away")


async def test_calls_that_wait_for_the_log_keep_neither_pulses_nor_the_outbox_from_it() -> None:
    service = SmallService(new_log())
    context = replace(a_context(service), requests=StuckPublisher(service.log))
    calls = [asyncio.create_task(context.request(JOBS, "r1", cancel("r1"))) for _ in range(100)]
    await asyncio.sleep(0)

    placed = await asyncio.wait_for(asyncio.to_thread(context.publisher.publish, [an_event(queued("r2"))]), 30)

    assert len(placed) == 1
    context.requests.let.set()  # type: ignore[attr-defined]
    assert all(isinstance(result, Unavailable) for result in await asyncio.gather(*calls, return_exceptions=True))
