"""Why a run waits, and what would unblock it, in words that stay the same while the reason does."""

from __future__ import annotations

from services.scheduler.domain.facts import Fact, about_run
from services.scheduler.domain.need import Need, Size
from services.scheduler.domain.state import Pool, Run
from trainyard.job.v1 import job_pb2 as job


def waits(run: Run, why: str, now: int, wanted: int) -> list[Fact]:
    """Nothing where that was said already. `now`, `wanted`: nodes of its pool."""
    status = job.RUN_STATUS_PROVISIONING if wanted > now else job.RUN_STATUS_QUEUED
    if (run.why, run.status) == (why, status):
        return []
    return [about_run(job.RunScaling(run_id=run.id, why=why, nodes_now=now, nodes_wanted=wanted))]


def count(nodes: int) -> str:
    return "a free node" if nodes == 1 else f"{nodes} free nodes"


def what_is_needed(need: Need) -> str:
    """Of each node, where it is not the whole of it."""
    if need.whole:
        labels = f" with {', '.join(need.labels)}" if need.labels else ""
        return count(need.fewest) + labels
    parts = [
        f"{need.cpus:g} cores" if need.cpus else "",
        f"{need.memory_bytes / 2**30:.3g} GiB" if need.memory_bytes else "",
        f"{need.gpus} GPU{'s' if need.gpus > 1 else ''}" if need.gpus else "",
        ", ".join(need.labels),
    ]
    each = f" {'on' if need.fewest == 1 else 'on each of'} {need.fewest} node{'s' if need.fewest > 1 else ''}"
    return " and ".join(filter(None, parts)) + each


def full(pool: Pool, need: Need, room: int, node_slots: int, *, is_local: bool, is_static: bool) -> str:
    have = len(pool.agent_ids)
    needed = what_is_needed(need)
    if is_static and room:
        how = f"trainyard agent join --pool {pool.name}"
        joined = f"{have or 'none'} joined {pool.name}, {'none is free' if need.fewest == 1 else 'too few are free'}"
        return f"waits for {needed}: {joined}; another one: {how}"
    if not room and need.whole and need.fewest == 1 and not need.labels:
        return f"waits for {needed}: all {have} of {pool.name} are busy and {pool.max_nodes} is its maximum"
    if not room:
        return f"waits for {needed}: too much of the {have} nodes of {pool.name} is in use and {pool.max_nodes} is its maximum"
    if is_local:
        return f"waits for {needed}: this machine may run {node_slots} and all are in use"
    return f"waits for {needed}: the {have} nodes of {pool.name} are in use, and no more can be started"


def over_quota(share: str, quota: Size) -> str:
    return f"waits for other runs of {share or 'its share'} to end: together they may hold {_bounds(quota)}"


def beyond_quota(share: str, quota: Size) -> str:
    return f"asks for more than {share or 'its share'} may hold at all, which is {_bounds(quota)}: raise the quota, or ask for less"


def _bounds(quota: Size) -> str:
    bounds = ((quota.cpus, "cores"), (quota.memory_bytes / 2**30, "GiB"), (quota.gpus, "GPUs"))
    return ", ".join(f"{bound:.3g} {unit}" for bound, unit in bounds if bound)
