"""The most that an experiment, or a user, may hold at once."""

from __future__ import annotations

from services.scheduler.domain.need import Need, Size, size_of
from services.scheduler.domain.placing import words
from services.scheduler.domain.placing.needs import Shares, capacity_of, share_of
from services.scheduler.domain.state import Pool, Run, State

# Sums of fractions of cores are compared.
_NOTHING = 1e-9


class Quotas:
    def __init__(self, state: State, shares: Shares) -> None:
        self._state = state
        self._shares = shares
        self._quotas = {share: size_of(quota) for share, quota in state.policy.quotas.items()}
        self._largest: dict[str, Size] = {}

    def over(self, run: Run, pool: Pool, need: Need) -> str:
        """Why the run may not start now; "" where it may."""
        if not self._quotas or (quota := self._quotas.get(share := share_of(self._state, run))) is None:
            return ""
        if self.most(run, pool, need, need.fewest) == need.fewest:
            return ""
        if _count(self._each(pool, need), quota, Size(0, 0, 0), need.fewest) < need.fewest:
            return words.beyond_quota(share, quota)
        return words.over_quota(share, quota)

    def most(self, run: Run, pool: Pool, need: Need, nodes: int) -> int:
        """Of so many nodes as many as the run may get."""
        if not self._quotas or (quota := self._quotas.get(share := share_of(self._state, run))) is None:
            return nodes
        return _count(self._each(pool, need), quota, size_of(self._shares.held(share)), nodes)

    def _each(self, pool: Pool, need: Need) -> Size:
        """Of one node. Which one a run will get is not known yet: it is counted as the largest."""
        if not need.whole:
            return Size(need.cpus, need.memory_bytes, need.gpus)
        if pool.name not in self._largest:
            agents = (self._state.agents.get(name) for name in pool.agent_ids)
            sizes = [capacity_of(agent, pool) for agent in agents if agent is not None] or [pool.size]
            self._largest[pool.name] = Size(*map(max, zip(*sizes, strict=True)))
        return self._largest[pool.name]


def _count(each: Size, quota: Size, held: Size, nodes: int) -> int:
    bounds = (int((most - now + _NOTHING) // one) for one, now, most in zip(each, held, quota, strict=True) if most and one)
    return max(0, min(nodes, *bounds, nodes))
