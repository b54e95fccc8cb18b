"""A run after an event about it: what the scheduler has said itself here, what agents say in reports.py."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from services.scheduler.domain import checkpoints, gang, reports
from services.scheduler.domain.changing import replace
from services.scheduler.domain.facts import Fact
from services.scheduler.domain.state import Run
from services.scheduler.domain.times import when
from trainyard._errors import headline
from trainyard.event.v1.artifact_pb2 import ArtifactSet
from trainyard.job.v1 import job_pb2 as job

WARNINGS = 100


def fold(run: Run, facts: Iterable[Fact], at: datetime) -> Run:
    for fact in facts:
        run = evolve(run, fact.message, at)
    return run


def evolve(run: Run, message: Any, at: datetime) -> Run:
    """The same run where nothing follows. `run` has not ended."""
    if isinstance(message, reports.OF_AN_ATTEMPT):
        return reports.evolve(run, message, at)
    match message:
        case job.RunScaling():
            grows = message.nodes_wanted > message.nodes_now
            status = job.RUN_STATUS_PROVISIONING if grows else job.RUN_STATUS_QUEUED
            return replace(run, status=status, why=message.why, place=message.position)
        case job.RunWarned():
            return replace(run, warnings=(*run.warnings, message.message)[-WARNINGS:])
        case job.RunCancelRequested():
            return replace(run, status=job.RUN_STATUS_CANCEL_REQUESTED, cancel_requested=True, why=message.reason or "cancel was asked for")
        case job.RunRequeued() if message.lost_epoch == run.epoch > run.lost_epoch:
            return _requeued(run, message, at)
        case job.RunCompleted() | job.RunFailed() | job.RunCanceled():
            return _ended(run, message, at)
    if getattr(message, "epoch", -1) != run.epoch or run.cancel_requested:
        return run
    return _of_this_attempt(run, message, at)


def _of_this_attempt(run: Run, message: Any, at: datetime) -> Run:
    match message:
        case job.RunPreparing():
            return _in_phase(run, job.RUN_STATUS_PREPARING, f"on {', '.join(message.agent_ids)}")
        case job.GangFormed():
            return gang.shaped(run, message)
        case job.GangWaiting():
            return replace(run, why=message.why, deadline=when(message.deadline, at))
        case job.RunPreempted():
            return replace(run, preempted=message.why or "its nodes are needed", why=f"is ended for now: {message.why}")
        case job.RunStarted():
            run = replace(run, started_at=when(message.started_at, at))
            return _in_phase(run, job.RUN_STATUS_RUNNING, f"the script runs on {', '.join(it.agent_id for it in run.members)}")
        case job.RunFinalizing():
            return _in_phase(run, job.RUN_STATUS_FINALIZING, "the outputs are copied")
        case job.RunNotResponding() if message.agent_id not in run.silent:
            why = f"{message.agent_id} is silent"
            silent = (*run.silent, message.agent_id)
            return replace(run, status=job.RUN_STATUS_NOT_RESPONDING, silent=silent, status_before_silence=run.phase, why=why)
        case job.RunResponding() if message.agent_id in run.silent:
            return reports.heard(run, message.agent_id)
    return run


def _in_phase(run: Run, status: int, why: str) -> Run:
    """While somebody is silent that is what shows."""
    return replace(run, status_before_silence=status) if run.silent else replace(run, status=status, why=why)


def _requeued(run: Run, message: Any, at: datetime) -> Run:
    ended_well = message.restart or bool(run.preempted)
    waits_since = run.waits_since
    if run.preempted and run.members:
        # What it has waited stays its own; while it ran it did not wait.
        waits_since = at - (min(it.offered_at for it in run.members) - (run.waits_since or run.queued_at))
    counts = run.was_accepted and not ended_well
    return replace(
        reports.fresh(run),
        status=job.RUN_STATUS_QUEUED,
        why=message.why,
        place=0,
        lost_epoch=run.epoch,
        lost_attempts=run.lost_attempts + counts,
        restarts=run.restarts + message.restart,
        waits_since=waits_since,
        **(checkpoints.after(run) if ended_well else {}),
    )


def _ended(run: Run, message: Any, at: datetime) -> Run:
    run = replace(
        run,
        outputs=message.outputs,
        left=ArtifactSet(),
        ended_at=when(message.ended_at, at),
        silent=(),
        formed=False,
        preempted="",
        deadline=None,
    )
    match message:
        case job.RunCompleted():
            return replace(run, status=job.RUN_STATUS_COMPLETED, failure=None, failed_at=None, why="")
        case job.RunFailed():
            return replace(run, status=job.RUN_STATUS_FAILED, failure=message.failure, why=headline(message.failure))
        case _:
            return replace(run, status=job.RUN_STATUS_CANCELED, failure=None, failed_at=None)
