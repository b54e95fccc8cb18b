"""The nodes that a pool has, may start, or may take over from another pool of this machine; and when they leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from services.scheduler.domain.facts import Fact, about_pool
from services.scheduler.domain.placing.needs import Node, Where, node_of, number, taken_devices, unknown_node
from services.scheduler.domain.providers import LOCAL, STATIC, kind_of, node_names
from services.scheduler.domain.state import Pool, State, World
from trainyard.cluster.v1 import cluster_pb2 as cluster


class Nodes:
    """Which node is whose, while a decision is thought through."""

    def __init__(self, state: State, world: World) -> None:
        self._state = state
        self._world = world
        self.pools = dict(state.pools)
        self._why: dict[str, str] = {}
        self._shunned = world.silent_agents | world.declined_agents
        slots = {f"agent-{it}" for it in range(world.node_slots)}
        self._let_go(slots)
        taken = {name for pool in self.pools.values() for name in pool.agent_ids}
        self._slots = sorted(slots - taken, key=number)
        self._devices = taken_devices(state)
        self._lent: set[str] = set()
        """Idle nodes of other pools that a run was promised in this decision."""

    def up(self, pool: Pool) -> list[Node]:
        """With something to give, right now."""
        state, found = self._state, []
        agents, holds, shunned = state.agents, state.index.holds, self._shunned
        for name in pool.agent_ids:
            # Most are held as a whole by one run, most of the time.
            held = holds.get(name)
            if held is not None and len(held) == 1 and next(iter(held.values())).whole:
                continue
            agent = agents.get(name)
            if agent is not None and name not in shunned and (node := node_of(state, agent, pool, taken=self._devices)) is not None:
                found.append(node)
        return found

    def starting(self, pool: Pool) -> list[Node]:
        labels = self._labels(pool)
        away = [name for name in pool.agent_ids if self._is_away(name) and name not in self._world.broken_agents]
        return [unknown_node(name, pool, Where.STARTING, labels) for name in sorted(away, key=number)]

    def fresh(self, pool: Pool) -> list[Node]:
        """That could be started for it."""
        if is_local(pool):
            names = self._slots
        else:
            names = [name for name in node_names(pool.name, pool.provider, pool.max_nodes, 0) if name not in pool.agent_ids]
        labels = self._labels(pool)
        return [unknown_node(name, pool, Where.FRESH, labels) for name in names[: self.room(pool)]]

    def elsewhere(self, pool: Pool) -> list[Node]:
        """Idle nodes of this machine that other pools keep beyond their minimum, and that no run of theirs waits for. A node of this
        machine is a node of this machine, whichever pool holds it: its process stays up."""
        if not is_local(pool):
            return []
        found: list[Node] = []
        for giver in self.pools.values():
            spare = len(giver.agent_ids) - giver.min_nodes
            if giver.name == pool.name or not is_local(giver) or spare <= 0 or (self._is_wanted(giver) and not gives_way(giver, pool)):
                continue
            idle = [name for name in sorted(giver.agent_ids, key=number) if self._is_idle(name)]
            for name in idle[:spare]:
                node = node_of(self._state, self._state.agents[name], pool, Where.ELSEWHERE, self._devices)
                if node is not None:
                    found.append(replace(node, pool=giver.name))
        return found[: self.room(pool)]

    def room(self, pool: Pool) -> int:
        """How many more nodes its maximum allows."""
        return max(0, pool.max_nodes - len(self.pools[pool.name].agent_ids))

    def take(self, pool: Pool, node: Node, why: str) -> None:
        """The node is the pool's from now on."""
        if node.where is Where.ELSEWHERE:
            giver = self.pools[node.pool]
            self.pools[giver.name] = replace(giver, agent_ids=tuple(it for it in giver.agent_ids if it != node.name))
            self._why[giver.name] = f"{node.name} was idle and goes to {pool.name}"
            self._lent.add(node.name)
            why = f"{why}, and {giver.name} does not need {node.name}"
        self._slots = [name for name in self._slots if name != node.name]
        now = self.pools[pool.name]
        self.pools[pool.name] = replace(now, agent_ids=(*now.agent_ids, node.name))
        self._why[pool.name] = why

    def up_to_minimum(self) -> None:
        for name in list(self.pools):
            while (pool := self.pools[name]).min_nodes > len(pool.agent_ids):
                node = next(iter([*self.fresh(pool), *self.elsewhere(pool)]), None)
                if node is None:
                    break
                self.take(pool, node, f"its minimum is {pool.min_nodes}")

    def broken(self, pool: Pool) -> list[str]:
        return sorted((name for name in self._world.broken_agents.intersection(pool.agent_ids) if self._is_away(name)), key=number)

    def resizes(self) -> list[Fact]:
        return [
            about_pool(cluster.PoolResized(name=name, agent_ids=self.pools[name].agent_ids, why=why)) for name, why in self._why.items()
        ]

    def _let_go(self, slots: set[str]) -> None:
        """Names that are no slot of this machine, or none any more: a run that waits for one would wait for ever."""
        for pool in [it for it in self.pools.values() if is_local(it)]:
            stays = tuple(name for name in pool.agent_ids if name in slots or self._state.is_busy(name))
            if stays != pool.agent_ids:
                self.pools[pool.name] = replace(pool, agent_ids=stays)
                self._why[pool.name] = f"this machine may run {self._world.node_slots} nodes now"

    def _is_away(self, name: str) -> bool:
        return name not in self._state.agents and not self._state.is_busy(name)

    def _is_idle(self, name: str) -> bool:
        return name in self._state.agents and not self._state.is_busy(name) and name not in self._shunned | self._lent

    def _is_wanted(self, pool: Pool) -> bool:
        return pool.name in self._state.index.waiting

    def _labels(self, pool: Pool) -> Mapping[str, str] | None:
        """Of a node that is not up: as those that are; None, any, where none is."""
        known = [self._state.agents[name].labels for name in pool.agent_ids if name in self._state.agents]
        return known[0] if known else None


def is_local(pool: Pool) -> bool:
    return kind_of(pool.provider) == LOCAL


def gives_way(pool: Pool, to: Pool) -> bool:
    """Its nodes are lent, and go back to a pool that needs them."""
    return pool.vm_priority == "lowpriority" and to.vm_priority != "lowpriority"


def shrink(state: State, world: World) -> Iterator[Fact]:
    """Nodes that have been idle for longer than their pool keeps them, down to its minimum; the highest number leaves first."""
    for pool in state.pools.values():
        spare = len(pool.agent_ids) - pool.min_nodes
        if spare <= 0 or pool.name in state.index.waiting or kind_of(pool.provider) == STATIC:
            continue
        leaves = [
            name
            for name in sorted(pool.agent_ids, key=number, reverse=True)
            if not state.is_busy(name) and _overdue(state, pool, name, world)
        ][:spare]
        if leaves:
            stays = [name for name in pool.agent_ids if name not in leaves]
            why = f"idle for {pool.idle_seconds:g} s"
            yield about_pool(cluster.PoolResized(name=pool.name, agent_ids=stays, why=why))


def _overdue(state: State, pool: Pool, name: str, world: World) -> bool:
    agent = state.agents.get(name)
    since = agent.idle_since if agent is not None else (pool.resized_at or pool.created_at)
    return (world.now - since).total_seconds() >= pool.idle_seconds
