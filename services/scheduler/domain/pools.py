"""Pools of nodes: made, changed, removed, and given up where no node of them comes up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.scheduler.domain import providers, shapes, validate
from services.scheduler.domain.facts import Fact, about_pool, about_run, to_agent
from services.scheduler.domain.failures import failure
from services.scheduler.domain.state import Pool, Run, State, World
from services.scheduler.domain.times import seconds, when
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.job.v1 import job_pb2 as job

_IDLE_SECONDS = 120
_MAX_NODES = 10_000


def create(state: State, request: Any, world: World) -> Iterator[Fact]:
    known = state.pools.get(request.name)
    if known is not None:
        if known.submission_id != request.submission_id and not _same(known, request):
            what = f"A compute target {request.name!r} exists with another definition ({known.vm_size}, {known.min_nodes} to {known.max_nodes} nodes)."
            yield _rejected(request, failure("AlreadyExists", what, request.name))
        return
    wrong = _wrong(request)
    size = shapes.on_other_machines(request.vm_size) if _is_elsewhere(request) else shapes.capped(request.vm_size, world.machine)
    if wrong is not None or size is None:
        what = f"vm_size {request.vm_size[:100]!r} is not known; known are: {', '.join(shapes.names())}."
        yield _rejected(request, wrong or failure("UserError", what, "vm_size"))
        return
    shape, note = size
    created = cluster.PoolCreated(
        submission_id=request.submission_id,
        name=request.name,
        vm_size=request.vm_size,
        vm_priority=request.vm_priority or "dedicated",
        min_nodes=request.min_nodes,
        max_nodes=request.max_nodes,
        idle_before_scaledown=_idle(request),
        shape=shape,
        note=note,
        provider=_provider(request),
        strict=request.strict,
    )
    created.created_at.CopyFrom(_stamp(world))
    yield about_pool(created)


def update(state: State, request: Any) -> Iterator[Fact]:
    """Nothing where it is as asked already."""
    pool = state.pools.get(request.name)
    if pool is None:
        there = ", ".join(sorted(state.pools)) or "none"
        wrong: Failure | None = failure(
            "ComputeTargetNotFound", f"There is no compute target {request.name[:100]!r}; there is: {there}.", request.name
        )
    else:
        wrong = unchangeable(pool, request)
    if pool is None or wrong is not None:
        yield about_pool(cluster.PoolRejected(name=request.name, failure=wrong))
        return
    wish = _wish(pool, request)
    if _bounds(wish) != _bounds(pool):
        updated = cluster.PoolUpdated(name=pool.name, min_nodes=wish.min_nodes, max_nodes=wish.max_nodes)
        updated.idle_before_scaledown.CopyFrom(_span(wish.idle_seconds))
        yield about_pool(updated)


def unchangeable(pool: Pool, request: Any) -> Failure | None:
    """Why an UpdatePool cannot be followed; None if it can."""
    if request.HasField("idle_before_scaledown") and (wrong := _wrong_idle(request.idle_before_scaledown)) is not None:
        return wrong
    wish = _wish(pool, request)
    hosts = len(pool.provider.ssh.hosts)
    if providers.kind_of(pool.provider) == providers.SSH and wish.max_nodes > hosts:
        return failure("UserError", f"max_nodes would be {wish.max_nodes}, and {hosts} hosts are listed, one a node.", "max_nodes")
    return _wrong_bounds(wish.min_nodes, wish.max_nodes)


def drain(state: State, request: Any) -> Iterator[Fact]:
    """Nothing where no such agent is there: the caller looks at what is."""
    agent = state.agents.get(request.agent_id)
    if agent is not None and keeper(state, agent.id) is None:
        why = request.why[:1000] or "it was asked to leave"
        yield to_agent(agent.id, cluster.AgentFenced(agent_id=agent.id, incarnation=agent.incarnation, why=why))


def keeper(state: State, agent_id: str) -> Pool | None:
    """The pool that would start the node anew."""
    holders = (pool for pool in state.pools.values() if agent_id in pool.agent_ids)
    return next((pool for pool in holders if providers.kind_of(pool.provider) != providers.STATIC), None)


def fail_waiting(state: State, world: World) -> Iterator[Fact]:
    """Runs that wait for a pool of which no node comes up, or fewer than they need: its owner learns it from them, not from their
    silence."""
    for name, why in world.dead_pools.items():
        for run in _waiting(state, name):
            yield _dead(run, f"No node of {name} has come up: {why}", world)
    for name, (most, why) in world.short_pools.items():
        for run in _waiting(state, name) if name not in world.dead_pools else ():
            if run.need.fewest > most:
                what = f"The run needs {run.need.fewest} nodes, and {name} can have {most} now, for others do not come up: {why}"
                yield _dead(run, what, world)


def _waiting(state: State, name: str) -> list[Run]:
    return [state.runs[run_id] for queue in state.index.waiting.get(name, {}).values() for run_id in queue]


def _dead(run: Run, what: str, world: World) -> Fact:
    failed = job.RunFailed(run_id=run.id, epoch=run.epoch, failure=failure("PoolDead", what, run.spec.compute_target))
    failed.ended_at.CopyFrom(_stamp(world))
    return about_run(failed)


def delete(state: State, request: Any) -> Iterator[Fact]:
    """Nothing where it is in use or not there: the caller looks at what is."""
    if request.name in state.pools and not users(state, request.name):
        yield about_pool(cluster.PoolDeleted(name=request.name))


def users(state: State, name: str) -> list[str]:
    """Ids of the runs that have not ended and are meant for the pool."""
    return sorted(run.id for run in state.live_runs() if run.spec.compute_target == name)


def evolve(state: State, message: Message, at: datetime) -> State:
    """The pools after a fact about one of them."""
    name: str = getattr(message, "name", "")
    known = state.pools.get(name)
    if isinstance(message, cluster.PoolCreated) and known is None:
        return replace(state, pools={**state.pools, name: _created(message, at)})
    if known is None:
        return state
    if isinstance(message, cluster.PoolDeleted):
        return replace(state, pools={key: it for key, it in state.pools.items() if key != name})
    changed = _changed(known, message, at)
    return state if changed is known else replace(state, pools={**state.pools, name: changed})


def _changed(pool: Pool, message: Message, at: datetime) -> Pool:
    match message:
        case cluster.PoolResized():
            agent_ids = tuple(message.agent_ids)
            absent = {name: since for name, since in pool.absent_since.items() if name in agent_ids}
            return replace(pool, agent_ids=agent_ids, resized_at=at, absent_since=absent)
        case cluster.PoolUpdated():
            idle = seconds(message.idle_before_scaledown)
            return replace(pool, min_nodes=message.min_nodes, max_nodes=message.max_nodes, idle_seconds=idle)
    return pool


def present(state: State, agent_id: str) -> State:
    """An agent has registered."""
    pools = {pool.name: replace(pool, absent_since=_but(pool, agent_id)) for pool in state.pools.values() if agent_id in pool.absent_since}
    return replace(state, pools={**state.pools, **pools}) if pools else state


def absent(state: State, agent_id: str, at: datetime) -> State:
    """An agent is lost or was stopped, unless another process of it is there."""
    if agent_id in state.agents:
        return state
    pools = {
        pool.name: replace(pool, absent_since={**pool.absent_since, agent_id: at})
        for pool in state.pools.values()
        if agent_id in pool.agent_ids and agent_id not in pool.absent_since
    }
    return replace(state, pools={**state.pools, **pools}) if pools else state


def _but(pool: Pool, agent_id: str) -> dict[str, datetime]:
    return {name: since for name, since in pool.absent_since.items() if name != agent_id}


def _created(message: Any, at: datetime) -> Pool:
    return Pool(
        name=message.name,
        submission_id=message.submission_id,
        vm_size=message.vm_size,
        vm_priority=message.vm_priority,
        min_nodes=message.min_nodes,
        max_nodes=message.max_nodes,
        idle_seconds=seconds(message.idle_before_scaledown),
        shape=message.shape,
        note=message.note,
        created_at=when(message.created_at, at),
        provider=message.provider,
        strict=message.strict,
    )


def _wrong(request: Any) -> Failure | None:
    if not validate.POOL.match(request.name):
        return failure(
            "UserError",
            f"{request.name[:100]!r} is no name of a compute target: a letter, then letters, digits and -, 2 to 32 in all.",
            "name",
        )
    if request.vm_priority not in ("", "dedicated", "lowpriority"):
        return failure("UserError", f"vm_priority {request.vm_priority[:100]!r} is none of: dedicated, lowpriority.", "vm_priority")
    wrong = _wrong_bounds(request.min_nodes, request.max_nodes) or _wrong_idle(_idle(request))
    if wrong is not None:
        return wrong
    found = providers.fault(request)
    return None if found is None else failure("UserError", found[1], found[0])


def _wrong_bounds(min_nodes: int, max_nodes: int) -> Failure | None:
    if 1 <= max_nodes <= _MAX_NODES and min_nodes <= max_nodes:
        return None
    what = f"0 <= min_nodes <= max_nodes and 1 <= max_nodes <= {_MAX_NODES} must hold; they are {min_nodes} and {max_nodes}."
    return failure("UserError", what, "max_nodes")


def _wrong_idle(span: Any) -> Failure | None:
    if 0 <= seconds(span) <= validate.LONGEST_SECONDS:
        return None
    what = f"idle_before_scaledown must not be negative and at most {validate.LONGEST_SECONDS} s."
    return failure("UserError", what, "idle_before_scaledown")


def _wish(pool: Pool, request: Any) -> Pool:
    return replace(
        pool,
        min_nodes=request.min_nodes if request.HasField("min_nodes") else pool.min_nodes,
        max_nodes=request.max_nodes if request.HasField("max_nodes") else pool.max_nodes,
        idle_seconds=seconds(request.idle_before_scaledown) if request.HasField("idle_before_scaledown") else pool.idle_seconds,
    )


def _bounds(pool: Pool) -> tuple[int, int, float]:
    return pool.min_nodes, pool.max_nodes, pool.idle_seconds


def _same(pool: Pool, request: Any) -> bool:
    asked = (request.vm_size, request.vm_priority or "dedicated", request.min_nodes, request.max_nodes, seconds(_idle(request)))
    known = (pool.vm_size, pool.vm_priority, *_bounds(pool))
    return (asked, _provider(request), request.strict) == (known, pool.provider, pool.strict)


def _provider(request: Any) -> Any:
    if request.provider.WhichOneof("kind") is not None:
        return request.provider
    return cluster.Provider(local=cluster.LocalNodes())


def _is_elsewhere(request: Any) -> bool:
    """Its nodes are other machines than this one."""
    return providers.kind_of(request.provider) in (providers.STATIC, providers.SSH)


def _idle(request: Any) -> Duration:
    return request.idle_before_scaledown if request.HasField("idle_before_scaledown") else Duration(seconds=_IDLE_SECONDS)


def _span(length: float) -> Duration:
    whole = int(length)
    return Duration(seconds=whole, nanos=round((length - whole) * 1e9))


def _rejected(request: Any, why: Failure) -> Fact:
    return about_pool(cluster.PoolRejected(submission_id=request.submission_id, name=request.name, failure=why))


def _stamp(world: World) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(world.now)
    return stamp
