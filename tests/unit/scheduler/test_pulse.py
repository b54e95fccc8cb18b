from __future__ import annotations

import asyncio
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from services.chassis.loop.memory import MemoryLog, MemoryPublisher
from services.chassis.settings import Scheduler
from services.scheduler.pulse import TOPIC, Deaf, pulse_for_ever


class Enough(Exception):
    """The test has seen what it waited for."""


def a_context(log: MemoryLog) -> Any:
    settings = SimpleNamespace(scheduler=Scheduler(pulse_seconds=0.001), stall_seconds=0.01)
    return SimpleNamespace(settings=settings, publisher=MemoryPublisher(log))


async def test_a_scheduler_that_does_not_hear_its_pulses_ends() -> None:
    log = MemoryLog({TOPIC: 1})

    with pytest.raises(Deaf):
        await asyncio.wait_for(pulse_for_ever(a_context(log), "me", lambda: 7), 30)

    assert len(log.everything()) == 11


async def test_a_scheduler_that_hears_anything_goes_on() -> None:
    log, records = MemoryLog({TOPIC: 1}), count(1)

    def heard() -> int:
        if len(log.everything()) > 50:
            raise Enough
        return next(records)

    with pytest.raises(Enough):
        await asyncio.wait_for(pulse_for_ever(a_context(log), "me", heard), 30)


async def test_a_log_that_is_away_makes_nobody_deaf() -> None:
    log, tries = MemoryLog({TOPIC: 1}), count(1)
    log.down = True

    class Away(MemoryPublisher):
        def publish(self, records: Any) -> Any:
            if next(tries) > 50:
                raise Enough
            return super().publish(records)

    context = a_context(log)
    context.publisher = Away(log)

    with pytest.raises(Enough):
        await asyncio.wait_for(pulse_for_ever(context, "me", lambda: 0), 30)
