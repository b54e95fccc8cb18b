"""What each run that goes on waiting is told: why, behind whom, and what would unblock it. Nothing that it was told already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

from services.scheduler.domain.facts import Fact
from services.scheduler.domain.need import Need
from services.scheduler.domain.placing import words
from services.scheduler.domain.placing.growing import Nodes, is_local
from services.scheduler.domain.placing.needs import Free, Node, carries, together
from services.scheduler.domain.providers import STATIC, kind_of
from services.scheduler.domain.state import Pool, Run, State, World

# Whoever goes first changes often in a busy pool. So few are told anew each time for whom what is free is kept; the others that it is not
# their turn.
_NEAR = 5


class Teller:
    """Of one decision."""

    def __init__(self, facts: list[Fact], state: State, world: World, nodes: Nodes, running: Mapping[str, list[Run]]) -> None:
        """`facts` grows by what is told; `running`: by compute target."""
        self._facts = facts
        self._state = state
        self._world = world
        self._nodes = nodes
        self._running = running
        self._begun: list[tuple[Run, list[str]]] = []

    def begins(self, run: Run, nodes: list[str]) -> None:
        """By this decision: those that wait are told as it will be."""
        self._begun.append((run, nodes))

    def tell(self, run: Run, why: str, place: int, now: int = 0, wanted: int = 0) -> None:
        """`place`: in its pool's line, from 1; 0 where it was not counted. `now`, `wanted`: nodes of the pool."""
        self._facts += words.waits(run, why, now, wanted, place)

    def cannot_start(self, run: Run, pool: Pool, need: Need, place: int, coming: Free, giving: Iterable[Run] = ()) -> None:
        """The first one that cannot. `giving`: runs that are about to end, so that it can."""
        # As it stands after what was decided just now: or the next look at it would say something else.
        pool = self._nodes.pools[pool.name]
        have = len(pool.agent_ids)
        if self._broken(run, pool, place):
            return
        if names := [it.id for it in giving]:
            why = words.given_back(need, names)
        elif labels := self._labels(pool, need, coming.nodes):
            why = labels
        else:
            is_static = kind_of(pool.provider) == STATIC
            room = self._nodes.room(pool)
            held = words.holders(self._holding(pool))
            why = words.full(pool, need, room, self._world.node_slots, held, is_local=is_local(pool), is_static=is_static)
        self.tell(run, why, place, have, have)

    def comes_later(self, run: Run, pool: Pool, need: Need, place: int, up: Free, coming: Free, first: Run) -> None:
        """Another one, that cannot start either. `first`: for whom is kept what he needs."""
        pool = self._nodes.pools[pool.name]
        have = len(pool.agent_ids)
        if self._broken(run, pool, place):
            return
        if labels := self._labels(pool, need, coming.nodes):
            self.tell(run, labels, place, have, have)
        elif 0 < place <= _NEAR and len(together(need, up.fitting(need), need.fewest)) >= need.fewest:
            self.tell(run, words.kept(pool.name, first.id, first.need), place, have, have)
        elif words.is_news_of_turn(run, place):
            self.tell(run, words.turn(pool.name, place, first.id, need), place, have, have)

    def _broken(self, run: Run, pool: Pool, place: int) -> bool:
        broken = self._nodes.broken(pool)
        if broken:
            why = self._world.broken_why.get(broken[0], f"see logs/{broken[0]}.log")
            self.tell(run, f"waits for {broken[0]} of {pool.name}, whose process does not come up: {why}", place, 0, 1)
        return bool(broken)

    def _labels(self, pool: Pool, need: Need, coming: Iterable[Node]) -> str:
        """Where too few nodes carry what it asks for, those included that could come; "" where they are enough."""
        if not need.labels:
            return ""
        there = [agent for name in pool.agent_ids if (agent := self._state.agents.get(name)) is not None]
        found = sum(carries(it.labels, need.labels) for it in there)
        if found + sum(it.labels is None or carries(it.labels, need.labels) for it in coming) >= need.fewest:
            return ""
        return words.labels(pool.name, need, found, is_static=kind_of(pool.provider) == STATIC)

    def _holding(self, pool: Pool) -> list[tuple[str, list[str]]]:
        """(run, its nodes) of the first of those who have nodes that it could get, in the order in which they came."""
        names = {it.name for it in self._nodes.pools.values() if is_local(it)} if is_local(pool) else {pool.name}
        # They are many, and few of them are named.
        there = [run for name in names for run in islice(self._running.get(name, ()), words.NAMED + 1)]
        held = [(run, [it.agent_id for it in run.members]) for run in there]
        held += [(run, nodes) for run, nodes in self._begun if run.spec.compute_target in names]
        return [(run.id, nodes) for run, nodes in sorted(held, key=lambda it: it[0].order)]
