"""What is kept for the first run of a queue that cannot start yet, so that those behind it fill gaps and never delay it."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cached_property

from services.scheduler.domain.need import Need
from services.scheduler.domain.placing.needs import Free, node_of, number
from services.scheduler.domain.state import Pool, Run, State
from services.scheduler.domain.times import seconds

_NEVER = datetime.max.replace(tzinfo=UTC)


class Reservation:
    """All nodes that fit the run now, and as many more as it lacks of those that become free first. Where nobody has said how long
    the runs on them take, these are drained: always the same ones, or a stream of small runs would keep all of them in use for ever."""

    def __init__(self, state: State, pool: Pool, need: Need, up: Free, running: Iterable[Run], now: datetime) -> None:
        self._state = state
        self._pool = pool
        self._need = need
        self._up = up
        self._running = running
        self._now = now
        self._free = frozenset(node.name for node in up.fitting(need))
        self._lacking = max(0, need.fewest - len(self._free))
        self._others: Free | None = None

    @cached_property
    def _becoming_free(self) -> list[tuple[datetime, str]]:
        chosen: list[tuple[datetime, str]] = []
        if not self._lacking:
            return chosen
        ends = _ends(self._running, self._need)
        # Before all those from which somebody goes already, perhaps for this very run: given to others they would have gone in vain.
        cleared = {it.agent_id for run in self._running if run.is_ending for it in run.members}
        free = self._free
        order = [(name not in cleared, end, number(name)) for name, end in ends.items() if name not in free]
        # The first few are wanted of many.
        heapq.heapify(order)
        while order and len(chosen) < self._lacking:
            _, end, (_, name) = heapq.heappop(order)
            if self._would_fit(name):
                chosen.append((end, name))
        return chosen

    def _would_fit(self, name: str) -> bool:
        """Once it is empty."""
        agent = self._state.agents.get(name)
        node = agent and node_of(self._state, agent, self._pool, gone=self._state.index.holds.get(name, ()))
        return bool(node and node.fits(self._need))

    @cached_property
    def at(self) -> datetime | None:
        """When all of it is free at the latest. None: nobody has said how long the runs on it take, so any moment may be the one."""
        chosen = self._becoming_free
        latest = max(end for end, _ in chosen) if chosen and len(chosen) == self._lacking else _NEVER
        return None if latest == _NEVER else latest

    @cached_property
    def names(self) -> frozenset[str]:
        return self._free.union(name for _, name in self._becoming_free)

    def open_to(self, run: Run) -> Free:
        """What a later run may have: all, if it ends before the reservation begins, else the other nodes."""
        limit = seconds(run.spec.max_duration)
        if limit and self.at is not None and self._now + timedelta(seconds=limit) <= self.at:
            return self._up
        if self._others is None:
            self._others = Free(node for node in self._up.nodes if node.name not in self.names)
        return self._others

    def given(self) -> None:
        """Something of it, or beside it, was given to a later run."""
        self._up.given()
        if self._others is not None:
            self._others.given()


def _ends(running: Iterable[Run], need: Need) -> dict[str, datetime]:
    """When each node that is in use can be had: a whole one after the last of its runs, a part of one perhaps after the first.
    For ever away where one of its runs may go on for ever, or may end at any moment."""
    ends: dict[str, datetime] = {}
    for run in running:
        end = latest_end(run) or _NEVER
        if end is _NEVER:
            ends.update(dict.fromkeys([it.agent_id for it in run.members], _NEVER))
            continue
        for member in run.members:
            known = ends.get(member.agent_id)
            if known is None:
                ends[member.agent_id] = end
            elif need.whole or known is _NEVER:
                ends[member.agent_id] = max(known, end)
            else:
                ends[member.agent_id] = min(known, end)
    return ends


def latest_end(run: Run) -> datetime | None:
    if not (limit := seconds(run.spec.max_duration)):
        return None
    begun = run.started_at or max((it.offered_at for it in run.members), default=None)
    return None if begun is None else begun + timedelta(seconds=limit)
