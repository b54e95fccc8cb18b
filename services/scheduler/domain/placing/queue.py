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
Key = tuple[float, int, int]


def in_order(state: State, pool: str, shares: Shares, now: datetime) -> Iterator[Run]:
    """The runs that wait for a pool, first to go first. What is placed meanwhile, and counted in `shares`, counts at once."""
    lanes = [iter(queue) for queue in state.index.waiting.get(pool, {}).values()]
    heads = [(key(state, run, shares, now), run, ids) for ids in lanes for run in _next(state, ids)]
    balanced = state.policy.fair_share != FAIR_SHARE_UNSPECIFIED
    heapq.heapify(heads)
    while heads:
        _, run, ids = heapq.heappop(heads)
        yield run
        for following in _next(state, ids):
            heapq.heappush(heads, (key(state, following, shares, now), following, ids))
        if balanced:
            # Whoever has got something now stands further back.
            heads = [(key(state, it, shares, now), it, rest) for _, it, rest in heads]
            heapq.heapify(heads)


def _next(state: State, ids: Iterator[str]) -> list[Run]:
    return [state.runs[run_id] for run_id in itertools.islice(ids, 1)]


def key(state: State, run: Run, shares: Shares, now: datetime) -> Key:
    """Lower goes first. Balanced shares come before priority, which counts within a share then."""
    used = 0.0
    if state.policy.fair_share != FAIR_SHARE_UNSPECIFIED:
        share = share_of(state, run)
        used = shares.nodes(run.spec.compute_target, share) / state.policy.weights.get(share, 1.0)
    return (round(used, 9), -aged_priority(state, run, now), run.order)


def aged_priority(state: State, run: Run, now: datetime) -> int:
    """One more for each span that it has waited, so that nothing waits for ever behind what comes later."""
    span = seconds(state.policy.aging) or _AGING_SECONDS
    return run.spec.priority + int(max(0.0, (now - run.queued_at).total_seconds()) // span)
