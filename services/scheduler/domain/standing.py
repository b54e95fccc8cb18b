"""Where a waiting run stands in its pool's queue, and whether a pool can ever hold it."""

from __future__ import annotations

from typing import Any

from services.scheduler.domain.state import State, World
from trainyard import _gang


def explain(state: State, world: World, run_id: str) -> tuple[int, str]:
    """(position from 1, why it waits); (0, why) of a run that does not wait."""
    run = state.runs[run_id]
    if not run.waits_for_a_node:
        return 0, run.why
    ahead = (it for it in state.live_runs() if it.waits_for_a_node and it.spec.compute_target == run.spec.compute_target)
    return sum(it.order <= run.order for it in ahead), run.why


def can_never_fit(state: State, world: World, spec: Any) -> str:
    """Why no growth of its pool can ever make room for the run; "" where it may."""
    pool = state.pools[spec.compute_target]
    nodes = _gang.node_count(spec.distribution)
    if nodes > pool.max_nodes:
        return f"The run wants {nodes} nodes, and {pool.name} has at most {pool.max_nodes}. Ask for fewer, or for a larger pool."
    return ""
