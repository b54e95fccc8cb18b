"""Gangs that go on with fewer members, and take in more: the scheduler owns their size."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import timedelta

from services.scheduler.domain import gang
from services.scheduler.domain.changing import replace
from services.scheduler.domain.facts import Fact, about_run
from services.scheduler.domain.restarting import may_restart
from services.scheduler.domain.state import Member, Run, World
from services.scheduler.domain.times import stamp
from trainyard import _gang
from trainyard._artifacts import together
from trainyard.event.v1.artifact_pb2 import ArtifactSet
from trainyard.job.v1 import job_pb2 as job


def goes_on(run: Run) -> bool:
    """Members may come and go: the ranks run, and nothing has decided how the attempt ends."""
    return run.is_elastic and run.formed and not run.is_ending


def survives(run: Run, lost: Collection[Member]) -> bool:
    """The gang can do without these: somebody is left who has the state of the training, or they are not of it."""
    if not run.is_elastic or not run.formed or run.failure is not None:
        return False
    if run.has_finished:
        return not any(it.in_gang and not it.is_leaving for it in lost)
    return any(it not in lost for it in _staying(run))


def _staying(run: Run) -> list[Member]:
    return [it for it in run.members if it.in_gang and not it.is_leaving]


def failed(run: Run, member: Member) -> Run:
    """One member's part has just failed. The others go on as long as there are some and the run may restart; a member
    that is not of the gang yet harms nobody."""
    if member.failure is None or not member.in_gang:
        return run
    others = _staying(run)
    if others and not any(it.exited for it in others) and may_restart(run, member.failure):
        run = replace(run, restarts=run.restarts + 1)
        return without(run, member, member.outputs) if member.uploaded else run
    # Those that failed a moment ago, and are still saving, may be what the others failed of.
    causes = [(it.failed_at, it.node_index, it.failure) for it in run.members if it.failed_at is not None and (it.in_gang or it.exited)]
    at, _, why = min(causes, key=lambda cause: cause[:2])
    return replace(run, failure=why, failed_at=at)


def without(run: Run, member: Member, outputs: ArtifactSet) -> Run:
    """The member is gone; what it has saved stays."""
    left: ArtifactSet = together(run.left, outputs)
    members = tuple(it for it in run.members if it is not member)
    return replace(run, members=members, gaps=run.gaps + member.in_gang, left=left)


def current_rank(member: Member, rank: int) -> int:
    """A process tells the rank that it had when it was started, or any later one: what stays is its place on the node."""
    return rank if rank in member.ranks or not member.ranks else member.ranks[rank % len(member.ranks)]


def next_shape(run: Run, world: World) -> Iterator[Fact]:
    """Where members have gone or are ready to come in: the gang's next round, or why it waits."""
    if not goes_on(run):
        return
    staying = _staying(run)
    finishing = any(it.exited for it in staying)
    coming = [] if finishing else [it for it in run.members if not it.in_gang and it.prepared and not it.is_leaving]
    has_gaps = run.gaps > 0 or any(it.in_gang and it.is_leaving for it in run.members)
    if not has_gaps and not coming:
        return
    # Ranks that were there before come first: rank 0 is the one whose state the others take.
    members = [*gang.in_order([it for it in staying if not it.has_exited]), *gang.in_order(coming)]
    fewest = 1 if finishing else _gang.fewest_nodes(run.spec.distribution)
    if len(members) >= fewest:
        yield from gang.formed(run, members)
    else:
        yield from _waits(run, len(members), fewest, world)


def _waits(run: Run, nodes: int, fewest: int, world: World) -> Iterator[Fact]:
    deadline = run.deadline or world.now + timedelta(seconds=world.elastic_seconds)
    why = f"waits for nodes: it has {nodes} and needs at least {fewest}; without them the attempt is given up at {deadline:%H:%M:%S} UTC"
    if run.deadline is None or run.why != why:
        yield about_run(job.GangWaiting(run_id=run.id, epoch=run.epoch, why=why, deadline=stamp(deadline)))
