"""How an attempt ends once it is decided: who is told to stop, and what is said when all of it is saved."""

from __future__ import annotations

from collections.abc import Iterator

from services.scheduler.domain import elastic, gang, merging
from services.scheduler.domain.facts import Fact, about_run
from services.scheduler.domain.failures import last_word
from services.scheduler.domain.restarting import allowed, may_restart
from services.scheduler.domain.state import Member, Run, World
from services.scheduler.domain.times import stamp
from trainyard.event.v1.artifact_pb2 import ArtifactSet, Failure
from trainyard.job.v1 import job_pb2 as job


def settle(run: Run, world: World) -> Iterator[Fact]:
    """What is due after something has happened to a member, whatever it was. Nothing where all has been said."""
    if run.is_over:
        yield from end(run, world)
    elif run.is_ending:
        yield from _wind_up(run)
    else:
        yield from elastic.next_shape(run, world)


def _wind_up(run: Run) -> Iterator[Fact]:
    asked_for = run.cancel_requested or bool(run.preempted)
    if not asked_for and run.phase != job.RUN_STATUS_FINALIZING:
        yield about_run(job.RunFinalizing(run_id=run.id, epoch=run.epoch))
    why = run.preempted or (f"the run has failed: {run.failure.message}" if run.failure is not None else "all that end by themselves have")
    yield from gang.revoke(run, [it for it in run.members if _goes_on(run, it)], why, save_outputs=True)


def _goes_on(run: Run, member: Member) -> bool:
    """It would not end by itself, and was not told to."""
    return not (member.is_leaving or member.uploaded or (run.formed and member.has_exited))


def end(run: Run, world: World) -> Iterator[Fact]:
    """All is saved: the run's last word, or another attempt."""
    why = run.failure
    if run.cancel_requested:
        yield from _last_word(run, canceled(run, merging.outputs(run), world))
    elif why is not None and may_restart(run, why):
        what = f"attempt {run.epoch} failed: {why.message}; begins again, restart {run.restarts + 1} of {allowed(run)}"
        yield about_run(job.RunRequeued(run_id=run.id, lost_epoch=run.epoch, why=what[:3000], restart=True))
    elif why is not None:
        yield from _last_word(run, failed(run, last_word(run, why), merging.outputs(run), world))
    elif run.has_finished:
        outputs = merging.outputs(run)
        completed = job.RunCompleted(run_id=run.id, epoch=run.epoch, outputs=outputs, ended_at=stamp(world.now))
        yield from _last_word(run, about_run(completed))
    else:
        what = f"attempt {run.epoch} was preempted: {run.preempted}"
        yield about_run(job.RunRequeued(run_id=run.id, lost_epoch=run.epoch, why=what[:3000]))


def _last_word(run: Run, fact: Fact) -> Iterator[Fact]:
    for complaint in merging.complaints(run):
        yield about_run(job.RunWarned(run_id=run.id, message=complaint))
    yield fact


def canceled(run: Run, outputs: ArtifactSet, world: World) -> Fact:
    return about_run(job.RunCanceled(run_id=run.id, epoch=run.epoch, outputs=outputs, ended_at=stamp(world.now)))


def failed(run: Run, why: Failure, outputs: ArtifactSet, world: World) -> Fact:
    return about_run(job.RunFailed(run_id=run.id, epoch=run.epoch, failure=why, outputs=outputs, ended_at=stamp(world.now)))
