"""Read your writes: waiting for a record to take effect, or for a condition to hold."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from tests.unit.chassis.small_service import SmallService, an_event, cancel, new_log, queued


async def test_whoever_waits_for_a_record_is_told_when_it_has_taken_effect() -> None:
    service = SmallService(new_log())
    record = service.log.append(an_event(queued()))
    waiting = asyncio.create_task(service.engine.applied(record.place, record.offset, timeout=60))
    await asyncio.sleep(0)
    before = waiting.done()

    await service.engine.deliver(record)

    assert not before
    assert await waiting is True
    assert service.tally().queued == 1


async def test_a_record_that_has_taken_effect_is_not_waited_for() -> None:
    service = SmallService(new_log())

    (record,) = await service.receive(an_event(queued()))

    assert await service.engine.applied(record.place, record.offset, timeout=60)


async def test_a_record_that_never_comes_is_given_up_after_the_time() -> None:
    service = SmallService(new_log())
    record = service.log.append(an_event(queued()))

    assert await service.engine.applied(record.place, record.offset, timeout=0.01) is False


async def test_a_fetch_wakes_those_who_wait_too() -> None:
    service = SmallService(new_log())
    record = service.log.append(an_event(queued()))
    waiting = asyncio.create_task(service.engine.applied(record.place, record.offset, timeout=60))
    await asyncio.sleep(0)

    await service.engine.fetch_missing()

    assert await waiting is True


async def test_a_condition_is_looked_at_after_every_change() -> None:
    service = SmallService(new_log())
    waiting = asyncio.create_task(service.engine.until(lambda: service.tally().queued == 2, timeout=60))

    await service.receive(an_event(queued()))
    after_one = waiting.done()
    await service.receive(an_event(queued()))

    assert not after_one
    assert await waiting is True


async def test_the_revision_grows_with_every_change() -> None:
    service = SmallService(new_log())
    before = service.engine.revision

    await service.receive(an_event(queued()), an_event(queued()))

    assert service.engine.revision == before + 2


async def test_a_cancellation_that_meets_a_change_is_not_swallowed() -> None:
    service = SmallService(new_log())
    waiting = asyncio.create_task(service.engine.until(lambda: service.tally().queued == 1, timeout=60))
    sending = asyncio.create_task(service.engine.wait_for_unsent(timeout=60))
    for _ in range(5):
        await asyncio.sleep(0)

    await service.receive(an_event(queued()), an_event(cancel()))
    waiting.cancel()
    sending.cancel()

    for task in (waiting, sending):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_others_have_their_turn_within_a_delivery() -> None:
    service = SmallService(new_log())
    records = [service.log.append(an_event(queued(f"r{number}"))) for number in range(500)]
    delivering = asyncio.ensure_future(service.engine.deliver(*records))
    seen = set()

    while not delivering.done():
        seen.add(len(service.tallies()))
        await asyncio.sleep(0)

    assert len(seen - {0, 500}) >= 2


async def test_records_that_take_long_share_no_transaction() -> None:
    seconds = itertools.count()
    service = SmallService(new_log(), timer=lambda: float(next(seconds)))
    records = [service.log.append(an_event(queued(f"r{number}"))) for number in range(20)]
    delivering = asyncio.ensure_future(service.engine.deliver(*records))
    seen = set()

    while not delivering.done():
        seen.add(sum(service.store.positions().values()))
        await asyncio.sleep(0)

    assert seen >= set(range(1, 20))
    assert len(service.tallies()) == 20
