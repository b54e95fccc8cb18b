"""A run after what an agent says of its part, and after the offer and the revocation of that part. A report of another attempt or
process is void, whatever it says."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from services.scheduler.domain import checkpoints, elastic
from services.scheduler.domain.changing import replace
from services.scheduler.domain.failures import of_exit
from services.scheduler.domain.state import Member, Run
from services.scheduler.domain.times import when
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import ArtifactSet, Failure
from trainyard.job.v1 import job_pb2 as job

OF_AN_ATTEMPT = (
    cluster.LeaseOffered,
    cluster.LeaseRevoked,
    cluster.LeaseAccepted,
    cluster.TaskPhase,
    cluster.TaskPrepared,
    cluster.TaskFailed,
    cluster.TaskStarted,
    cluster.TaskExited,
    cluster.CheckpointSaved,
    cluster.OutputsUploaded,
)


def evolve(run: Run, message: Any, at: datetime) -> Run:
    if isinstance(message, cluster.LeaseOffered):
        return _offered(run, message, at)
    if message.epoch != run.epoch:
        return run
    if isinstance(message, cluster.LeaseRevoked):
        return _revoked(run, message)
    member = run.member(message.agent_id, message.incarnation)
    if member is None:
        return run
    match message:
        case cluster.LeaseAccepted():
            return run.with_member(replace(member, accepted=True))
        case cluster.TaskPhase():
            return run if run.cancel_requested or run.silent or run.preempted else replace(run, why=_phase(member, run, message))
        case cluster.TaskPrepared() if not member.prepared:
            ready = replace(member, accepted=True, prepared=True, secret=message.secret)
            return run.with_member(replace(ready, address=message.address, ports=tuple(message.ports)))
        case cluster.CheckpointSaved():
            return checkpoints.saved(run, member, message)
        case cluster.TaskFailed():
            return _failed(run, member, message.failure, at)
        case cluster.TaskExited():
            return _exited(run, member, message, at)
        case cluster.OutputsUploaded() if not member.uploaded:
            return _uploaded(run, member, message, at)
    return run


def _phase(member: Member, run: Run, message: Any) -> str:
    where = f" on {member.agent_id}" if len(run.members) > 1 else ""
    return f"{message.phase}{where}: {message.detail}" if message.detail else f"{message.phase}{where}"


# -- leases


def _offered(run: Run, message: Any, at: datetime) -> Run:
    if message.epoch < run.epoch or message.epoch <= run.lost_epoch:
        return run
    if message.epoch > run.epoch:
        run = replace(fresh(run), epoch=message.epoch)
    if any(it.node_index == message.node_index for it in run.members) or run.member(message.agent_id, message.incarnation):
        return run
    member = Member(
        message.agent_id,
        message.incarnation,
        message.node_index,
        tuple(message.ranks),
        at,
        resources=message.resources,
        gpus=tuple(message.gpus),
    )
    run = replace(run, members=(*run.members, member), next_index=max(run.next_index, member.node_index + 1))
    return run if run.formed else replace(run, why=f"offered to {', '.join(it.agent_id for it in run.members[:5])}")


def _revoked(run: Run, message: Any) -> Run:
    member = next((it for it in run.members if it.agent_id == message.agent_id), None)
    if member is None:
        return run
    if message.save_outputs:
        return run.with_member(replace(member, revoked=True))
    if elastic.goes_on(run):
        return heard(elastic.without(run, member, member.outputs), member.agent_id)
    return run.with_member(replace(member, revoked=True, uploaded=True))


def fresh(run: Run) -> Run:
    """Nothing of an earlier attempt is carried over."""
    return replace(
        run,
        members=(),
        formed=False,
        silent=(),
        status_before_silence=0,
        failure=None,
        failed_at=None,
        started_at=None,
        round=0,
        next_index=0,
        gaps=0,
        left=ArtifactSet(),
        secret="",
        preempted="",
        deadline=None,
    )


def heard(run: Run, agent_id: str) -> Run:
    """That agent is not waited for any more."""
    if agent_id not in run.silent:
        return run
    silent = tuple(name for name in run.silent if name != agent_id)
    status = run.status if silent or run.status != job.RUN_STATUS_NOT_RESPONDING else run.status_before_silence
    return replace(run, silent=silent, status=status, why=f"{silent[0]} is silent" if silent else f"{agent_id} is heard again")


# -- ends


def _exited(run: Run, member: Member, message: Any, at: datetime) -> Run:
    rank = elastic.current_rank(member, message.rank) if run.is_elastic else message.rank
    if rank not in member.ranks or rank in member.exited:
        return run
    stopped = (*member.stopped, rank) if message.stopped else member.stopped
    exited = replace(member, exited=(*member.exited, rank), stopped=stopped)
    why = of_exit(run, member, message)
    # A parameter server that breaks once all workers have ended well harms nobody.
    if why is None or run.has_finished:
        return run.with_member(exited)
    return _failed(run, exited, why, when(message.exited_at, at) if message.HasField("exited_at") else at)


def _failed(run: Run, member: Member, why: Failure, at: datetime) -> Run:
    """The first cause counts, not the first report: ranks that lose a peer fail as well, and may be heard before it."""
    if run.cancel_requested or run.preempted:
        return run.with_member(member)
    is_first = member.failure is None
    if member.failed_at is None or at < member.failed_at:
        member = replace(member, failure=why, failed_at=at)
    run = run.with_member(member)
    if elastic.goes_on(run):
        return elastic.failed(run, member) if is_first else run
    if run.failed_at is not None and run.failed_at <= at:
        return run
    return replace(run, failure=why, failed_at=at)


def _uploaded(run: Run, member: Member, message: Any, at: datetime) -> Run:
    if elastic.goes_on(run) and member.is_leaving:
        return elastic.without(run, member, message.outputs)
    restored = message.restored if message.HasField("restored") else None
    saved = replace(member, uploaded=True, outputs=message.outputs, restored=restored)
    return _failed(run, saved, message.failure, at) if message.HasField("failure") else run.with_member(saved)
