"""Long work: done once for each intent, repeated after a crash, answered by facts that appear once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from services.chassis import worker
from services.chassis.handler import Command
from services.chassis.records import Unavailable
from services.chassis.store import Store
from services.chassis.worker import Worker
from tests.unit.chassis.small_service import Prepared, SmallService, an_event, events, new_log, queued
from trainyard._errors import PlatformUnavailableException
from trainyard.job.v1.job_pb2 import RunPreparing, RunScaling


class Work:
    """What the worker does, and how often; `hold` keeps it from ending."""

    def __init__(self, *troubles: Exception, hold: bool = False) -> None:
        self.done: list[str] = []
        self.most_at_once = self._now = 0
        self.go_on = asyncio.Event()
        self._troubles = list(troubles)
        if not hold:
            self.go_on.set()

    async def __call__(self, content: bytes) -> Command:
        run_id, cause_id = content.decode().split(" ")
        self.done.append(cause_id)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            await self.go_on.wait()
        finally:
            self._now -= 1
        if self._troubles:
            raise self._troubles.pop(0)
        return Command(Prepared(run_id), cause_id)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_RETRY_SECONDS", (0.001,))


async def test_an_intent_is_worked_on_once_and_its_facts_remove_it() -> None:
    service, work = SmallService(new_log()), Work()
    await service.receive(an_event(RunScaling(run_id="r1"), event_id="asked"))

    await _works(service, work, until=lambda: not _intents(service))
    await service.receive(an_event(queued()))

    assert work.done == ["asked"]
    (fact,) = events(service.engine.unsent(), RunPreparing)
    assert fact.causation_id == "asked"


async def test_an_intent_that_comes_while_the_worker_runs_is_seen() -> None:
    service, work = SmallService(new_log()), Work()
    running = asyncio.create_task(Worker("to prepare", work).run(service.engine, service.store))
    await asyncio.sleep(0)

    await service.receive(an_event(RunScaling(run_id="r1")))

    assert await service.engine.until(lambda: not _intents(service), 10)
    running.cancel()


async def test_a_crash_in_the_middle_repeats_the_work_and_not_the_facts(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tally.db'}"
    service, held = SmallService(new_log(), Store(url)), Work(hold=True)
    await service.receive(an_event(RunScaling(run_id="r1"), event_id="asked"))
    crashing = asyncio.create_task(Worker("to prepare", held).run(service.engine, service.store))
    await _once(lambda: bool(held.done))
    crashing.cancel()

    again, work = SmallService(service.log, Store(url)), Work()
    await again.engine.catch_up()
    await _works(again, work, until=lambda: not _intents(again))
    await again.settle()

    assert (held.done, work.done) == (["asked"], ["asked"])
    assert len(events(again.log.everything(), RunPreparing)) == 1


async def test_a_crash_after_the_facts_repeats_neither(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tally.db'}"
    service = SmallService(new_log(), Store(url))
    await service.receive(an_event(RunScaling(run_id="r1")))
    await _works(service, Work(), until=lambda: not _intents(service))

    again, work = SmallService(service.log, Store(url)), Work()
    await again.settle()
    await _works(again, work, until=lambda: True)

    assert work.done == []
    assert len(events(again.log.everything(), RunPreparing)) == 1


@pytest.mark.parametrize("trouble", [Unavailable("no"), PlatformUnavailableException("no"), RuntimeError("a bug"), OSError("disk full")])
async def test_work_that_fails_is_tried_again(trouble: Exception) -> None:
    service, work = SmallService(new_log()), Work(trouble, trouble)
    await service.receive(an_event(RunScaling(run_id="r1"), event_id="asked"))

    await _works(service, work, until=lambda: not _intents(service))

    assert work.done == ["asked"] * 3
    assert len(events(service.engine.unsent(), RunPreparing)) == 1


async def test_a_result_that_the_handler_fails_on_does_not_end_the_service() -> None:
    service, work = SmallService(new_log()), Work()
    await service.receive(an_event(RunScaling(run_id="boom")), an_event(RunScaling(run_id="r1")))

    await _works(service, work, until=lambda: _intents(service) == {"boom"})
    service.handler.broken = None
    await _works(service, work, until=lambda: not _intents(service))

    assert {event.key for event in events(service.engine.unsent(), RunPreparing)} == {"boom", "r1"}


async def test_no_more_is_worked_on_at_once_than_asked_for() -> None:
    service, work = SmallService(new_log()), Work(hold=True)
    await service.receive(*(an_event(RunScaling(run_id=f"r{number}")) for number in range(6)))
    running = asyncio.create_task(Worker("to prepare", work, parallel=2).run(service.engine, service.store))
    await _once(lambda: len(work.done) == 2)

    work.go_on.set()
    assert await service.engine.until(lambda: not _intents(service), 10)
    running.cancel()

    assert work.most_at_once == 2
    assert len(work.done) == 6


def _intents(service: SmallService) -> set[str]:
    with service.store.reading() as documents:
        return {key for key, _ in documents.all("to prepare")}


async def _works(service: SmallService, work: Work, until: Callable[[], bool]) -> None:
    """A worker at work until the condition holds, and no longer."""
    running = asyncio.create_task(Worker("to prepare", work).run(service.engine, service.store))
    try:
        assert await service.engine.until(until, 10)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _once(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)
