"""One budget of memory over all endpoints: who sleeps, who waits, and what is said of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.serving.crowd import Crowd, Place
from services.serving.domain.endpoint import Endpoint, evolve, why_of
from services.serving.domain.memory import Standing, put_to_sleep
from services.serving.domain.reports import Report, conclude
from services.serving.ports import Content, Ports
from tests.unit.serving.builders import a_version
from tests.unit.serving.fakes import FakeServer
from trainyard.endpoint.v1 import endpoint_pb2 as pb

LEAST_AWAKE = 30.0
MIB = 1 << 20
SERVERS = st.lists(
    st.builds(
        Standing,
        endpoint=st.text("abc", min_size=1, max_size=3),
        deployment=st.just(1),
        bytes=st.integers(1, 100),
        up_since=st.floats(0, 100),
        called=st.floats(0, 100),
        busy=st.booleans(),
        may_sleep=st.booleans(),
    ),
    max_size=12,
    unique_by=lambda it: it.endpoint,
)


def can_sleep(it: Standing, now: float) -> bool:
    return it.may_sleep and not it.busy and now - it.up_since >= LEAST_AWAKE


@given(SERVERS, st.integers(1, 600), st.integers(0, 100), st.floats(0, 200))
def test_the_budget_holds_wherever_somebody_may_sleep(servers: list[Standing], budget: int, coming: int, now: float) -> None:
    asleep = put_to_sleep(servers, budget, coming, now, LEAST_AWAKE)
    awake = [it for it in servers if it not in asleep]

    assert sum(it.bytes for it in awake) + coming <= budget or not any(can_sleep(it, now) for it in awake)


@given(SERVERS, st.integers(1, 600), st.integers(0, 100), st.floats(0, 200))
def test_nobody_sleeps_with_calls_under_way_or_just_woken_or_for_nothing(
    servers: list[Standing], budget: int, coming: int, now: float
) -> None:
    asleep = put_to_sleep(servers, budget, coming, now, LEAST_AWAKE)

    assert all(can_sleep(it, now) for it in asleep)
    if asleep:  # without the last of them it would not have been enough
        assert sum(it.bytes for it in servers) - sum(it.bytes for it in asleep[:-1]) + coming > budget


@given(SERVERS, st.integers(1, 600), st.integers(0, 100), st.floats(0, 200))
def test_who_was_called_longest_ago_sleeps_first(servers: list[Standing], budget: int, coming: int, now: float) -> None:
    asleep = put_to_sleep(servers, budget, coming, now, LEAST_AWAKE)

    awake = [it.called for it in servers if it not in asleep and can_sleep(it, now)]
    assert [it.called for it in asleep] == sorted(it.called for it in asleep)
    assert not asleep or not awake or max(it.called for it in asleep) <= min(awake)


@given(st.integers(60, 100), st.integers(60, 100), st.integers(1, 300))
def test_two_that_do_not_fit_together_do_not_take_turns_faster_than_the_least_time_awake(one: int, other: int, seconds: int) -> None:
    """Somebody calls whichever of them sleeps, every second."""
    up: dict[str, tuple[int, float]] = {}
    woken = 0
    for now in map(float, range(seconds)):
        for name, size in (("a", one), ("b", other)):
            if name not in up:
                up[name] = (size, now)
                woken += 1
        standings = [Standing(name, 1, size, since, since) for name, (size, since) in up.items()]
        for it in put_to_sleep(standings, 100, 0, now, LEAST_AWAKE):
            del up[it.endpoint]

    assert woken <= 2 + seconds / LEAST_AWAKE * 2


# -- with servers


class Town:
    """Endpoints whose reports take effect at once, and a clock that the test moves."""

    def __init__(self, budget: int = 250 * MIB, patience: float = 1000.0) -> None:
        self.now = 0.0
        self.endpoints: dict[str, Endpoint] = {}
        self.slept: list[str] = []
        self.said: list[str] = []
        self.places: dict[str, Place] = {}
        self.crowd = Crowd(budget, LEAST_AWAKE, patience=patience, look=0, pause=0, clock=lambda: self.now)

    async def enter(self, name: str, takes: int = 100, **fields: int) -> FakeServer:
        """`takes`: MiB of memory of its server."""
        version = a_version(name)
        content = Content(name, 1, version.id, (version,), **fields)
        place = await self.crowd.enter(content, self.say)
        server = FakeServer(content, Ports(1, 2))
        server.takes = takes * MIB
        await self.crowd.up(place, server)
        self.places[name] = place
        self.tell(pb.EndpointStarting(endpoint=name, deployment=1, model=name, version=1))
        self.tell(pb.EndpointLive(endpoint=name, deployment=1, scoring_uri="http://h:1/v1/models/x:predict"))
        return server

    def tell(self, fact: pb.EndpointStarting | pb.EndpointLive) -> None:
        after = evolve(self.endpoints.get(fact.endpoint), fact)
        assert after is not None
        self.endpoints[fact.endpoint] = after

    async def say(self, what: str) -> None:
        self.said.append(what)

    async def report(self, report: Report) -> None:
        for fact in conclude(self.endpoints[report.endpoint], report):
            after = evolve(self.endpoints[report.endpoint], fact)
            assert after is not None
            self.endpoints[report.endpoint] = after
            if after.asleep:
                self.slept.append(after.name)
                self.crowd.leave(self.places.pop(after.name))

    async def look(self, *called: FakeServer) -> None:
        """Ten seconds later, in which those were called."""
        self.now += 10
        for server in called:
            server.called = (server.called or 0) + 1
        await self.crowd.look(self.endpoints, self.report)

    @asynccontextmanager
    async def looked_after(self) -> AsyncIterator[None]:
        running = asyncio.create_task(self.crowd.run(lambda: self.endpoints, self.report))
        try:
            yield
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


async def test_the_one_called_longest_ago_sleeps_when_a_server_grows_and_says_why() -> None:
    town = Town()
    first, second = await town.enter("first"), await town.enter("second")
    for _ in range(4):
        await town.look(first)
    assert town.slept == []

    first.takes = 200 * MIB
    await town.look()

    asleep = town.endpoints["second"]
    assert town.slept == ["second"]
    assert asleep.memory_bytes == second.takes
    assert why_of(asleep).startswith(
        "asleep: its 100 MiB of memory are wanted: all servers together take 300 MiB, and their budget is 250 MiB."
    )
    assert why_of(asleep).endswith("it was called longest ago, 50 s; the next call through the door starts it")


async def test_calls_under_way_keep_a_server_awake_and_nobody_is_chosen_twice() -> None:
    town = Town(310 * MIB)
    first, second, third = [await town.enter(name) for name in ("first", "second", "third")]
    first.called, first.takes = None, 150 * MIB
    for _ in range(4):
        await town.look(second, third)

    assert town.slept == ["second"]
    second.takes = third.takes = 10_000 * MIB  # one that has left does not count
    third.called = None
    await town.look()
    assert town.slept == ["second"]


async def test_who_comes_waits_until_there_is_room() -> None:
    town = Town()
    first, second = await town.enter("first"), await town.enter("second")
    for _ in range(4):
        await town.look(second)

    async with town.looked_after():
        await asyncio.wait_for(town.enter("third", memory_bytes=90 * MIB), 10)

    assert town.slept == ["first"]
    assert town.said == ["waiting for memory: all servers together take 200 MiB, and their budget is 250 MiB, and about 90 MiB are needed"]
    assert first.called == 0


async def test_where_nobody_may_sleep_a_server_starts_after_a_while_all_the_same() -> None:
    town = Town(patience=100)
    for name in ("first", "second"):
        (await town.enter(name)).called = None
    waiting = asyncio.create_task(town.enter("third", memory_bytes=90 * MIB))
    async with town.looked_after():
        while not town.said:
            await asyncio.sleep(0)
        assert not waiting.done()
        town.now += LEAST_AWAKE + 101
        await asyncio.wait_for(waiting, 10)

    assert town.slept == []


async def test_those_that_find_no_room_start_one_at_a_time_and_each_after_a_wait_of_its_own() -> None:
    town, wait = Town(patience=100), LEAST_AWAKE + 101
    for name in ("first", "second"):
        (await town.enter(name)).called = None
    coming = [Content(name, 1, "", (a_version(name),), memory_bytes=90 * MIB) for name in ("third", "fourth", "fifth")]
    entering = [asyncio.create_task(town.crowd.enter(it, town.say)) for it in coming]

    async def later(seconds: float) -> list[bool]:
        """Who may start by then."""
        for _ in range(10):
            await asyncio.sleep(0)
        town.now += seconds
        for _ in range(10):
            await asyncio.sleep(0)
        return [it.done() for it in entering]

    assert await later(wait) == [True, False, False]
    assert await later(10 * wait) == [True, False, False]  # nobody knows yet what the third takes
    await town.crowd.up(entering[0].result(), FakeServer(coming[0], Ports(1, 2)))
    assert await later(LEAST_AWAKE) == [True, False, False]  # it may sleep only now
    assert await later(wait) == [True, True, False]
    town.crowd.leave(entering[1].result())  # it never came up
    assert await later(wait) == [True, True, True]


@pytest.mark.parametrize("memory_bytes", [100 * MIB, 10_000 * MIB])
async def test_the_only_one_starts_at_once_whatever_it_takes(memory_bytes: int) -> None:
    town = Town(200 * MIB)

    await town.enter("first", memory_bytes=memory_bytes)

    assert town.said == []


async def test_one_that_never_was_up_is_expected_to_take_what_the_smallest_of_its_kind_takes_beside_its_files() -> None:
    town = Town(1050 * MIB)
    await town.enter("large", 500)
    await town.enter("small", 300)
    await town.look()

    waiting = asyncio.create_task(town.enter("third"))
    while not town.said:
        await asyncio.sleep(0)
    waiting.cancel()

    assert town.said[0].endswith("and about 300 MiB are needed")


async def test_without_a_budget_nobody_waits_and_nothing_is_looked_at() -> None:
    town = Town(budget=0)

    servers = [await town.enter(name, 10_000) for name in ("first", "second")]
    async with town.looked_after():
        await asyncio.sleep(0)

    assert all(town.places[it.content.endpoint].bytes == 0 for it in servers)
