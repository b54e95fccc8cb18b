"""The state after an event. Total: what is unknown, late or of a lost attempt leaves the state as it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from google.protobuf.message import Message

from services.scheduler.domain import labels, policy, pools
from services.scheduler.domain.facts import Fact
from services.scheduler.domain.failures import of_exit
from services.scheduler.domain.state import Agent, Member, Run, State
from services.scheduler.domain.times import when
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1.spec_pb2 import RunSpec

_LARGEST_NUMBER = 1 << 62
_WARNINGS = 100
_OF_AN_ATTEMPT = (
    cluster.LeaseOffered,
    cluster.LeaseAccepted,
    cluster.TaskPhase,
    cluster.TaskPrepared,
    cluster.TaskFailed,
    cluster.TaskStarted,
    cluster.TaskExited,
    cluster.OutputsUploaded,
)


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
        added = {"warnings": (*run.warnings, message.message)[-_WARNINGS:]}
    if added is not None:
        return state.with_run(replace(run, revision=run.revision + 1, **added))
    if run.is_terminal:
        return state
    changed = _report(run, message, at) if isinstance(message, _OF_AN_ATTEMPT) else _fact(run, message, at)
    if changed is run:
        return state
    state = state.with_run(replace(changed, revision=run.revision + 1))
    return _freed(state, run, at) if changed.is_terminal or not changed.members else state


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
    return replace(run, parent_run_id=spec.parent_run_id, display_name=spec.display_name, tags=tags, properties=properties)


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


def _fact(run: Run, message: Any, at: datetime) -> Run:
    """What the scheduler itself has said of a run."""
    match message:
        case job.RunScaling():
            grows = message.nodes_wanted > message.nodes_now
            return replace(run, status=job.RUN_STATUS_PROVISIONING if grows else job.RUN_STATUS_QUEUED, why=message.why)
        case job.RunWarned():
            return replace(run, warnings=(*run.warnings, message.message)[-_WARNINGS:])
        case job.RunCancelRequested():
            return replace(run, status=job.RUN_STATUS_CANCEL_REQUESTED, cancel_requested=True, why=message.reason or "cancel was asked for")
        case job.RunRequeued() if message.lost_epoch == run.epoch:
            return replace(
                _fresh(run),
                status=job.RUN_STATUS_QUEUED,
                why=message.why,
                lost_epoch=run.epoch,
                lost_attempts=run.lost_attempts + run.was_accepted,
            )
        case job.RunCompleted() | job.RunFailed() | job.RunCanceled():
            return _ended(run, message, at)
    if getattr(message, "epoch", -1) != run.epoch or run.cancel_requested:
        return run
    match message:
        case job.RunPreparing():
            return replace(run, status=job.RUN_STATUS_PREPARING, why=f"on {', '.join(message.agent_ids)}")
        case job.GangFormed():
            return replace(run, formed=True, why="starts")
        case job.RunStarted():
            started = when(message.started_at, at)
            return replace(run, status=job.RUN_STATUS_RUNNING, started_at=started, why=f"the script runs on {_names(run)}")
        case job.RunFinalizing():
            return replace(run, status=job.RUN_STATUS_FINALIZING, why="the outputs are copied")
        case job.RunNotResponding() if message.agent_id not in run.silent:
            before = run.status_before_silence if run.silent else run.status
            why = f"{message.agent_id} is silent"
            silent = (*run.silent, message.agent_id)
            return replace(run, status=job.RUN_STATUS_NOT_RESPONDING, silent=silent, status_before_silence=before, why=why)
        case job.RunResponding() if message.agent_id in run.silent:
            silent = tuple(name for name in run.silent if name != message.agent_id)
            still = silent or run.status != job.RUN_STATUS_NOT_RESPONDING
            status = run.status if still else run.status_before_silence
            return replace(run, silent=silent, status=status, why=f"{message.agent_id} is heard again")
    return run


def _ended(run: Run, message: Any, at: datetime) -> Run:
    outputs, ended_at = message.outputs, when(message.ended_at, at)
    run = replace(run, outputs=outputs, ended_at=ended_at, silent=(), formed=False)
    match message:
        case job.RunCompleted():
            return replace(run, status=job.RUN_STATUS_COMPLETED, failure=None, why="")
        case job.RunFailed():
            return replace(run, status=job.RUN_STATUS_FAILED, failure=message.failure, why=message.failure.message)
        case _:
            return replace(run, status=job.RUN_STATUS_CANCELED, failure=None)


def _report(run: Run, message: Any, at: datetime) -> Run:
    """What an agent says of its part, and the offer that made it a part. A report of another attempt or process is void."""
    if isinstance(message, cluster.LeaseOffered):
        return _offered(run, message, at)
    member = run.member(message.agent_id, message.incarnation)
    if member is None or message.epoch != run.epoch:
        return run
    match message:
        case cluster.LeaseAccepted():
            return run.with_member(replace(member, accepted=True))
        case cluster.TaskPhase():
            return (
                run
                if run.cancel_requested or run.silent
                else replace(run, why=f"{message.phase}: {message.detail}" if message.detail else message.phase)
            )
        case cluster.TaskPrepared():
            return run.with_member(replace(member, prepared=True, address=message.address, ports=tuple(message.ports)))
        case cluster.TaskFailed():
            return run if run.failure is not None else replace(run, failure=message.failure)
        case cluster.TaskExited() if message.rank not in member.exited:
            run = run.with_member(replace(member, exited=(*member.exited, message.rank)))
            failure = of_exit(run, message)
            return run if failure is None or run.failure is not None else replace(run, failure=failure)
        case cluster.OutputsUploaded():
            run = run.with_member(replace(member, uploaded=True, outputs=message.outputs))
            if message.HasField("failure") and run.failure is None:
                return replace(run, failure=message.failure)
    return run


def _offered(run: Run, message: Any, at: datetime) -> Run:
    if message.epoch < run.epoch or message.epoch <= run.lost_epoch:
        return run
    if message.epoch > run.epoch:
        run = replace(_fresh(run), epoch=message.epoch)
    if any(member.node_index == message.node_index for member in run.members):
        return run
    member = Member(message.agent_id, message.incarnation, message.node_index, tuple(message.ranks), at)
    return replace(run, members=(*run.members, member), why=f"offered to {message.agent_id}")


def _fresh(run: Run) -> Run:
    """Nothing of an earlier attempt is carried over."""
    return replace(run, members=(), formed=False, silent=(), status_before_silence=0, failure=None, started_at=None)


def _names(run: Run) -> str:
    return ", ".join(member.agent_id for member in run.members)


def _freed(state: State, run: Run, at: datetime) -> State:
    """Agents that the run held are idle from now on."""
    held = {member.agent_id for member in run.members}
    agents = {name: replace(agent, idle_since=at) if name in held else agent for name, agent in state.agents.items()}
    return replace(state, agents=agents) if held else state


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
