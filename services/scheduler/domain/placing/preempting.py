"""Which running runs are ended for one that goes before them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from services.scheduler.domain import gang
from services.scheduler.domain.facts import Fact, about_run
from services.scheduler.domain.placing import queue
from services.scheduler.domain.placing.needs import Free, Need, Shares, node_of
from services.scheduler.domain.state import Pool, Run, State, World
from trainyard.job.v1 import job_pb2 as job


def victims(state: State, world: World, pool: Pool, run: Run, need: Need, up: Free, shares: Shares) -> list[Run]:
    """As few as make room, the least important and youngest first; none where no choice would.

    Only runs of a lower priority, that would still go after it were they to wait again: or they would take their nodes back.
    """
    lower = [it for it in _running(state, pool) if it.spec.priority < run.spec.priority and not it.is_ending]
    lower = [it for it in lower if _would_go_after(state, world, it, run, shares)]
    lower.sort(key=lambda it: (it.spec.priority, -it.order))
    chosen: list[Run] = []
    for it in lower:
        chosen.append(it)
        if _makes_room(state, pool, need, up, chosen):
            break
    else:
        return []
    # Of those that were taken on the way, some may turn out not to be needed.
    for it in list(chosen):
        fewer = [other for other in chosen if other is not it]
        if fewer and _makes_room(state, pool, need, up, fewer):
            chosen = fewer
    return chosen


def room_is_coming(state: State, pool: Pool, need: Need, up: Free) -> bool:
    """Once those that are ending are gone it fits: nobody else need go."""
    ending = [it for it in _running(state, pool) if it.is_ending]
    return bool(ending) and _makes_room(state, pool, need, up, ending)


def of_lowpriority(state: State, taker: Pool, lacking: int) -> list[Run]:
    """Runs on this machine's nodes in pools of low priority, whose nodes another pool may take: the youngest first."""
    found = [
        run
        for run in state.attempts()
        if (pool := state.pools.get(run.spec.compute_target)) is not None and pool.vm_priority == "lowpriority" and pool.name != taker.name
    ]
    coming = sum(len(run.members) for run in found if run.is_ending)
    chosen: list[Run] = []
    for run in sorted((it for it in found if not it.is_ending), key=lambda it: (it.spec.priority, -it.order)):
        if coming >= lacking:
            break
        chosen.append(run)
        coming += len(run.members)
    return chosen if coming >= lacking else []


def end_for(run: Run, by: Run, why: str) -> Iterator[Fact]:
    """Ends one attempt, and has it save what it has written."""
    yield about_run(job.RunPreempted(run_id=run.id, epoch=run.epoch, why=why, by=by.id))
    yield from gang.revoke(run, [it for it in run.members if not it.revoked and not it.uploaded], why, save_outputs=True)


def _running(state: State, pool: Pool) -> list[Run]:
    """In no order."""
    return [run for name in state.index.attempts if (run := state.runs[name]).spec.compute_target == pool.name]


def _would_go_after(state: State, world: World, victim: Run, run: Run, shares: Shares) -> bool:
    for member in victim.members:
        shares.add(victim, member.resources, member.resources, -1)
    after = queue.key(state, victim, shares, world.now) > queue.key(state, run, shares, world.now)
    for member in victim.members:
        shares.add(victim, member.resources, member.resources)
    return after


def _makes_room(state: State, pool: Pool, need: Need, up: Free, gone: Sequence[Run]) -> bool:
    names = {it.agent_id for run in gone for it in run.members}
    without = state
    for run in gone:
        without = without.without_attempt(run)
    freed = (node_of(without, state.agents[name], pool) for name in sorted(names) if name in state.agents)
    others = [node for node in up.fitting(need) if node.name not in names]
    return len(others) + sum(node is not None and node.fits(need) for node in freed) >= need.fewest
