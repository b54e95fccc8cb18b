"""Nodes that join a pool by hand: `trainyard agent join`. They come when they register, and leave when they are stopped or stay away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.scheduler.domain.facts import Fact, about_agent, about_pool, to_agent
from services.scheduler.domain.providers import AGENT_ID, SLOT, STATIC, kind_of
from services.scheduler.domain.state import Pool, State, World
from trainyard.cluster.v1 import cluster_pb2 as cluster


def on_registered(state: State, message: Any) -> Iterator[Fact]:
    """`state` knows the agent already. One that cannot be taken is told why, and ends."""
    if not message.pool:
        return
    why = _refusal(state, message)
    if why:
        yield about_agent(cluster.AgentLost(agent_id=message.agent_id, incarnation=message.incarnation, why=why))
        yield to_agent(message.agent_id, cluster.AgentFenced(agent_id=message.agent_id, incarnation=message.incarnation, why=why))
        return
    for other in _holders(state, message.agent_id):
        if other.name != message.pool:
            yield _without(other, {message.agent_id}, f"{message.agent_id} joined {message.pool}")
    pool = state.pools[message.pool]
    if message.agent_id not in pool.agent_ids:
        stays = _with_room(state, pool)
        yield about_pool(cluster.PoolResized(name=pool.name, agent_ids=[*stays, message.agent_id], why=f"{message.agent_id} joined"))


def on_drained(state: State, message: Any) -> Iterator[Fact]:
    """`state` is without the agent, unless another process of it has begun since."""
    if message.agent_id not in state.agents:
        for pool in _holders(state, message.agent_id):
            yield _without(pool, {message.agent_id}, f"{message.agent_id} was stopped: {message.why}"[:1000])


def leave(state: State, world: World) -> Iterator[Fact]:
    """Who has stayed away for longer than the pool keeps idle nodes, and who is beyond its maximum and runs nothing."""
    busy = state.busy_agents()
    for pool in state.pools.values():
        if kind_of(pool.provider) != STATIC:
            continue
        late = {name for name, since in pool.absent_since.items() if (world.now - since).total_seconds() >= pool.idle_seconds}
        late &= set(pool.agent_ids)
        if late:
            yield _without(pool, late, f"{', '.join(sorted(late))} stayed away for {pool.idle_seconds:g} s"[:1000])
            continue
        surplus = len(pool.agent_ids) - pool.max_nodes
        idle = [name for name in reversed(pool.agent_ids) if name not in busy]
        if surplus > 0 and idle:
            yield _without(pool, set(idle[:surplus]), f"its maximum is {pool.max_nodes}")


def _refusal(state: State, message: Any) -> str:
    """Why the agent cannot join, "" if it can."""
    agent_id, pool = message.agent_id, state.pools.get(message.pool)
    if pool is None:
        there = ", ".join(sorted(name for name, it in state.pools.items() if kind_of(it.provider) == STATIC)) or "none"
        return f"there is no compute target {message.pool[:100]!r} to join; those that agents may join: {there}"
    if kind_of(pool.provider) != STATIC:
        return f"{pool.name} starts its nodes itself (provider {kind_of(pool.provider)}); agents join pools with the provider static"
    if not AGENT_ID.match(agent_id):
        return f"{agent_id[:100]!r} is no name of a node: letters, digits, '.', '_' and '-', at most 128, a letter or digit first"
    owner, _, position = agent_id.rpartition("-")
    owning = state.pools.get(owner)
    if SLOT.match(agent_id) or (owning is not None and position.isdigit() and kind_of(owning.provider) != STATIC):
        return f"the name {agent_id} belongs to a node that a pool starts itself; join with another --id"
    if agent_id not in pool.agent_ids and len(_with_room(state, pool)) >= pool.max_nodes:
        return f"{pool.name} has its maximum of {pool.max_nodes} nodes: {', '.join(pool.agent_ids[:10])}"
    return ""


def _with_room(state: State, pool: Pool) -> list[str]:
    """The pool's nodes; if it is full, without one that is away and runs nothing: a node that is there is worth more."""
    nodes = list(pool.agent_ids)
    if len(nodes) < pool.max_nodes:
        return nodes
    busy = state.busy_agents()
    away = next((name for name in nodes if name not in state.agents and name not in busy), None)
    return [name for name in nodes if name != away]


def _holders(state: State, agent_id: str) -> Iterator[Pool]:
    return (pool for pool in state.pools.values() if kind_of(pool.provider) == STATIC and agent_id in pool.agent_ids)


def _without(pool: Pool, names: set[str], why: str) -> Fact:
    stays = [name for name in pool.agent_ids if name not in names]
    return about_pool(cluster.PoolResized(name=pool.name, agent_ids=stays, why=why))
