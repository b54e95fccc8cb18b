"""Why a run waits, and what would unblock it, in words that stay the same while the reason does."""

from __future__ import annotations

import shlex

from services.scheduler.domain.facts import Fact, about_run
from services.scheduler.domain.need import Need, Size
from services.scheduler.domain.state import Pool, Run
from trainyard.job.v1 import job_pb2 as job

TURN = "waits for its turn"
# A place is told anew when it has come down to a quarter of what was told, or grown to four times as much.
_STEP = 4
NAMED = 3


def waits(run: Run, why: str, now: int, wanted: int, place: int) -> list[Fact]:
    """Nothing where that was said already. `now`, `wanted`: nodes of its pool; `place`: in the line, 0 where it is not known."""
    status = job.RUN_STATUS_PROVISIONING if wanted > now else job.RUN_STATUS_QUEUED
    if (run.why, run.status) == (why, status) and not _has_moved(run, place):
        return []
    return [about_run(job.RunScaling(run_id=run.id, why=why, nodes_now=now, nodes_wanted=wanted, position=place))]


def _has_moved(run: Run, place: int) -> bool:
    return place > 0 and (not run.place or place * _STEP <= run.place or run.place * _STEP <= place)


def is_news_of_turn(run: Run, place: int) -> bool:
    """That it is not its turn is told once, though how many are before it, and who, changes all the time."""
    return not run.why.startswith(TURN) or run.status != job.RUN_STATUS_QUEUED or _has_moved(run, place)


def turn(pool: str, place: int, first: str, need: Need) -> str:
    """`first` is the id of whoever goes first."""
    needs = f"it needs {what_is_needed(need)}"
    if place == 1:
        return f"{TURN}: it goes first in {pool}; {needs}"
    if place == 2:
        return f"{TURN}: 1 run goes first in {pool}, {first}; {needs}"
    ahead = f"{place - 1} runs go" if place else "others go"
    return f"{TURN}: {ahead} first in {pool}, {first} before all; {needs}"


def kept(pool: str, first: str, need: Need) -> str:
    """`need` is of the one for whom it is kept."""
    return f"what is free of {pool} is kept for run {first}, which goes first and needs {what_is_needed(need)}"


def given_back(need: Need, names: list[str]) -> str:
    if len(names) == 1:
        return f"waits for {what_is_needed(need)}: run {names[0]} gives its nodes back once its outputs are saved"
    return f"waits for {what_is_needed(need)}: runs {_few(names)} give their nodes back once their outputs are saved"


def holders(held: list[tuple[str, list[str]]]) -> str:
    """(run, its nodes), of those that hold what is wanted; "" where nobody does."""
    if not held:
        return ""
    return "; taken by " + _few([f"run {run} ({nodes[0] if len(nodes) == 1 else f'{len(nodes)} nodes'})" for run, nodes in held])


def labels(pool: str, need: Need, found: int, *, is_static: bool) -> str:
    """`found`: nodes that carry them all, fewer than are needed."""
    asked = ", ".join(need.labels)
    carry = (
        f"no node of {pool} carries {asked}"
        if not found
        else f"only {found} of the nodes of {pool} carr{'ies' if found == 1 else 'y'} {asked}"
    )
    if not is_static:
        return f"waits for {what_is_needed(need)}: {carry}, and none that it could start; take a pool whose nodes do"
    given = " ".join(f"--label {shlex.quote(label if '=' in label else f'{label}=yes')}" for label in need.labels)
    return f"waits for {what_is_needed(need)}: {carry}; one that does: trainyard agent join --pool {pool} {given}"


def _few(names: list[str]) -> str:
    """How many others there are is left out: it would be said anew whenever one of them goes."""
    if len(names) > NAMED:
        return f"{', '.join(names[:NAMED])} and others"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


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


def full(pool: Pool, need: Need, room: int, node_slots: int, held: str, *, is_local: bool, is_static: bool) -> str:
    """`held`: by whom, as `holders` says it."""
    have = len(pool.agent_ids)
    needed = what_is_needed(need)
    if is_static and room:
        how = f"trainyard agent join --pool {pool.name}"
        joined = f"{have or 'none'} joined {pool.name}, {'none is free' if need.fewest == 1 else 'too few are free'}"
        return f"waits for {needed}: {joined}{held}; another one: {how}"
    if not room and need.whole and need.fewest == 1 and not need.labels:
        return f"waits for {needed}: all {have} of {pool.name} are busy and {pool.max_nodes} is its maximum{held}"
    if not room:
        return f"waits for {needed}: too much of the {have} nodes of {pool.name} is in use and {pool.max_nodes} is its maximum{held}"
    if is_local:
        return f"waits for {needed}: this machine may run {node_slots} and all are in use{held}"
    return f"waits for {needed}: the {have} nodes of {pool.name} are in use, and no more can be started{held}"


def over_quota(share: str, quota: Size) -> str:
    return f"waits for other runs of {share or 'its share'} to end: together they may hold {_bounds(quota)}"


def beyond_quota(share: str, quota: Size) -> str:
    return f"asks for more than {share or 'its share'} may hold at all, which is {_bounds(quota)}: raise the quota, or ask for less"


def _bounds(quota: Size) -> str:
    bounds = ((quota.cpus, "cores"), (quota.memory_bytes / 2**30, "GiB"), (quota.gpus, "GPUs"))
    return ", ".join(f"{bound:.3g} {unit}" for bound, unit in bounds if bound)
