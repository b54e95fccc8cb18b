"""Who goes first in a pool's queue, by the policy in force."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from datetime import datetime

from services.scheduler.domain.placing.needs import Shares, share_of
from services.scheduler.domain.state import Run, State
from services.scheduler.domain.times import seconds
from trainyard.cluster.v1.cluster_pb2 import FAIR_SHARE_UNSPECIFIED

_AGING_SECONDS = 60.0
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

    def key(self, run: Run) -> Key:
        """Lower goes first. Balanced shares come before priority, which counts within a share then."""
        return (self._used(run) if self.is_balanced else 0.0, -self._aged(run, self._now), run.order, run.id)

    def key_of_running(self, run: Run) -> Key:
        """As it would be, were the run to wait again: without its own nodes, and no older than it had become when it got them."""
        begun = min(it.offered_at for it in run.members)
        used = 0.0
        if self.is_balanced:
            for member in run.members:
                self._shares.add(run, member.resources, member.resources, -1)
            used = self._used(run)
            for member in run.members:
                self._shares.add(run, member.resources, member.resources)
        return (used, -self._aged(run, begun), run.order, run.id)

    def _used(self, run: Run) -> float:
        share = share_of(self._state, run)
        return round(self._shares.nodes(run.spec.compute_target, share) / self._weights.get(share, 1.0), 9)

    def _aged(self, run: Run, now: datetime) -> int:
        """Its priority, and one more for each span that it has waited: nothing waits for ever behind what comes later."""
        waited = (now - (run.waits_since or run.queued_at)).total_seconds()
        return run.spec.priority + int(max(0.0, waited) // self._span)


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
