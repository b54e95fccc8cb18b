"""Where a waiting run stands in its pool's queue, and whether a pool can ever hold it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.scheduler.domain.need import Need, Size
from services.scheduler.domain.placing import words
from services.scheduler.domain.placing.growing import is_local
from services.scheduler.domain.placing.needs import Shares, capacity_of, carries
from services.scheduler.domain.placing.queue import Line, Order
from services.scheduler.domain.providers import DOCKER, LOCAL, STATIC, kind_of
from services.scheduler.domain.state import Pool, Run, State, World


def line(state: State, world: World, pool: str) -> Iterator[Run]:
    """The runs that wait for the pool, in the order of their turn; what is not asked for costs nothing."""
    return iter(Line(state, pool, Order(state, Shares(state), world.now)))


def standing(state: State, world: World, pool: str) -> Iterator[tuple[Run, int, str]]:
    """(run, its position from 1, why it waits and what would unblock it), as `line`."""
    first = ""
    for place, run in enumerate(line(state, world, pool), 1):
        first = first or run.id
        yield run, place, _why_at(run, place, first)


def explain(state: State, world: World, run_id: str) -> tuple[int, str]:
    """(position from 1, why it waits and what would unblock it); (0, why) of a run that does not wait."""
    run = state.runs[run_id]
    if not run.waits_for_a_node:
        return 0, run.why
    return next((place, why) for it, place, why in standing(state, world, run.spec.compute_target) if it.id == run_id)


def _why_at(run: Run, place: int, first: str) -> str:
    """That it is not its turn was true when it was said; how many go first is told as it is now."""
    return words.turn(run.spec.compute_target, place, first, run.need) if run.why.startswith(words.TURN) else run.why


def can_never_fit(state: State, world: World, spec: Any) -> str:
    """Why no growth of its pool can ever make room for the run; "" where it may."""
    pool, need = state.pools[spec.compute_target], Need.of(spec)
    if need.fewest > pool.max_nodes:
        return f"The run wants {need.fewest} nodes, and {pool.name} has at most {pool.max_nodes}. Ask for fewer, or for a larger pool."
    if is_local(pool) and need.fewest > world.node_slots > 0:
        return (
            f"The run wants {need.fewest} nodes, and this machine may run {world.node_slots}. Start it with more: NODE_SLOTS={need.fewest}."
        )
    if need.labels and _all_alike_without(state, pool, need):
        labels = ", ".join(need.labels)
        return f"No node of {pool.name} carries {labels}, and those that it may start are like them. Ask for a pool whose nodes do."
    if need.whole:
        return ""
    # The first that is large enough is enough: pools are large.
    if any(it.cpus >= need.cpus and it.memory_bytes >= need.memory_bytes and it.gpus >= need.gpus for it in _sizes(state, pool)):
        return ""
    most = Size(*map(max, zip(*_sizes(state, pool), strict=True)))
    for asked, there, unit, scale in (
        (need.cpus, most.cpus, "cores", 1),
        (need.memory_bytes, most.memory_bytes, "GiB of memory", 2**30),
        (need.gpus, most.gpus, "GPUs", 1),
    ):
        if asked > there:
            what = f"{asked / scale:.3g} {unit} on a node, and a node of {pool.name} has {there / scale:.3g}"
            return f"The run wants {what}. Ask for less, or for a pool of larger nodes."
    return f"No node of {pool.name} has all at once that the run wants of one. Ask for less, or for a pool of larger nodes."


def _all_alike_without(state: State, pool: Pool, need: Need) -> bool:
    """Nodes of this machine are alike, and so are those of one image: a label that none of them carries no other one will."""
    if kind_of(pool.provider) not in (LOCAL, DOCKER):
        return False
    pools = [it for it in state.pools.values() if is_local(it)] if is_local(pool) else [pool]
    there = [agent for it in pools for name in it.agent_ids if (agent := state.agents.get(name)) is not None]
    return bool(there) and not any(carries(agent.labels, need.labels) for agent in there)


def _sizes(state: State, pool: Pool) -> Iterator[Size]:
    """Of the nodes that it has, or may get: what other machines have is known when they have come."""
    there = [state.agents[name] for name in pool.agent_ids if name in state.agents]
    if kind_of(pool.provider) != STATIC or not there:
        yield pool.size
    for agent in there:
        yield capacity_of(agent, pool)
