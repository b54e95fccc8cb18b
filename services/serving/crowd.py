"""All servers of endpoints together: how much memory they take, who waits for room, and who sleeps to make it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog

from services.serving.domain.endpoint import Endpoint, wanted
from services.serving.domain.memory import Standing, put_to_sleep
from services.serving.domain.reports import Report, WentIdle, may_sleep
from services.serving.ports import Content, Server

log = structlog.get_logger()
_MIB = 1 << 20


class Place:
    """What one deployment's server takes, from before its start to its end."""

    def __init__(self, content: Content) -> None:
        self.content = content
        self.server: Server | None = None  # None: it is being started
        self.bytes = 0  # taken, or expected to be
        self.is_measured = False
        self.up_since = self.called = 0.0
        self.busy = False
        self._calls: int | None = None

    def heard(self, calls: int | None, now: float) -> None:
        """`calls`: so many so far; None: some are under way, or nobody knows."""
        self.busy = calls is None
        if self.busy or calls != self._calls:
            self.called = now if self.busy or self._calls is not None else self.called
            self._calls = calls


class Crowd:
    def __init__(
        self,
        budget: int = 0,
        least_awake: float = 30.0,
        *,
        patience: float = 15.0,
        look: float = 2.0,
        pause: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`budget`: bytes; 0: no bound, and nothing is looked at. `patience`: how much longer than `least_awake` the first in the line waits
        for somebody to sleep before it starts beyond the budget. `look`: between two looks, at most, and `pause` while somebody waits. Times
        in seconds."""
        self._budget = budget
        self._least_awake = least_awake
        self._patience = patience
        self._look_seconds = look
        self._pause = pause
        self._clock = clock
        self._present: list[Place] = []
        self._waiting: list[Place] = []
        self._known: dict[str, int] = {}  # what servers of an endpoint took last
        self._hurry = asyncio.Event()

    # -- what caretakers say

    async def enter(self, content: Content, say: Callable[[str], Awaitable[None]]) -> Place:
        """Returns when there is room for its server, or nobody makes any. Leave the place when the server has ended."""
        place = Place(content)
        if self._budget:
            place.bytes = self._expected(content)
            await self._room(place, say)
        self._present.append(place)
        return place

    def admit(self, content: Content) -> Place:
        """Its server runs already, and has its room."""
        place = Place(content)
        self._present.append(place)
        return place

    async def up(self, place: Place, server: Server) -> None:
        """It answers."""
        place.server, place.up_since, place.called = server, self._clock(), self._clock()
        if self._budget:
            await self._measure(place)
            self._hurry.set()

    def leave(self, place: Place) -> None:
        self._present.remove(place)
        self._hurry.set()

    def _expected(self, content: Content) -> int:
        """What it took before; of one that never was up, its files and the least that a server of its kind takes now."""
        before = self._known.get(content.endpoint) or content.memory_bytes
        files = sum(file.size_bytes for version in content.models for file in version.files.files)
        alike = [it.bytes for it in self._present if it.server is not None and (it.content.scoring is None) == (content.scoring is None)]
        return min(before or files + min(alike, default=0), self._budget)

    async def _room(self, place: Place, say: Callable[[str], Awaitable[None]]) -> None:
        """In the order in which they came."""
        self._waiting.append(place)
        try:
            first_since: float | None = None
            told = False
            while True:
                if self._waiting[0] is place:
                    if self._fits(place):
                        return
                    first_since = self._clock() if first_since is None else first_since
                    if self._has_waited(first_since):
                        log.warning("a server starts beyond the memory budget", endpoint=place.content.endpoint, budget=self._budget)
                        return
                if not told:
                    told = True
                    await say(f"waiting for memory: {self._told()}, and about {_mib(place.bytes)} are needed")
                self._hurry.set()
                await asyncio.sleep(self._pause)
        finally:
            self._waiting.remove(place)

    def _has_waited(self, since: float) -> bool:
        """Beyond the budget one starts at a time: only once it is known what the one before it takes, and that one had time to sleep again.
        `since`: when the one that waits became the first in the line."""
        newest = max([since, *(it.up_since for it in self._present)])
        return all(it.is_measured for it in self._present) and self._clock() >= newest + self._least_awake + self._patience

    def _fits(self, place: Place) -> bool:
        return not self._present or self._taken() + place.bytes <= self._budget

    def _taken(self) -> int:
        return sum(it.bytes for it in self._present)

    def _told(self) -> str:
        return f"all servers together take {_mib(self._taken())}, and their budget is {_mib(self._budget)}"

    # -- who sleeps

    async def run(self, endpoints: Callable[[], Mapping[str, Endpoint]], report: Callable[[Report], Awaitable[None]]) -> None:
        """Until cancelled. `report` raises where what happened cannot be kept; it is said again then."""
        while self._budget:
            try:
                await self.look(endpoints(), report)
            except Exception:
                log.exception("the memory of servers was not looked at")
            self._hurry.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_seconds):
                    await self._hurry.wait()

    async def look(self, endpoints: Mapping[str, Endpoint], report: Callable[[Report], Awaitable[None]]) -> None:
        """Measures, and has those sleep that are too many."""
        await asyncio.gather(*(self._measure(it) for it in self._present))
        now, coming = self._clock(), self._waiting[0].bytes if self._waiting else 0
        # One that is to go takes its memory along.
        staying = [it for it in self._present if _stays(it, endpoints.get(it.content.endpoint))]
        standings = [
            Standing(
                it.content.endpoint,
                it.content.deployment,
                it.bytes,
                it.up_since,
                it.called,
                it.busy,
                may_sleep=it.server is not None and may_sleep(endpoints[it.content.endpoint], it.content.deployment),
            )
            for it in staying
        ]
        for it in put_to_sleep(standings, self._budget, coming, now, self._least_awake):
            needed = f", and about {_mib(coming)} more are needed" if coming else ""
            why = (
                f"its {_mib(it.bytes)} of memory are wanted: {self._told()}{needed}. Of all that could sleep it was called longest ago, "
                f"{now - it.called:.0f} s"
            )
            await report(WentIdle(it.endpoint, it.deployment, why, it.bytes))

    async def _measure(self, place: Place) -> None:
        server = place.server
        if server is not None:
            # The calls last: who was called meanwhile does not sleep.
            place.bytes = await server.memory() or place.bytes
            place.is_measured = True
            self._known[place.content.endpoint] = place.bytes
            place.heard(await server.calls(), self._clock())


def _stays(place: Place, endpoint: Endpoint | None) -> bool:
    return endpoint is not None and any(it.number == place.content.deployment for it in wanted(endpoint))


def _mib(number: int) -> str:
    return f"{number / _MIB:.0f} MiB"
