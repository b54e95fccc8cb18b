"""The state after an event. Total: what is unknown, late or of a lost attempt leaves the state as it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from google.protobuf.message import Message

from services.scheduler.domain import changing, labels, life, policy, pools
from services.scheduler.domain.facts import Fact
from services.scheduler.domain.state import Agent, Run, State
from services.scheduler.domain.times import when
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1.spec_pb2 import RunSpec

_LARGEST_NUMBER = 1 << 62


def fold(state: State, facts: Iterable[Fact], at: datetime, cause: str = "") -> State:
    for fact in facts:
        state = evolve(state, fact.message, at, cause)
    return state


def evolve(state: State, message: Message, at: datetime, cause: str = "") -> State:
    """`at` is the event's time, `cause` the id of what it followed from."""
    match message:
        case job.RunQueued() | job.RunOpened() | job.RunRejected():
            return _submitted(state, message, at, cause)
        case cluster.PoolCreated() | cluster.PoolResized() | cluster.PoolUpdated() | cluster.PoolDeleted():
            return pools.evolve(state, message, at)
        case cluster.PolicyChanged():
            return policy.evolve(state, message)
        case cluster.AgentRegistered():
            return _registered(state, message, at)
        case cluster.AgentLost() | cluster.AgentDrained():
            return pools.absent(_without_agent(state, message), message.agent_id, at)
    run = state.runs.get(getattr(message, "run_id", ""))
    if run is None:
        return state
    added = labels.evolve(run, message)
    if added is None and run.is_terminal and isinstance(message, job.RunWarned):
        added = {"warnings": (*run.warnings, message.message)[-life.WARNINGS :]}
    if added is not None:
        return state.with_run(changing.replace(run, revision=run.revision + 1, **added))
    if run.is_terminal:
        return state
    changed = life.evolve(run, message, at)
    if changed is run:
        return state
    held = () if changed.is_terminal else changed.members
    state = state.with_run(changing.replace(changed, revision=run.revision + 1))
    if len(held) == len(run.members):
        return state
    return state.with_idle({it.agent_id for it in run.members} - {it.agent_id for it in held}, at)


def _submitted(state: State, message: Any, at: datetime, cause: str) -> State:
    if message.run_id in state.runs:
        return state
    order = state.submissions + 1
    if isinstance(message, job.RunRejected):
        run = Run(message.run_id, message.experiment, 0, order, cause, job.RunQueued().spec, at)
        run = replace(run, status=job.RUN_STATUS_REJECTED, failure=message.failure, why=message.failure.message, ended_at=at, revision=1)
        return replace(state.with_run(run), submissions=order)
    run = _opened(message, order, at, cause) if isinstance(message, job.RunOpened) else _queued(message, order, at, cause)
    # A forged number must leave room for the next one.
    number = run.number if run.number < _LARGEST_NUMBER else state.numbers.get(run.experiment, 0)
    return replace(state.with_run(run), submissions=order, numbers={**state.numbers, run.experiment: number})


def _queued(message: Any, order: int, at: datetime, cause: str) -> Run:
    spec, queued_at = message.spec, when(message.queued_at, at)
    run = Run(message.run_id, message.experiment, message.number, order, cause, spec, queued_at, why=message.why, revision=1)
    tags, properties = dict(spec.tags), dict(spec.properties)
    return replace(
        run,
        parent_run_id=spec.parent_run_id,
        display_name=spec.display_name,
        tags=tags,
        properties=properties,
        checkpoint=message.checkpoint,
    )


def _opened(message: Any, order: int, at: datetime, cause: str) -> Run:
    opened_at = when(message.opened_at, at)
    spec = RunSpec(source=message.source if message.HasField("source") else None, parent_run_id=message.parent_run_id)
    run = Run(message.run_id, message.experiment, message.number, order, cause, spec, opened_at, why="in its client's hands", revision=1)
    return replace(
        run,
        opened=True,
        status=job.RUN_STATUS_RUNNING,
        started_at=opened_at,
        parent_run_id=message.parent_run_id,
        display_name=message.display_name,
        tags=dict(message.tags),
        properties=dict(message.properties),
    )


def _registered(state: State, message: Any, at: datetime) -> State:
    agent = Agent(
        message.agent_id,
        message.incarnation,
        message.address,
        message.resources,
        at,
        pool=message.pool,
        labels=dict(message.labels),
        gpus=tuple(message.gpus),
    )
    return pools.present(replace(state, agents={**state.agents, agent.id: agent}), agent.id)


def _without_agent(state: State, message: Any) -> State:
    agent = state.agents.get(message.agent_id)
    if agent is None or agent.incarnation != message.incarnation:
        return state
    return replace(state, agents={name: it for name, it in state.agents.items() if name != message.agent_id})
