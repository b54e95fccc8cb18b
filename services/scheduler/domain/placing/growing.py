"""The nodes that a pool has, may start, or may take over from another pool of this machine; and when they leave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from services.scheduler.domain import elastic
from services.scheduler.domain.facts import Fact, about_pool
from services.scheduler.domain.need import Device, Need
from services.scheduler.domain.placing.needs import Node, Where, node_of, number, taken_devices, unknown_node
from services.scheduler.domain.providers import LOCAL, SSH, STATIC, kind_of, node_names
from services.scheduler.domain.state import Agent, Pool, Run, State, World
from trainyard import _gang
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.cluster.v1.resources_pb2 import Resources


class Nodes:
    """Which node is whose, while a decision is thought through."""

    def __init__(self, state: State, world: World) -> None:
        self._state = state
        self._world = world
        self.pools = dict(state.pools)
        self._why: dict[str, str] = {}
        self.shunned = world.silent_agents | world.declined_agents
        self.given: set[str] = set()
        """Nodes of which a run got something, or was promised it, in this decision."""
        slots = {f"agent-{it}" for it in range(world.node_slots)}
        self._let_go(slots)
        taken = {name for pool in self.pools.values() for name in slots.intersection(pool.agent_ids)}
        self._slots = sorted(slots - taken, key=number)
        self._devices = taken_devices(state)

    def up(self, pool: Pool) -> list[Node]:
        """With something to give, right now."""
        state, found = self._state, []
        agents, all_used = state.agents, state.index.used
        shunned = self.shunned | surplus(state, pool)
        for name in pool.agent_ids:
            # Most are held as a whole by one run, most of the time.
            used = all_used.get(name)
            if used is not None and used.whole:
                continue
            agent = agents.get(name)
            if agent is not None and name not in shunned and (node := node_of(state, agent, pool, taken=self._devices)) is not None:
                found.append(node)
        return found

    def give(self, node: Node, need: Need) -> tuple[Resources, list[int]]:
        """(What the run gets of it, which devices.)"""
        self.given.add(node.name)
        return node.give(need)

    def starting(self, pool: Pool) -> list[Node]:
        agents, holds, broken = self._state.agents, self._state.index.holds, self._world.broken_agents
        away = [name for name in self.pools[pool.name].agent_ids if name not in agents and name not in holds and name not in broken]
        return self._unknown(pool, sorted(away, key=number), Where.STARTING)

    def fresh(self, pool: Pool) -> list[Node]:
        """That could be started for it."""
        if is_local(pool):
            names = self._slots
        else:
            known = set(self.pools[pool.name].agent_ids)
            names = [name for name in node_names(pool.name, pool.provider, pool.max_nodes, 0) if name not in known]
        return self._unknown(pool, names[: self.room(pool)], Where.FRESH)

    def _unknown(self, pool: Pool, names: list[str], where: Where) -> list[Node]:
        """Labelled like those of the pool that are up, but for machines of which each is another; any label may be theirs. This
        machine's nodes have all the same devices."""
        like = self._like(pool)
        labels = like.labels if like is not None and kind_of(pool.provider) != SSH else None
        devices = [Device(gpu.index, gpu.uuid) for gpu in like.gpus] if like is not None and is_local(pool) else []
        return [unknown_node(name, pool, where, labels, devices, self._devices) for name in names]

    def _like(self, pool: Pool) -> Agent | None:
        pools = [pool, *(it for it in self._state.pools.values() if is_local(pool) and is_local(it))]
        agents = (self._state.agents.get(name) for it in pools for name in it.agent_ids)
        return next((it for it in agents if it is not None), None)

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
        return found

    def spare(self, giver: Pool) -> int:
        """Busy nodes that it could do without, beside those that are idle."""
        return max(0, len(giver.agent_ids) - giver.min_nodes - sum(self._is_idle(name) for name in giver.agent_ids))

    def room(self, pool: Pool) -> int:
        """How many more nodes its maximum allows."""
        return max(0, pool.max_nodes - len(self.pools[pool.name].agent_ids))

    def take(self, pool: Pool, node: Node, why: str) -> None:
        """The node is the pool's from now on."""
        if node.where is Where.ELSEWHERE:
            giver = self.pools[node.pool]
            self.pools[giver.name] = replace(giver, agent_ids=tuple(it for it in giver.agent_ids if it != node.name))
            self._why[giver.name] = f"{node.name} was idle and goes to {pool.name}"
            why = f"{why}, and {giver.name} does not need {node.name}"
        self._slots = [name for name in self._slots if name != node.name]
        now = self.pools[pool.name]
        self.pools[pool.name] = replace(now, agent_ids=(*now.agent_ids, node.name))
        self._why[pool.name] = why

    def up_to_minimum(self) -> None:
        for name in list(self.pools):
            while (pool := self.pools[name]).min_nodes > len(pool.agent_ids):
                fresh = self.fresh(pool)
                node = next(iter(fresh or self.elsewhere(pool)), None)
                if node is None:
                    break
                self.take(pool, node, f"its minimum is {pool.min_nodes}")
                self.given.add(node.name)

    def broken(self, pool: Pool) -> list[str]:
        if not self._world.broken_agents:
            return []
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
        return name in self._state.agents and not self._state.is_busy(name) and name not in self.shunned and name not in self.given

    def _is_wanted(self, pool: Pool) -> bool:
        return pool.name in self._state.index.waiting


def is_local(pool: Pool) -> bool:
    return kind_of(pool.provider) == LOCAL


def is_lent(pool: Pool) -> bool:
    """Whatever it has goes back to a pool that needs it."""
    return pool.vm_priority == "lowpriority"


def gives_way(pool: Pool, to: Pool) -> bool:
    return is_local(pool) and is_lent(pool) and not is_lent(to)


def surplus(state: State, pool: Pool) -> frozenset[str]:
    """Idle nodes beyond the pool's maximum, which was lowered: they leave, whoever waits."""
    over = len(pool.agent_ids) - pool.max_nodes
    if over <= 0:
        return frozenset()
    return frozenset(sorted((name for name in pool.agent_ids if not state.is_busy(name)), key=number, reverse=True)[:over])


def lacks_nodes(run: Run) -> bool:
    """An elastic gang that goes on with fewer than it began with."""
    staying = sum(not it.is_leaving and not it.uploaded for it in run.members)
    return elastic.goes_on(run) and staying < _gang.node_count(run.spec.distribution)


def shrink(state: State, world: World) -> Iterator[Fact]:
    """Nodes that have been idle for longer than their pool keeps them, down to its minimum; the highest number leaves first. While
    somebody waits for the pool only those leave that are beyond its maximum."""
    widening = {run.spec.compute_target for run in map(state.runs.__getitem__, state.index.attempts) if lacks_nodes(run)}
    for pool in state.pools.values():
        if kind_of(pool.provider) == STATIC:
            continue
        over = surplus(state, pool)
        spare = len(pool.agent_ids) - pool.min_nodes
        leaves, why = set(over), f"its maximum is {pool.max_nodes}"
        if not over and spare > 0 and pool.name not in state.index.waiting and pool.name not in widening:
            idle = (name for name in sorted(pool.agent_ids, key=number, reverse=True) if not state.is_busy(name))
            leaves, why = set([name for name in idle if _overdue(state, pool, name, world)][:spare]), f"idle for {pool.idle_seconds:g} s"
        if leaves:
            stays = [name for name in pool.agent_ids if name not in leaves]
            yield about_pool(cluster.PoolResized(name=pool.name, agent_ids=stays, why=why))


def _overdue(state: State, pool: Pool, name: str, world: World) -> bool:
    agent = state.agents.get(name)
    since = agent.idle_since if agent is not None else (pool.resized_at or pool.created_at)
    return (world.now - since).total_seconds() >= pool.idle_seconds
