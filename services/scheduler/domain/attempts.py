"""What follows from a report of an attempt: the gang's next step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.scheduler.domain import checkpoints, gang
from services.scheduler.domain.ending import settle
from services.scheduler.domain.facts import Fact, about_run
from services.scheduler.domain.losing import lose_attempt
from services.scheduler.domain.state import Run, World
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job

REPORTS = (
    cluster.LeaseAccepted,
    cluster.TaskPrepared,
    cluster.TaskStarted,
    cluster.TaskExited,
    cluster.TaskFailed,
    cluster.CheckpointSaved,
    cluster.OutputsUploaded,
)
_WAITING = (job.RUN_STATUS_QUEUED, job.RUN_STATUS_PROVISIONING)


def reported(before: Run | None, run: Run | None, message: Any, world: World) -> Iterator[Fact]:
    """Once all members have said the same the run takes its next step. Whether a step was taken is read from the state alone,
    so a report that comes again, or is answered late by a replay, leads to the same. A member that has left with this very
    report stands in the state before it only."""
    if before is None or run is None or run.is_terminal or message.epoch != run.epoch:
        return
    member = run.member(message.agent_id, message.incarnation) or before.member(message.agent_id, message.incarnation)
    if member is None:
        return
    yield from _warnings(run, message)
    if isinstance(message, cluster.OutputsUploaded) and not run.is_ending and member.stopped and not member.is_leaving:
        yield from lose_attempt(run, f"{member.agent_id} ended its part unasked", world)
    elif run.formed or run.is_ending:
        if isinstance(message, cluster.TaskStarted) and run.started_at is None and not run.is_ending:
            yield about_run(job.RunStarted(run_id=run.id, epoch=run.epoch, started_at=message.started_at))
        yield from settle(run, world)
    else:
        yield from _form(run)


def _form(run: Run) -> Iterator[Fact]:
    if run.phase in _WAITING and all(it.accepted for it in run.members):
        yield about_run(job.RunPreparing(run_id=run.id, epoch=run.epoch, agent_ids=[it.agent_id for it in gang.in_order(run.members)]))
    if all(it.prepared for it in run.members):
        yield from gang.formed(run, gang.in_order(run.members))


def _warnings(run: Run, message: Any) -> Iterator[Fact]:
    """Each once, however many nodes say it."""
    said = [*message.warnings] if isinstance(message, cluster.OutputsUploaded | cluster.TaskPrepared) else []
    if isinstance(message, cluster.CheckpointSaved):
        said.append(checkpoints.complaint(run, message))
    if isinstance(message, cluster.TaskFailed) and run.formed and not run.is_ending:
        said.append(f"{message.agent_id} could not come in: {message.failure.message}"[:3000])
    for warning in dict.fromkeys(said):
        if warning and warning not in run.warnings:
            yield about_run(job.RunWarned(run_id=run.id, message=warning))
