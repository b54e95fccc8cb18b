"""Who goes first in a pool's queue, by the policy in force."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from datetime import datetime

from services.scheduler.domain.placing.needs import Shares, share_of
from services.scheduler.domain.state import Run, State
from services.scheduler.domain.times import seconds
from trainyard.cluster.v1.cluster_pb2 import FAIR_SHARE_UNSPECIFIED, FAIR_SHARE_USER

_AGING_SECONDS = 60.0
# A share that has waited so many spans for its next turn gets it, however much it holds.
_SPANS_TO_A_TURN = 60
Key = tuple[float, int, int, str]


class Order:
    """The policy's, at one moment."""

    def __init__(self, state: State, shares: Shares, now: datetime) -> None:
        self.is_balanced = state.policy.fair_share != FAIR_SHARE_UNSPECIFIED
        self._state = state
        self._shares = shares
        self._now = now
        self._span = seconds(state.policy.aging) or _AGING_SECONDS
        self._weights = dict(state.policy.weights)
        self._turns: dict[tuple[str, str], list[tuple[datetime, str]]] | None = None
        self._oldest: dict[str, dict[str, datetime]] = {}

    def key(self, run: Run) -> Key:
        """Lower goes first. Balanced shares come before priority, which counts within a share then."""
        return (self._of_share(run) if self.is_balanced else 0.0, -self._aged(run, self._now), run.order, run.id)

    def key_of_running(self, run: Run) -> Key:
        """As it would be, were the run to wait again: without its own nodes, and no older than it had become when it got them."""
        begun = _begun(run)
        of_share = 0.0
        if self.is_balanced:
            for member in run.members:
                self._shares.add(run, member.resources, member.resources, -1)
            of_share = self._of_share(run, again_since=self._now - (begun - _waits_since(run)))
            for member in run.members:
                self._shares.add(run, member.resources, member.resources)
        return (of_share, -self._aged(run, begun), run.order, run.id)

    def begins(self, run: Run) -> None:
        """It gets its nodes by this decision: its share has had a turn."""
        if self._turns is not None:
            self._turn(self._turns, run, self._now)

    def _of_share(self, run: Run, again_since: datetime | None = None) -> float:
        """What the share holds; less than nothing where it has waited too long since its last turn, and the longer the less. One turn,
        not the rest of its runs too: or whoever asks for very much would be first of all for good."""
        pool, share = run.spec.compute_target, share_of(self._state, run)
        since = self._waits(pool).get(share, self._now)
        if again_since is not None:
            since = min(since, again_since)
        others = (at for at, run_id in self._had(pool, share) if again_since is None or run_id != run.id)
        waited = (self._now - max([since, *others])).total_seconds()
        if waited >= _SPANS_TO_A_TURN * self._span:
            return -waited
        return round(self._shares.nodes(pool, share) / self._weights.get(share, 1.0), 9)

    def _waits(self, pool: str) -> dict[str, datetime]:
        """Share -> since when the first of its runs waits for the pool."""
        found = self._oldest.get(pool)
        if found is None:
            found = self._oldest[pool] = {}
            for lane, queue in self._state.index.waiting.get(pool, {}).items():
                share = lane.user if self._state.policy.fair_share == FAIR_SHARE_USER else lane.experiment
                since = _waits_since(self._state.runs[next(iter(queue))])
                found[share] = min(since, found.get(share, since))
        return found

    def _had(self, pool: str, share: str) -> list[tuple[datetime, str]]:
        """The last two turns of the share, of the runs that still have their nodes."""
        if self._turns is None:
            self._turns = {}
            for run in self._state.attempts():
                self._turn(self._turns, run, _begun(run))
        return self._turns.get((pool, share), [])

    def _turn(self, turns: dict[tuple[str, str], list[tuple[datetime, str]]], run: Run, at: datetime) -> None:
        had = turns.setdefault((run.spec.compute_target, share_of(self._state, run)), [])
        had[:] = sorted([*had, (at, run.id)])[-2:]

    def _aged(self, run: Run, now: datetime) -> int:
        """Its priority, and one more for each span that it has waited: nothing waits for ever behind what comes later."""
        waited = (now - _waits_since(run)).total_seconds()
        return run.spec.priority + int(max(0.0, waited) // self._span)


def _waits_since(run: Run) -> datetime:
    return run.waits_since or run.queued_at


def _begun(run: Run) -> datetime:
    """Of a run that has members. A member that came in later is no new turn."""
    return min(it.offered_at for it in run.members)


class Line:
    """The runs that wait for a pool, first to go first. What is placed meanwhile, and counted in the shares, counts at once."""

    def __init__(self, state: State, pool: str, order: Order) -> None:
        self._state = state
        self._order = order
        self._heads: list[tuple[Key, Run, Iterator[str]]] = []
        self._last: Iterator[str] | None = None
        for queue in state.index.waiting.get(pool, {}).values():
            self._push(iter(queue))

    def __iter__(self) -> Iterator[Run]:
        while True:
            if self._last is not None:
                self._push(self._last)
                self._last = None
            if not self._heads:
                return
            key, run, ids = heapq.heappop(self._heads)
            # Whoever has got something meanwhile stands further back; nobody comes nearer.
            if self._order.is_balanced and (now := self._order.key(run)) > key:
                heapq.heappush(self._heads, (now, run, ids))
                continue
            self._last = ids
            yield run

    def drop_lane(self) -> None:
        """Nobody comes any more of those that go after the last one in all cases."""
        self._last = None

    def _push(self, ids: Iterator[str]) -> None:
        for run_id in itertools.islice(ids, 1):
            run = self._state.runs[run_id]
            heapq.heappush(self._heads, (self._order.key(run), run, ids))
