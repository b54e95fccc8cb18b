"""What is said to the members of an attempt, and who they are in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from services.scheduler.domain.changing import replace
from services.scheduler.domain.facts import Fact, about_run, to_agent
from services.scheduler.domain.state import Member, Run
from trainyard import _gang
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job

_NAMES = 5


def formed(run: Run, members: Sequence[Member]) -> Iterator[Fact]:
    """The next shape of the gang, told to the run and to each of its members, who get their ranks by their order where it is elastic."""
    ranks = _ranks_by_node(run, members)
    told = job.GangFormed(run_id=run.id, epoch=run.epoch, round=run.round + 1, secret=members[0].secret or run.secret)
    for member, mine in zip(members, ranks, strict=True):
        told.members.append(to_wire(member, mine))
    yield about_run(told)
    for member in members:
        yield to_agent(member.agent_id, told)


def to_wire(member: Member, ranks: Iterable[int]) -> Any:
    return job.GangMember(agent_id=member.agent_id, incarnation=member.incarnation, address=member.address, ports=member.ports, ranks=ranks)


def _ranks_by_node(run: Run, members: Sequence[Member]) -> list[list[int]]:
    if not run.is_elastic:
        return [list(it.ranks) for it in members]
    ranks: list[list[int]] = [[] for _ in members]
    for task in _gang.tasks(run.spec.distribution, len(members)):
        ranks[task.node].append(task.rank)
    return ranks


def shaped(run: Run, told: Any) -> Run:
    """After a GangFormed. Whoever it does not name is outside, about to come or to go, unless its ranks have ended well."""
    number = max(1, told.round)
    if number != run.round + 1:
        return run
    ranks = {(it.agent_id, it.incarnation): tuple(it.ranks) for it in told.members}
    members = tuple(_placed(it, ranks.get((it.agent_id, it.incarnation))) for it in run.members)
    why = "starts" if number == 1 else f"goes on with {len(told.members)} {'node' if len(told.members) == 1 else 'nodes'}"
    return replace(run, members=members, formed=True, round=number, gaps=0, deadline=None, secret=told.secret or run.secret, why=why)


def _placed(member: Member, ranks: tuple[int, ...] | None) -> Member:
    """With the ranks of a new shape: a process of the node stays the one at its place, whatever its number."""
    if ranks is None:
        return replace(member, in_gang=member.in_gang and member.has_exited and not member.is_leaving)
    place = dict(zip(member.ranks, ranks, strict=False))
    exited, stopped = (tuple(place[it] for it in old if it in place) for old in (member.exited, member.stopped))
    return replace(member, in_gang=True, ranks=ranks, exited=exited, stopped=stopped)


def revoke(run: Run, members: Iterable[Member], why: str, *, save_outputs: bool) -> Iterator[Fact]:
    for it in members:
        told = cluster.LeaseRevoked(run_id=run.id, epoch=run.epoch, agent_id=it.agent_id, why=why[:3000], save_outputs=save_outputs)
        yield to_agent(it.agent_id, told)


def in_order(members: Iterable[Member]) -> list[Member]:
    """By node index."""
    return sorted(members, key=lambda it: it.node_index)


def names(members: Iterable[Member]) -> str:
    """A few agents by name, and how many more there are."""
    all_ = sorted(it.agent_id for it in members)
    shown, more = all_[:_NAMES], len(all_) - _NAMES
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
