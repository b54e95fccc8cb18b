"""What follows from a request to begin a run, or to cancel one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from services.scheduler.domain import checkpoints, gang, opened, validate
from services.scheduler.domain.ending import canceled, end
from services.scheduler.domain.facts import Fact, about_run
from services.scheduler.domain.failures import failure
from services.scheduler.domain.placing import can_never_fit
from services.scheduler.domain.state import Pool, Run, State, World
from services.scheduler.domain.times import stamp
from trainyard import _gang
from trainyard.event.v1.artifact_pb2 import ArtifactSet, Failure
from trainyard.job.v1 import job_pb2 as job


def submit(state: State, request: Any, world: World) -> Iterator[Fact]:
    run_id, spec = request.submission_id, request.spec
    if run_id in state.runs:
        return
    wrong = (
        validate.submission(request)
        or _unknown_target(state, spec.compute_target)
        or _no_room(state, spec, world)
        or opened.no_parent(state, spec.parent_run_id)
        or _nothing_to_resume(state, spec.resume_from)
    )
    checkpoint, lacks = ArtifactSet(), ""
    if wrong is None and spec.resume_from:
        checkpoint, lacks = checkpoints.to_resume(state.runs[spec.resume_from])
        wrong = validate.offer_too_large(spec, checkpoint)
    if wrong is not None:
        yield about_run(job.RunRejected(run_id=run_id, experiment=request.experiment[:128], failure=wrong))
        return
    queued = job.RunQueued(
        run_id=run_id,
        experiment=request.experiment,
        number=state.numbers.get(request.experiment, 0) + 1,
        spec=spec,
        why="waits for its turn",
        queued_at=stamp(world.now),
        checkpoint=checkpoint,
    )
    yield about_run(queued)
    for warning in (lacks, *_warnings(state, state.pools[spec.compute_target], spec)):
        if warning:
            yield about_run(job.RunWarned(run_id=run_id, message=warning))


def _unknown_target(state: State, name: str) -> Failure | None:
    if name in state.pools:
        return None
    there = ", ".join(sorted(state.pools)) or "none"
    what = f"There is no compute target {name[:100]!r}; there is: {there}. Make one with ComputeTarget.create."
    return failure("ComputeTargetNotFound", what, name)


def _no_room(state: State, spec: Any, world: World) -> Failure | None:
    pool = state.pools[spec.compute_target]
    if spec.use_gpu and pool.strict and not _has_gpus(state, pool):
        what = f"use_gpu was asked for, and {pool.name} has no GPU. Take another compute target, or leave use_gpu out."
        return failure("UserError", what, "use_gpu")
    never = can_never_fit(state, world, spec)
    return failure("NeverFits", never, "resources" if spec.HasField("resources") else "node_count") if never else None


def _nothing_to_resume(state: State, run_id: str) -> Failure | None:
    known = state.runs.get(run_id)
    if not run_id or (known is not None and known.status != job.RUN_STATUS_REJECTED):
        return None
    return failure("RunNotFound", f"There is no run {run_id[:200]!r} to resume from.", run_id)


def _has_gpus(state: State, pool: Pool) -> bool:
    agents = (state.agents.get(name) for name in pool.agent_ids)
    return pool.shape.gpus > 0 or any(it is not None and it.resources.gpus > 0 for it in agents)


def _warnings(state: State, pool: Pool, spec: Any) -> Iterator[str]:
    if spec.use_gpu and not _has_gpus(state, pool):
        yield f"use_gpu was asked for, but {pool.name} has no GPU: the run uses CPUs"
    tasks, nodes = _gang.tasks(spec.distribution), _gang.node_count(spec.distribution)
    processes = len(tasks)
    cpus = (spec.resources.cpus if spec.HasField("resources") else 0) or pool.shape.cpus
    if processes < nodes:
        yield f"{processes} processes are fewer than {nodes} nodes: some nodes have nothing to do"
    elif (busy := len({task.node for task in tasks})) < nodes:
        yield f"the evaluator shares the first node, and {busy} of {nodes} nodes have something to do: ask for fewer nodes"
    elif processes > nodes > 0 and 0 < nodes * cpus < processes:
        yield f"{processes} processes share {nodes * cpus:g} CPUs on {nodes} {'node' if nodes == 1 else 'nodes'}: they will be slow"


def cancel(state: State, request: Any, world: World) -> Iterator[Fact]:
    run = state.runs.get(request.run_id)
    if run is None or run.is_terminal or run.cancel_requested:
        return
    yield about_run(job.RunCancelRequested(run_id=run.id, reason=request.reason[:3000]))
    if not run.members:
        yield canceled(run, ArtifactSet(), world)
        return
    why = request.reason[:3000] or "the run was canceled"
    yield from gang.revoke(run, [it for it in run.members if not it.revoked and not it.uploaded], why, save_outputs=True)
    yield from _saved_already(run, world)


def _saved_already(run: Run, world: World) -> Iterator[Fact]:
    """Nobody would tell the end otherwise."""
    if all(it.uploaded for it in run.members):
        yield from end(replace(run, cancel_requested=True), world)
