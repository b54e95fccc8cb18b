"""What keeps the nodes of pools from coming up, as their providers tell it, and for how long: counted in pulses, never by a clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

    def snapshot(self) -> Callable[[], None]:
        """Returns what puts back what pulses change, as it is now."""
        waited, last = self._waited, self._last

        def restore() -> None:
            self._waited, self._last = waited, last

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
        waiting = set(state.index.waiting)
        self._waited = {
            name: self._waited.get(name, 0) + 1
            for name in waiting & state.pools.keys()
            if kind_of((pool := state.pools[name]).provider) != STATIC and pool.agent_ids and not state.agents.keys() & set(pool.agent_ids)
        }
        wanted = {name for pool in state.pools.values() for name in pool.agent_ids}
        self._last = {name: why for name, why in self._last.items() if name in wanted and name not in state.agents}

    def dead(self, state: State) -> Mapping[str, str]:
        """Pool -> why, of those that runs have waited for so long."""
        if not self._waited:
            return _NOTHING
        return {
            name: self._why(state.pools[name])
            for name, waited in self._waited.items()
            if waited >= self._dead_after and name in state.pools
        }

    def _why(self, pool: Pool) -> str:
        reasons = dict.fromkeys([*filter(None, [self._of_provider.get(keeper_of(pool), "")]), *self._reasons(pool)])
        shown = "; ".join([*reasons][:5])
        return shown or f"{', '.join(pool.agent_ids[:5])} began and never registered"

    def _reasons(self, pool: Pool) -> list[str]:
        return [f"{name}: {self._last[name]}" for name in pool.agent_ids if name in self._last]


def keeper_of(pool: Pool) -> str:
    """Who keeps its nodes: one for all pools of this machine's own nodes, and one for each other pool."""
    kind = kind_of(pool.provider)
    return "" if kind == "local" else pool.name
