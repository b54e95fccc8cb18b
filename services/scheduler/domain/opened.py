"""Runs without agents: opened and closed by whoever does their work; and children, which end with their parent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from services.scheduler.domain import fencing, validate
from services.scheduler.domain.facts import Fact, about_run
from services.scheduler.domain.failures import failure
from services.scheduler.domain.state import Run, State, World
from services.scheduler.domain.times import stamp
from trainyard._errors import headline
from trainyard.event.v1.artifact_pb2 import ArtifactSet, Failure
from trainyard.job.v1 import job_pb2 as job

PARENT_ENDED = "ParentHasEnded"
ENDS = {
    job.RUN_STATUS_COMPLETED: job.RunCompleted,
    job.RUN_STATUS_FAILED: job.RunFailed,
    job.RUN_STATUS_CANCELED: job.RunCanceled,
}


def open_run(state: State, request: Any, world: World) -> Iterator[Fact]:
    run_id = request.submission_id
    if run_id in state.runs:
        return
    parent = state.runs.get(request.parent_run_id)
    wrong = validate.opening(request) or fencing.refusal(state, request) or no_parent(state, request.parent_run_id)
    if wrong is None and parent is not None and parent.experiment != request.experiment:
        wrong = failure("UserError", f"A child is kept in its parent's experiment, {parent.experiment}.", "experiment")
    if wrong is not None:
        yield about_run(job.RunRejected(run_id=run_id, experiment=request.experiment[:128], failure=wrong))
        return
    opened = job.RunOpened(
        run_id=run_id,
        experiment=request.experiment,
        number=state.numbers.get(request.experiment, 0) + 1,
        parent_run_id=request.parent_run_id,
        tags=request.tags,
        properties=request.properties,
        display_name=request.display_name,
        opened_at=stamp(world.now),
    )
    if request.HasField("source"):
        opened.source.CopyFrom(request.source)
    yield about_run(opened)


def no_parent(state: State, parent_run_id: str) -> Failure | None:
    """Why the run named cannot get a child; nothing where none is named."""
    parent = state.runs.get(parent_run_id)
    if not parent_run_id or (parent is not None and not parent.is_terminal and not parent.cancel_requested):
        return None
    if parent is None:
        return failure("RunNotFound", f"There is no run {parent_run_id[:200]!r} to be the parent.", parent_run_id)
    return failure(PARENT_ENDED, f"The parent {parent.id} has ended or is being canceled: it gets no more children.", parent.id)


def close(state: State, request: Any, world: World) -> Iterator[Fact]:
    """Its children are ended by `end_children`, as after any end."""
    run = state.runs.get(request.run_id)
    if run is None or run.is_terminal:
        return
    why = fencing.refusal(state, request) or unclosable(run, request)
    if why is None:
        yield end(run, request.status, request.failure, world)
    else:
        yield about_run(job.RunWarned(run_id=run.id, message=why.message))


def unclosable(run: Run, request: Any) -> Failure | None:
    if not run.opened:
        return failure("RunHasAgents", f"Run {run.id} ends with its script; only cancel ends it from outside.", run.id)
    if request.status not in ENDS:
        return failure("UserError", "A run is closed as COMPLETED, FAILED or CANCELED.", "status")
    return None


def end(run: Run, status: int, why: Failure | None, world: World) -> Fact:
    fact: Any = ENDS[status](run_id=run.id, epoch=run.epoch, outputs=ArtifactSet(), ended_at=stamp(world.now))  # type: ignore[index]
    if status == job.RUN_STATUS_FAILED:
        given = why if why is not None and (why.code or why.message) else failure("RunFailed", "The run was closed as failed.")
        fact.failure.CopyFrom(given)
        fact.failure.message = fact.failure.message[:3000]
        fact.failure.code = fact.failure.code[:100] or "RunFailed"
        fact.failure.target = fact.failure.target[:1000]
        fact.failure.last_lines[:] = [line[:1000] for line in fact.failure.last_lines[:20]]
    return about_run(fact)


def end_children(state: State, facts: Iterable[Fact], cancel: Callable[[State, Any], Iterable[Fact]], world: World) -> Iterator[Fact]:
    """What follows for the children of runs whose end, or cancel, was told: opened ones end in the same way, and a
    cancel reaches those with agents too. Their own children follow in turn."""
    told = list(facts)
    done: set[str] = set()
    while told:
        message: Any = told.pop(0).message
        if not isinstance(message, (*ENDS.values(), job.RunCancelRequested)):
            continue
        parent: str = message.run_id  # type: ignore[attr-defined]
        canceled = isinstance(message, job.RunCanceled | job.RunCancelRequested)
        for child in [run for run in state.children(parent) if run.id not in done]:
            more: list[Fact] = []
            if canceled:
                more = list(cancel(state, job.CancelRun(run_id=child.id, reason=f"its parent {parent} was canceled")))
            elif child.opened:
                status = next(status for status, kind in ENDS.items() if isinstance(message, kind))
                inherited = failure("ParentFailed", f"Its parent {parent} failed: {headline(getattr(message, 'failure', Failure()))}")
                more = [end(child, status, inherited, world)]
            if more:
                done.add(child.id)
            told += more
            yield from more
