"""Who may ask. An agent asks for its script in the name of its attempt: once that is over, nothing more is done for it, though its agent
slept meanwhile and knows nothing of it. Whoever names no attempt asks from outside, at any time."""

from __future__ import annotations

from typing import Any

from services.scheduler.domain.failures import failure
from services.scheduler.domain.state import Run, State
from trainyard.event.v1.artifact_pb2 import Failure

OVER = "AttemptIsOver"


def refusal(state: State, request: Any) -> Failure | None:
    """Why nothing is done of a request of an attempt; None for one that counts, and for a client from outside."""
    by = request.by
    if not by.epoch:
        return None
    asker = state.runs.get(by.run_id)
    if asker is None:
        return failure("RunNotFound", f"There is no run {by.run_id[:200]!r} whose attempt {by.epoch} could ask for anything.", by.run_id)
    if by.epoch == asker.epoch and by.epoch > asker.lost_epoch and not asker.is_terminal:
        return None
    if by.epoch > asker.epoch:
        now = f"has not begun: the newest is {asker.epoch}"
    else:
        now = "is over: the run has ended" if asker.is_terminal else "is over: the run goes on with another"
    return failure(OVER, f"Attempt {by.epoch} of run {asker.id} {now}. Nothing of what its script asks for is done.", asker.id)


def epoch_of(run: Run, request: Any) -> int:
    """The attempt of this very run that asks; 0: somebody outside, or another run's script."""
    return int(request.by.epoch) if request.by.run_id == run.id else 0
