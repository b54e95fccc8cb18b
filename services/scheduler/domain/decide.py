"""What follows from an input. Never raises for bad input: it answers with a fact that says why not, or with nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.message import Message

from services.scheduler.domain import joined, labels, opened, policy, pools, validate
from services.scheduler.domain.evolve import evolve, fold
from services.scheduler.domain.facts import Fact, about_agent, about_run, to_agent
from services.scheduler.domain.failures import failure
from services.scheduler.domain.holding import Unheld
from services.scheduler.domain.opened import stamp as _stamp
from services.scheduler.domain.place import place, shrink
from services.scheduler.domain.state import Member, Run, State, World
from trainyard._artifacts import together
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import ArtifactSet, Failure
from trainyard.job.v1 import job_pb2 as job


@dataclass(frozen=True)
class Tick:
    """Time has passed, in pulses. What heartbeats say meanwhile: who fell silent, who is heard again, who is given up."""

    silent: tuple[str, ...] = ()
    heard: tuple[str, ...] = ()
    given_up: tuple[str, ...] = ()
    overdue: tuple[tuple[str, int], ...] = ()
    """(run id, epoch) of offers that somebody has not taken in time."""


Input = Message | Tick | Unheld
LABELS = (job.TagRun, job.AddRunProperties, job.AddRunFiles)
# What a script can do to its agent's process.
_MEMORY = " Perhaps the script exhausts the node's memory."
_OF_POOLS = (cluster.CreatePool, cluster.UpdatePool, cluster.DeletePool, cluster.DrainAgent, cluster.SetPolicy)
REQUESTS = (job.SubmitRun, job.CancelRun, job.OpenRun, job.CloseRun, *LABELS, *_OF_POOLS)
_WAITING = (job.RUN_STATUS_QUEUED, job.RUN_STATUS_PROVISIONING)
_REPORTS = (
    cluster.LeaseAccepted,
    cluster.TaskPrepared,
    cluster.TaskStarted,
    cluster.TaskExited,
    cluster.TaskFailed,
    cluster.OutputsUploaded,
)

ANSWERED = (*REQUESTS, *_REPORTS, cluster.AgentRegistered, cluster.AgentDrained, cluster.LeaseDeclined)
"""Inputs that may lead to facts."""


def decide(state: State, message: Input, world: World) -> list[Fact]:
    """The direct answer, what it means for children, and the placements that have become possible by it."""
    if isinstance(message, cluster.LeaseDeclined):
        # Asked again at once it would decline again at once.
        world = replace(world, declined_agents=world.declined_agents | {message.agent_id})
    if isinstance(message, Unheld):
        answer = list(_unheld(state, message, world))
    elif not isinstance(message, Tick):
        after = evolve(state, message, world.now)
        answer = list(_answer(state, after, message, world))
        state = after
    else:
        answer = list(_tick(state, message, world))
    state = fold(state, answer, world.now)
    ends = list(opened.end_children(state, answer, lambda it, request: _cancel(it, request, world), world))
    return answer + ends + place(fold(state, ends, world.now), world)


def _answer(before: State, state: State, message: Any, world: World) -> Iterable[Fact]:
    match message:
        case job.SubmitRun():
            return _submit(state, message, world)
        case job.CancelRun():
            return _cancel(state, message, world)
        case job.OpenRun():
            return opened.open_run(state, message, world)
        case job.CloseRun():
            return opened.close(state, message, world)
        case job.TagRun() | job.AddRunProperties() | job.AddRunFiles():
            return _labelled(state.runs.get(message.run_id), message)
        case cluster.CreatePool():
            return pools.create(state, message, world)
        case cluster.UpdatePool():
            return pools.update(state, message)
        case cluster.DeletePool():
            return pools.delete(state, message)
        case cluster.DrainAgent():
            return pools.drain(state, message)
        case cluster.SetPolicy():
            return policy.change(state, message)
        case cluster.AgentRegistered():
            return [*_registered(before, state, message, world), *joined.on_registered(state, message)]
        case cluster.AgentDrained():
            drained = (message.agent_id, message.incarnation)
            why = f"{drained[0]} was stopped: {message.why}"
            lost = _lose_attempts(state, lambda it: (it.agent_id, it.incarnation) == drained, why, world)
            return [*lost, *joined.on_drained(state, message)]
        case cluster.LeaseDeclined():
            return _declined(state, message, world)
        case _ if isinstance(message, _REPORTS):
            return _reported(state.runs.get(message.run_id), message, world)
    return ()


# -- requests


def _submit(state: State, request: Any, world: World) -> Iterator[Fact]:
    run_id = request.submission_id
    if run_id in state.runs:
        return
    wrong = (
        validate.submission(request)
        or _unknown_target(state, request.spec.compute_target)
        or opened.no_parent(state, request.spec.parent_run_id)
    )
    if wrong is not None:
        yield about_run(job.RunRejected(run_id=run_id, experiment=request.experiment[:128], failure=wrong))
        return
    queued = job.RunQueued(
        run_id=run_id,
        experiment=request.experiment,
        number=state.numbers.get(request.experiment, 0) + 1,
        spec=request.spec,
        why="waits for its turn",
        queued_at=_stamp(world),
    )
    yield about_run(queued)
    pool = state.pools[request.spec.compute_target]
    if request.spec.use_gpu and not pool.shape.gpus:
        yield about_run(job.RunWarned(run_id=run_id, message=f"use_gpu was asked for, but {pool.name} has no GPU: the run uses CPUs"))


def _unknown_target(state: State, name: str) -> Failure | None:
    if name in state.pools:
        return None
    there = ", ".join(sorted(state.pools)) or "none"
    what = f"There is no compute target {name[:100]!r}; there is: {there}. Make one with ComputeTarget.create."
    return failure("ComputeTargetNotFound", what, name)


def _cancel(state: State, request: Any, world: World) -> Iterator[Fact]:
    run = state.runs.get(request.run_id)
    if run is None or run.is_terminal or run.cancel_requested:
        return
    yield about_run(job.RunCancelRequested(run_id=run.id, reason=request.reason[:3000]))
    if not run.members:
        yield _canceled(run, ArtifactSet(), world)
        return
    for member in run.members:
        why = request.reason[:3000] or "the run was canceled"
        yield to_agent(member.agent_id, _revoked(run, member.agent_id, why, save_outputs=True))


def _labelled(run: Run | None, request: Any) -> Iterable[Fact]:
    return () if run is None or run.status == job.RUN_STATUS_REJECTED else labels.answer(run, request)


# -- agents


def _registered(before: State, state: State, message: Any, world: World) -> Iterator[Fact]:
    """A new process: whatever an earlier one held is lost, and it cannot be waited for."""
    why = f"{message.agent_id} began anew"
    known = before.agents.get(message.agent_id)
    if known is not None and known.incarnation != message.incarnation:
        yield about_agent(cluster.AgentLost(agent_id=known.id, incarnation=known.incarnation, why=why))
    yield from _lose_attempts(
        state, lambda it: it.agent_id == message.agent_id and it.incarnation != message.incarnation, why, world, perhaps=_MEMORY
    )


def _unheld(state: State, found: Unheld, world: World) -> Iterator[Fact]:
    run = state.runs.get(found.run_id)
    if run is not None and not run.is_terminal and run.epoch == found.epoch and run.member(found.agent_id, found.incarnation) is not None:
        yield from _lose_attempt(run, f"{found.agent_id} accepted it and does not hold it any more", world)


def _lose_attempts(state: State, is_lost: Callable[[Member], bool], why: str, world: World, *, perhaps: str = "") -> Iterator[Fact]:
    """Every attempt with a member that is lost."""
    for run in list(state.live_runs()):
        if any(is_lost(member) for member in run.members):
            yield from _lose_attempt(run, why, world, perhaps=perhaps)


def _lose_attempt(run: Run, why: str, world: World, *, perhaps: str = "") -> Iterator[Fact]:
    """Only attempts that somebody had accepted count: an offer that nobody took says nothing about the run."""
    for member in run.members:
        yield to_agent(member.agent_id, _revoked(run, member.agent_id, why, save_outputs=False))
    if run.cancel_requested:
        yield _canceled(run, ArtifactSet(), world)
    elif run.was_accepted and run.lost_attempts + 1 >= world.max_lost_attempts:
        what = f"{run.lost_attempts + 1} attempts that had begun were lost, the last one because {why}.{perhaps}"
        yield _failed(run, failure("AgentLost", what, run.members[0].agent_id), ArtifactSet(), world)
    else:
        yield about_run(job.RunRequeued(run_id=run.id, lost_epoch=run.epoch, why=f"attempt {run.epoch} was lost: {why}"))


def _declined(state: State, message: Any, world: World) -> Iterator[Fact]:
    run = state.runs.get(message.run_id)
    if run is None or run.is_terminal or message.epoch != run.epoch or run.member(message.agent_id, message.incarnation) is None:
        return
    yield from _lose_attempt(run, f"{message.agent_id} declined it: {message.why}", world)


# -- reports of an attempt


def _reported(run: Run | None, message: Any, world: World) -> Iterator[Fact]:
    """Once all members have said the same the run takes its next step. Whether a step was taken is read from the state alone,
    so a report that comes again, or is answered late by a replay, leads to the same."""
    if run is None or run.is_terminal or message.epoch != run.epoch or run.member(message.agent_id, message.incarnation) is None:
        return
    if isinstance(message, cluster.OutputsUploaded | cluster.TaskPrepared):
        for warning in message.warnings:
            yield about_run(job.RunWarned(run_id=run.id, message=warning))
    if run.is_over:
        yield _end(run, world)
    elif not run.cancel_requested:
        yield from _next_step(run, message)


def _next_step(run: Run, message: Any) -> Iterator[Fact]:
    match message:
        case cluster.LeaseAccepted():
            if run.status in _WAITING and all(it.accepted for it in run.members):
                yield about_run(job.RunPreparing(run_id=run.id, epoch=run.epoch, agent_ids=[it.agent_id for it in run.members]))
        case cluster.TaskPrepared():
            if not run.formed and all(it.prepared for it in run.members):
                gang = _gang(run)
                yield about_run(gang)
                for it in run.members:
                    yield to_agent(it.agent_id, gang)
        case cluster.TaskStarted():
            if run.started_at is None and run.status != job.RUN_STATUS_FINALIZING:
                yield about_run(job.RunStarted(run_id=run.id, epoch=run.epoch, started_at=message.started_at))
        case cluster.TaskExited() | cluster.TaskFailed():
            if run.status != job.RUN_STATUS_FINALIZING and (run.failure is not None or run.all_exited):
                yield about_run(job.RunFinalizing(run_id=run.id, epoch=run.epoch))


def _end(run: Run, world: World) -> Fact:
    outputs = _merged_outputs(run)
    if run.cancel_requested:
        return _canceled(run, outputs, world)
    if run.failure is not None:
        return _failed(run, run.failure, outputs, world)
    return about_run(job.RunCompleted(run_id=run.id, epoch=run.epoch, outputs=outputs, ended_at=_stamp(world)))


# -- time


def _tick(state: State, tick: Tick, world: World) -> Iterator[Fact]:
    busy = state.busy_agents()
    for name in tick.silent:
        if name in busy and name not in state.runs[busy[name]].silent:
            run = state.runs[busy[name]]
            yield about_run(job.RunNotResponding(run_id=run.id, epoch=run.epoch, agent_id=name))
    for name in tick.heard:
        if name in busy and name in state.runs[busy[name]].silent:
            run = state.runs[busy[name]]
            yield about_run(job.RunResponding(run_id=run.id, epoch=run.epoch, agent_id=name))
    for name in tick.given_up:
        agent = state.agents.get(name)
        if agent is not None:
            why = f"{name} sent no heartbeat"
            yield about_agent(cluster.AgentLost(agent_id=name, incarnation=agent.incarnation, why=why))
            yield to_agent(name, cluster.AgentFenced(agent_id=name, incarnation=agent.incarnation, why=why))
            yield from _lose_attempts(state, lambda it, name=name: it.agent_id == name, why, world, perhaps=_MEMORY)  # type: ignore[misc]
    for run in list(state.live_runs()):
        late = [it for it in run.members if not it.accepted] if (run.id, run.epoch) in tick.overdue else []
        if late and not set(tick.given_up) & {it.agent_id for it in run.members}:
            yield from _lose_attempt(run, f"{late[0].agent_id} did not take the offer in time", world)
    yield from joined.leave(state, world)
    yield from pools.fail_waiting(state, world)
    yield from shrink(state, world)


# -- messages


def _gang(run: Run) -> Any:
    members = [
        job.GangMember(agent_id=it.agent_id, incarnation=it.incarnation, address=it.address, ports=it.ports, ranks=it.ranks)
        for it in sorted(run.members, key=lambda it: it.node_index)
    ]
    return job.GangFormed(run_id=run.id, epoch=run.epoch, members=members)


def _revoked(run: Run, agent_id: str, why: str, *, save_outputs: bool) -> Any:
    return cluster.LeaseRevoked(run_id=run.id, epoch=run.epoch, agent_id=agent_id, why=why, save_outputs=save_outputs)


def _canceled(run: Run, outputs: ArtifactSet, world: World) -> Fact:
    return about_run(job.RunCanceled(run_id=run.id, epoch=run.epoch, outputs=outputs, ended_at=_stamp(world)))


def _failed(run: Run, why: Failure, outputs: ArtifactSet, world: World) -> Fact:
    return about_run(job.RunFailed(run_id=run.id, epoch=run.epoch, failure=why, outputs=outputs, ended_at=_stamp(world)))


def _merged_outputs(run: Run) -> ArtifactSet:
    """All members' files by path; of two with one path the lower node index counts."""
    merged: ArtifactSet = together(*(it.outputs for it in sorted(run.members, key=lambda it: it.node_index)))
    return merged
