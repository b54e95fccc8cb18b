"""Members that are gone: with most gangs the attempt is lost, and its epoch fences whatever they still say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from services.scheduler.domain import elastic, gang, life
from services.scheduler.domain.ending import canceled, failed, settle
from services.scheduler.domain.facts import Fact, about_agent, about_run
from services.scheduler.domain.failures import failure
from services.scheduler.domain.holding import Unheld
from services.scheduler.domain.merging import outputs
from services.scheduler.domain.state import Member, Run, State, World
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job

# What a script can do to its agent's process.
MEMORY = " Perhaps the script exhausts the node's memory."


def registered(before: State, state: State, message: Any, world: World) -> Iterator[Fact]:
    """A new process: whatever an earlier one held is lost, and it cannot be waited for."""
    known = before.agents.get(message.agent_id)
    if known is not None and known.incarnation != message.incarnation:
        yield about_agent(cluster.AgentLost(agent_id=known.id, incarnation=known.incarnation, why=f"{known.id} began anew"))

    def is_of_another_process(it: Member) -> bool:
        return bool(it.agent_id == message.agent_id and it.incarnation != message.incarnation)

    yield from lose_members(state, is_of_another_process, "began anew", world, perhaps=MEMORY)


def drained(state: State, message: Any, world: World) -> Iterator[Fact]:
    gone = (message.agent_id, message.incarnation)
    yield from lose_members(state, lambda it: (it.agent_id, it.incarnation) == gone, f"was stopped: {message.why}", world)


def declined(state: State, message: Any, world: World) -> Iterator[Fact]:
    yield from _lose_one(state, message, f"declined it: {message.why}", world)


def unheld(state: State, found: Unheld, world: World) -> Iterator[Fact]:
    yield from _lose_one(state, found, "accepted it and does not hold it any more", world)


def _lose_one(state: State, told: Any, what: str, world: World) -> Iterator[Fact]:
    run = state.runs.get(told.run_id)
    if run is None or run.is_terminal or run.epoch != told.epoch:
        return
    member = run.member(told.agent_id, told.incarnation)
    if member is not None and not member.uploaded:
        yield from lose(run, [member], f"{member.agent_id} {what}", world)


def lose_members(state: State, is_lost: Callable[[Member], bool], what: str, world: World, *, perhaps: str = "") -> Iterator[Fact]:
    """Of every attempt those from whom something is still to come. Several of one attempt are lost at once, or it would be lost twice."""
    for run in list(state.attempts()):
        lost = [it for it in run.members if is_lost(it) and run.awaits(it)]
        if lost:
            yield from lose(run, lost, f"{gang.names(lost)} {what}", world, perhaps=perhaps)


def lose(run: Run, lost: list[Member], why: str, world: World, *, perhaps: str = "") -> Iterator[Fact]:
    """The others go on where they can do without, or where they are only saving what they have written."""
    only_saving = run.cancel_requested or bool(run.preempted) or (run.failure is not None and not any(it.accepted for it in lost))
    if not only_saving and not elastic.survives(run, lost):
        yield from lose_attempt(run, why, world, perhaps=perhaps, blamed=lost[0].agent_id)
        return
    given_up = list(gang.revoke(run, lost, why, save_outputs=False))
    yield from given_up
    yield from settle(life.fold(run, given_up, world.now), world)


def lose_attempt(run: Run, why: str, world: World, *, perhaps: str = "", blamed: str = "") -> Iterator[Fact]:
    """Only attempts that the whole gang had accepted count: an offer that somebody did not take says nothing about the run."""
    yield from gang.revoke(run, run.members, why, save_outputs=False)
    if run.cancel_requested:
        yield canceled(run, outputs(run), world)
    elif run.was_accepted and not run.preempted and run.lost_attempts + 1 >= world.max_lost_attempts:
        what = f"{run.lost_attempts + 1} attempts that had begun were lost, the last one because {why}.{perhaps}"
        yield failed(run, failure("AgentLost", what, blamed or run.members[0].agent_id), outputs(run), world)
    else:
        yield about_run(job.RunRequeued(run_id=run.id, lost_epoch=run.epoch, why=f"attempt {run.epoch} was lost: {why}"[:3000]))
