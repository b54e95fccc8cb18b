"""A pool as the API shows it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from google.protobuf.duration_pb2 import Duration

from services.scheduler.domain import Member, Pool, Run, State
from services.scheduler.domain.providers import LOCAL, kind_of
from services.scheduler.pool_health import PoolHealth
from trainyard.cluster.v1 import cluster_pb2
from trainyard.cluster.v1.resources_pb2 import Resources

Holding = list[tuple[Run, Member]]


def pool_to_wire(pool: Pool, state: State, health: PoolHealth) -> Any:
    held: dict[str, Holding] = defaultdict(list)
    for run in state.live_runs():
        for member in run.members:
            held[member.agent_id].append((run, member))
    broken = health.broken()
    nodes = [_node(name, state, held[name], is_broken=name in broken, away=name in pool.absent_since) for name in pool.agent_ids]
    # Nodes that were let go and have not ended yet. This machine's own are shared: which pool one has left is not known.
    leaving = [] if kind_of(pool.provider) == LOCAL else _leaving(pool, state)
    wire = cluster_pb2.Pool(
        name=pool.name,
        vm_size=pool.vm_size,
        vm_priority=pool.vm_priority,
        min_nodes=pool.min_nodes,
        max_nodes=pool.max_nodes,
        idle_before_scaledown=Duration(seconds=int(pool.idle_seconds)),
        shape=pool.shape,
        note=pool.note,
        nodes=[*nodes, *leaving],
        provider=pool.provider,
        strict=pool.strict,
        errors=health.errors(pool),
    )
    wire.created_at.FromDatetime(pool.created_at)
    wire.resized_at.FromDatetime(pool.resized_at or pool.created_at)
    return wire


def _node(name: str, state: State, held: Holding, *, is_broken: bool, away: bool) -> Any:
    agent = state.agents.get(name)
    run_ids = [run.id for run, _ in held]
    if agent is None:
        node_state = "unusable" if is_broken or away else "preparing"
    elif any(run.preempted for run, _ in held):
        node_state = "preempted"
    else:
        node_state = "running" if held else "idle"
    used = Resources(
        cpus=sum(member.resources.cpus for _, member in held),
        memory_bytes=sum(member.resources.memory_bytes for _, member in held),
        gpus=sum(member.resources.gpus for _, member in held),
    )
    node = cluster_pb2.PoolNode(agent_id=name, state=node_state, run_id=run_ids[0] if run_ids else "", run_ids=run_ids, used=used)
    if agent is not None:
        node.resources.CopyFrom(agent.resources)
        node.labels.update(agent.labels)
    return node


def _leaving(pool: Pool, state: State) -> list[Any]:
    def came_from_it(agent_id: str, joined: str) -> bool:
        owner, _, position = agent_id.rpartition("-")
        return joined == pool.name or (not joined and owner == pool.name and position.isdigit())

    names = (agent.id for agent in state.agents.values() if agent.id not in pool.agent_ids and came_from_it(agent.id, agent.pool))
    return [cluster_pb2.PoolNode(agent_id=name, state="leaving") for name in sorted(names)]
