"""Which waiting run gets which node, and how pools grow and shrink. First come, first served; one run a node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from services.scheduler.domain.facts import Fact, about_pool, about_run, to_agent
from services.scheduler.domain.providers import LOCAL, STATIC, kind_of, node_names
from services.scheduler.domain.state import Agent, Pool, Run, State, World
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job


def place(state: State, world: World) -> list[Fact]:
    """Offers, growth, and reasons for runs that go on waiting. Says nothing that was said already."""
    plan = _Plan(state, world)
    facts: list[Fact] = []
    for run in sorted((it for it in state.live_runs() if it.waits_for_a_node), key=lambda it: it.order):
        facts += plan.for_run(run)
    for pool in state.pools.values():
        plan.up_to_minimum(pool.name)
    return plan.resizes() + facts


class _Plan:
    """Scratch paper of one decision."""

    def __init__(self, state: State, world: World) -> None:
        self._state = state
        self._world = world
        self._pools = dict(state.pools)
        self._why: dict[str, str] = {}
        busy = state.busy_agents()
        self._busy = set(busy)
        slots = {f"agent-{number}" for number in range(world.node_slots)}
        self._let_go(slots)
        self._own_names = {pool.name: self._names_of(pool) for pool in self._pools.values() if not is_local(pool)}
        self._wanted = {run.spec.compute_target for run in state.live_runs() if run.waits_for_a_node}
        self._free_slots = sorted(
            slots - {name for pool in state.pools.values() for name in pool.agent_ids},
            key=_number,
        )
        self._starting: dict[str, int] = {
            pool.name: sum(self._is_away(name) and name not in world.broken_agents for name in pool.agent_ids)
            for pool in self._pools.values()
        }

    def _is_away(self, name: str) -> bool:
        return name not in self._state.agents and name not in self._busy

    def _let_go(self, slots: set[str]) -> None:
        """Names that are no slot of this machine, or none any more: a run that waits for one would wait for ever."""
        for pool in [it for it in self._pools.values() if is_local(it)]:
            stays = tuple(name for name in pool.agent_ids if name in slots or name in self._busy)
            if stays != pool.agent_ids:
                self._pools[pool.name] = replace(pool, agent_ids=stays)
                self._why[pool.name] = f"this machine may run {self._world.node_slots} nodes now"

    def _names_of(self, pool: Pool) -> list[str]:
        """That its provider may start and has not."""
        names = node_names(pool.name, pool.provider, pool.max_nodes, self._world.node_slots)
        return [name for name in names if name not in pool.agent_ids]

    def _names_for(self, pool: Pool) -> list[str]:
        return self._free_slots if is_local(pool) else self._own_names[pool.name]

    def for_run(self, run: Run) -> list[Fact]:
        pool = self._pools.get(run.spec.compute_target)
        if pool is None:
            return _waits(run, f"the compute target {run.spec.compute_target} is gone", 0, 0)
        agent = self._idle(pool)
        if agent is not None:
            self._busy.add(agent.id)
            return [_offer(run, agent)]
        have = len(pool.agent_ids)
        if self._starting[pool.name] > 0:
            self._starting[pool.name] -= 1
            if run.status == job.RUN_STATUS_PROVISIONING:
                return []
            return _waits(run, f"waits for a node of {pool.name} that is starting", have - 1, have)
        broken = sorted((name for name in self._world.broken_agents.intersection(pool.agent_ids) if self._is_away(name)), key=_number)
        grows = have < pool.max_nodes and (self._names_for(pool) or self._idle_elsewhere(pool) is not None)
        if broken and not grows:
            why = self._world.broken_why.get(broken[0], f"see logs/{broken[0]}.log")
            return _waits(run, f"waits for {broken[0]} of {pool.name}, whose process does not come up: {why}", 0, 1)
        if kind_of(pool.provider) == STATIC and have < pool.max_nodes:
            how = f"trainyard agent join --pool {pool.name}"
            return _waits(run, f"waits for a free node: {have or 'none'} joined {pool.name}, none is free; another one: {how}", have, have)
        if have >= pool.max_nodes:
            return _waits(run, f"waits for a free node: all {have} of {pool.name} are busy and {pool.max_nodes} is its maximum", have, have)
        if not self._names_for(pool):
            moved = self._idle_elsewhere(pool)
            if moved is not None:
                self._busy.add(moved.id)
                self._move(moved, pool.name, f"run {run.id} waits")
                return [_offer(run, moved)]
            return _waits(run, f"waits for a free node: this machine may run {self._world.node_slots} and all are in use", have, have)
        self._grow(pool.name, 1, f"run {run.id} waits")
        return _waits(run, f"{pool.name} grows from {have} to {have + 1} of at most {pool.max_nodes} nodes", have, have + 1)

    def up_to_minimum(self, name: str) -> None:
        why = f"its minimum is {self._pools[name].min_nodes}"
        while len(self._pools[name].agent_ids) < self._pools[name].min_nodes:
            if self._names_for(self._pools[name]):
                self._grow(name, 1, why)
            elif (moved := self._idle_elsewhere(self._pools[name])) is not None:
                self._move(moved, name, why)
            else:
                return

    def resizes(self) -> list[Fact]:
        return [
            about_pool(cluster.PoolResized(name=name, agent_ids=self._pools[name].agent_ids, why=why)) for name, why in self._why.items()
        ]

    def _grow(self, name: str, by: int, why: str) -> None:
        free = self._names_for(self._pools[name])
        taken = free[:by]
        del free[:by]
        self._pools[name] = replace(self._pools[name], agent_ids=(*self._pools[name].agent_ids, *taken))
        self._why[name] = why

    def _move(self, agent: Agent, name: str, why: str) -> None:
        """A node of this machine is a node of this machine, whichever pool holds it: its process stays up."""
        giver = next(pool for pool in self._pools.values() if agent.id in pool.agent_ids)
        self._pools[giver.name] = replace(giver, agent_ids=tuple(it for it in giver.agent_ids if it != agent.id))
        self._pools[name] = replace(self._pools[name], agent_ids=(*self._pools[name].agent_ids, agent.id))
        self._why[giver.name] = f"{agent.id} was idle and goes to {name}"
        self._why[name] = f"{why}, and {giver.name} does not need {agent.id}"

    def _idle_elsewhere(self, pool: Pool) -> Agent | None:
        """An idle node that another pool keeps beyond its minimum, and that no run of that pool waits for."""
        for giver in self._pools.values():
            if not (is_local(giver) and is_local(pool)):
                continue
            spare = len(giver.agent_ids) - giver.min_nodes
            if giver.name == pool.name or spare <= 0 or giver.name in self._wanted:
                continue
            agent = self._idle(giver)
            if agent is not None:
                return agent
        return None

    def _idle(self, pool: Pool) -> Agent | None:
        """The lowest number first, so that the highest become idle for long and leave."""
        for name in sorted(pool.agent_ids, key=_number):
            agent = self._state.agents.get(name)
            if agent is not None and name not in self._busy | self._world.silent_agents | self._world.declined_agents:
                return agent
        return None


def is_local(pool: Pool) -> bool:
    return kind_of(pool.provider) == LOCAL


def _offer(run: Run, agent: Agent) -> Fact:
    offer = cluster.LeaseOffered(
        run_id=run.id,
        epoch=run.epoch + 1,
        agent_id=agent.id,
        incarnation=agent.incarnation,
        node_index=0,
        ranks=[0],
        world_size=1,
        experiment=run.experiment,
        spec=run.spec,
        tags=run.tags,
        properties=run.properties,
    )
    return to_agent(agent.id, offer)


def _waits(run: Run, why: str, now: int, wanted: int) -> list[Fact]:
    status = job.RUN_STATUS_PROVISIONING if wanted > now else job.RUN_STATUS_QUEUED
    if (run.why, run.status) == (why, status):
        return []
    return [about_run(job.RunScaling(run_id=run.id, why=why, nodes_now=now, nodes_wanted=wanted))]


def shrink(state: State, world: World) -> Iterator[Fact]:
    """Nodes that have been idle for longer than their pool keeps them, down to its minimum; the highest number leaves first."""
    busy = state.busy_agents()
    waiting = {run.spec.compute_target for run in state.live_runs() if run.waits_for_a_node}
    for pool in state.pools.values():
        spare = len(pool.agent_ids) - pool.min_nodes
        if spare <= 0 or pool.name in waiting or kind_of(pool.provider) == STATIC:
            continue
        leaves = [
            name for name in sorted(pool.agent_ids, key=_number, reverse=True) if name not in busy and _overdue(state, pool, name, world)
        ]
        leaves = leaves[:spare]
        if leaves:
            stays = [name for name in pool.agent_ids if name not in leaves]
            why = f"idle for {pool.idle_seconds:g} s"
            yield about_pool(cluster.PoolResized(name=pool.name, agent_ids=stays, why=why))


def _overdue(state: State, pool: Pool, name: str, world: World) -> bool:
    agent = state.agents.get(name)
    since = agent.idle_since if agent is not None else (pool.resized_at or pool.created_at)
    return (world.now - since).total_seconds() >= pool.idle_seconds


def _number(agent_id: str) -> tuple[int, str]:
    tail = agent_id.rpartition("-")[2]
    return (int(tail) if tail.isdigit() else 0, agent_id)
