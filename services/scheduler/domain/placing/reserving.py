"""What is kept for the first run of a queue that cannot start yet, so that those behind it fill gaps and never delay it."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cached_property

from services.scheduler.domain.placing.needs import Free, Need, number
from services.scheduler.domain.state import Pool, Run, State
from services.scheduler.domain.times import seconds


class Reservation:
    """All nodes that fit the run now, and as many more as it lacks of those that become free first."""

    def __init__(self, state: State, pool: Pool, need: Need, up: Free, now: datetime) -> None:
        self._state = state
        self._pool = pool
        self._up = up
        self._now = now
        self._free = frozenset(node.name for node in up.fitting(need))
        self._lacking = need.fewest - len(self._free)
        self._others: Free | None = None

    @cached_property
    def _becoming_free(self) -> list[tuple[datetime, tuple[int, str], str]]:
        ends = _latest_ends(self._state, self._pool)
        busy = sorted((end, number(name), name) for name, end in ends.items() if end is not None and name not in self._free)
        return busy[: max(0, self._lacking)]

    @cached_property
    def at(self) -> datetime | None:
        """When all of it is free at the latest. None: nobody has said how long the runs on it take, so any moment may be the one."""
        chosen = self._becoming_free
        return chosen[-1][0] if chosen and len(chosen) == self._lacking else None

    @cached_property
    def names(self) -> frozenset[str]:
        return self._free.union(name for _, _, name in self._becoming_free)

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


def _latest_ends(state: State, pool: Pool) -> dict[str, datetime | None]:
    """Of each node that is in use; None where one of its runs may go on for ever."""
    ends: dict[str, datetime | None] = {}
    for run_id in state.index.attempts:
        run = state.runs[run_id]
        if run.spec.compute_target == pool.name:
            end = latest_end(run)
            for member in run.members:
                known = ends.get(member.agent_id, end)
                ends[member.agent_id] = None if end is None or known is None else max(known, end)
    return ends


def latest_end(run: Run) -> datetime | None:
    limit = seconds(run.spec.max_duration)
    begun = run.started_at or max((it.offered_at for it in run.members), default=None)
    return begun + timedelta(seconds=limit) if limit and begun is not None else None
