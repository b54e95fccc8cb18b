"""Time has passed: who fell silent, who is given up, and what has waited for too long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from services.scheduler.domain import gang
from services.scheduler.domain.facts import Fact, about_agent, about_run, to_agent
from services.scheduler.domain.losing import MEMORY, lose, lose_attempt, lose_members
from services.scheduler.domain.state import Run, State, World
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job


@dataclass(frozen=True)
class Tick:
    """Time has passed, in pulses. What heartbeats say meanwhile: who fell silent, who is heard again, who is given up."""

    silent: tuple[str, ...] = ()
    heard: tuple[str, ...] = ()
    given_up: tuple[str, ...] = ()
    overdue: tuple[tuple[str, int], ...] = ()
    """(run id, epoch) of offers that somebody has not taken in time."""
    unformed: tuple[tuple[str, int], ...] = ()
    """(run id, epoch) of gangs of which somebody is not prepared in time, while others wait."""


def tick(state: State, told: Tick, world: World) -> Iterator[Fact]:
    yield from _silence(state, told)
    given_up = {name: state.agents[name] for name in told.given_up if name in state.agents}
    for name, agent in given_up.items():
        why = f"{name} sent no heartbeat"
        yield about_agent(cluster.AgentLost(agent_id=name, incarnation=agent.incarnation, why=why))
        yield to_agent(name, cluster.AgentFenced(agent_id=name, incarnation=agent.incarnation, why=why))
    if given_up:
        yield from lose_members(state, lambda it: it.agent_id in given_up, "sent no heartbeat", world, perhaps=MEMORY)
    overdue, unformed = set(told.overdue), set(told.unformed)
    for run in list(state.attempts()):
        # What was lost just now is not lost once more.
        if not any(it.agent_id in given_up for it in run.members):
            yield from _waited_too_long(run, (run.id, run.epoch) in overdue, (run.id, run.epoch) in unformed, world)


def _silence(state: State, told: Tick) -> Iterator[Fact]:
    silent, heard = set(told.silent), set(told.heard)
    for run in list(state.attempts()):
        for member in run.members:
            if member.agent_id in silent and member.agent_id not in run.silent and run.awaits(member):
                yield about_run(job.RunNotResponding(run_id=run.id, epoch=run.epoch, agent_id=member.agent_id))
        for name in run.silent:
            if name in heard:
                yield about_run(job.RunResponding(run_id=run.id, epoch=run.epoch, agent_id=name))


def _waited_too_long(run: Run, offer_is_overdue: bool, gang_is_unformed: bool, world: World) -> Iterator[Fact]:
    late = [it for it in run.members if not it.accepted and not it.uploaded] if offer_is_overdue else []
    unprepared = [it for it in run.members if not it.prepared] if gang_is_unformed and not run.formed and not run.is_ending else []
    if late:
        yield from lose(run, late, f"{gang.names(late)} did not take the offer in time", world)
    elif unprepared:
        what = f"{gang.names(unprepared)} did not get prepared in time, while {len(run.members) - len(unprepared)} others waited"
        yield from lose_attempt(run, what, world, blamed=unprepared[0].agent_id)
    elif run.deadline is not None and world.now >= run.deadline and not run.is_ending:
        yield from lose_attempt(run, "too few nodes were left, and no others came in time", world)
