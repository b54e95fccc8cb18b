"""What keeps the nodes of pools from coming up, as their providers tell it, and for how long: counted in pulses, never by a clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from services.scheduler.domain import Pool, State
from services.scheduler.domain.providers import STATIC, kind_of

_NOTHING: Mapping[str, str] = MappingProxyType({})
_MOST_ERRORS = 20


class PoolHealth:
    """Kept in memory: a new scheduler gives every pool a fresh start."""

    def __init__(self, dead_after: int) -> None:
        """`dead_after` is a count of pulses."""
        self._dead_after = max(1, dead_after)
        self._of_nodes: dict[str, Mapping[str, str]] = {}
        self._of_provider: dict[str, str] = {}
        self._last: dict[str, str] = {}
        self._waited: dict[str, int] = {}
        self._away: dict[str, int] = {}

    def snapshot(self) -> Callable[[], None]:
        """Returns what puts back what pulses change, as it is now."""
        waited, away, last = self._waited, self._away, self._last

        def restore() -> None:
            self._waited, self._away, self._last = waited, away, last

        return restore

    def told(self, keeper: str, nodes: Mapping[str, str], provider: str = "") -> None:
        """By who keeps the nodes of one provider: agent id -> why it does not come up, and what is wrong with the provider itself."""
        self._of_nodes[keeper] = dict(nodes)
        self._of_provider[keeper] = provider
        # Between two tries a node is not broken; the reason stands until one of them comes up.
        self._last.update(nodes)

    def forget(self, keeper: str) -> None:
        self._of_nodes.pop(keeper, None)
        self._of_provider.pop(keeper, None)

    def broken(self) -> Mapping[str, str]:
        """Agent id -> why."""
        return {name: why for nodes in self._of_nodes.values() for name, why in nodes.items()}

    def errors(self, pool: Pool) -> list[str]:
        """In words, of the provider first."""
        broken, trouble = self.broken(), self._of_provider.get(keeper_of(pool), "")
        nodes = [f"{name}: {broken[name]}" for name in pool.agent_ids if name in broken]
        return [*filter(None, [trouble]), *nodes][:_MOST_ERRORS]

    def pulse(self, state: State) -> None:
        """One pulse was heard."""
        self._waited = {
            pool.name: self._waited.get(pool.name, 0) + 1
            for pool in _waited_for(state)
            if pool.agent_ids and not state.agents.keys() & set(pool.agent_ids)
        }
        self._away = {
            name: self._away.get(name, 0) + 1 for pool in _waited_for(state) for name in pool.agent_ids if name not in state.agents
        }
        wanted = {name for pool in state.pools.values() for name in pool.agent_ids}
        self._last = {name: why for name, why in self._last.items() if name in wanted and name not in state.agents}

    def dead(self, state: State) -> Mapping[str, str]:
        """Pool -> why, of those that runs have waited for so long."""
        if not self._waited:
            return _NOTHING
        return {
            name: self._why(state.pools[name], state.pools[name].agent_ids)
            for name, waited in self._waited.items()
            if waited >= self._dead_after and name in state.pools
        }

    def short(self, state: State) -> Mapping[str, tuple[int, str]]:
        """Pool -> (how many nodes it can have at most, why no more), of those with nodes that runs have waited for so long."""
        gone = {name for name, waited in self._away.items() if waited >= self._dead_after and name not in state.agents}
        if not gone:
            return {}
        pools = ((pool, [name for name in pool.agent_ids if name in gone]) for pool in _waited_for(state))
        return {pool.name: (max(0, pool.max_nodes - len(names)), self._why(pool, names)) for pool, names in pools if names}

    def _why(self, pool: Pool, names: Sequence[str]) -> str:
        """Why these of its nodes do not come up."""
        reasons = [f"{name}: {self._last[name]}" for name in names if name in self._last]
        shown = dict.fromkeys([*filter(None, [self._of_provider.get(keeper_of(pool), "")]), *reasons])
        return "; ".join([*shown][:5]) or f"{', '.join(names[:5])} began and never registered"


def _waited_for(state: State) -> list[Pool]:
    """Pools that some run waits for, and whose nodes a provider starts."""
    pools = (state.pools[name] for name in state.index.waiting if name in state.pools)
    return [pool for pool in pools if kind_of(pool.provider) != STATIC]


def keeper_of(pool: Pool) -> str:
    """Who keeps its nodes: one for all pools of this machine's own nodes, and one for each other pool."""
    kind = kind_of(pool.provider)
    return "" if kind == "local" else pool.name
