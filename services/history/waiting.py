"""Read your writes: a call waits until all that lay in the log when it came has been applied."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from services.chassis.grpc_server import Code, refuse
from services.chassis.records import LogReader, Place
from services.history.applying import TOPICS, Applied

# At the most; a caller who has less time gets an answer within it.
_SECONDS = 10.0


class Freshness:
    """Asks the log for its ends once for all calls that came meanwhile."""

    def __init__(self, reader: LogReader, applied: Applied) -> None:
        self._reader = reader
        self._applied = applied
        self._next: asyncio.Task[Mapping[Place, int]] | None = None
        self._asking = asyncio.Lock()

    async def ends(self) -> Mapping[Place, int]:
        """The ends of all partitions, asked for after the call came. Raises Unavailable."""
        if self._next is None:
            self._next = asyncio.create_task(self._ask())
        return await asyncio.shield(self._next)

    async def _ask(self) -> Mapping[Place, int]:
        async with self._asking:
            # Who comes from here on came too late for this question.
            self._next = None
            return await asyncio.to_thread(self._reader.ends, TOPICS)

    async def caught_up(self, remaining: float | None) -> None:
        """Raises Unavailable, and Refused with UNAVAILABLE where history lags behind for longer than the caller has."""
        ends = await self.ends()
        seconds = _SECONDS if remaining is None else max(0.0, min(_SECONDS, remaining - 0.5))
        if not await self._applied.until(lambda: not self.behind(ends), seconds):
            behind = self.behind(ends)
            place, count = max(behind.items(), key=lambda item: item[1])
            what = (
                f"History is {sum(behind.values())} records behind what you may have written, {count} of them in "
                f"{place.topic}/{place.partition}. Ask again in a moment, or name a moment in the past by as_of."
            )
            raise refuse(Code.UNAVAILABLE, "HistoryBehind", what, place.topic)

    def behind(self, ends: Mapping[Place, int]) -> dict[Place, int]:
        positions = self._applied.positions
        return {place: end - positions.get(place, 0) for place, end in ends.items() if end > positions.get(place, 0)}
