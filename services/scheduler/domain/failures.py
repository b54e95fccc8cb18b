"""Why a run failed, in words that a person can act on."""

from __future__ import annotations

from typing import Any

from services.scheduler.domain.state import Run
from services.scheduler.domain.times import seconds
from trainyard.event.v1.artifact_pb2 import Failure

_LIMIT = 3000
_SIGKILL = -9


def failure(code: str, message: str, target: str = "") -> Failure:
    return Failure(code=code, message=message[:_LIMIT], target=target[:1000])


def of_exit(run: Run, exited: Any) -> Failure | None:
    """Why a rank's end is a failure of the run; None for exit code 0 and for ends that were asked for."""
    if exited.exit_code == 0 or run.cancel_requested:
        return None
    script = run.spec.entry_script or run.spec.command[0]
    last = next((line.strip() for line in reversed(exited.last_lines) if line.strip()), "it printed nothing")
    if exited.timed_out:
        limit = seconds(run.spec.max_duration)
        code, what = "TimedOut", f"{script} (rank {exited.rank}) was stopped after its time limit of {limit:g} s"
    elif exited.exit_code < 0:
        memory = ", perhaps because the node ran out of memory" if exited.exit_code == _SIGKILL else ""
        code, what = "ScriptKilled", f"{script} (rank {exited.rank}) was ended by signal {-exited.exit_code}{memory}; its last line: {last}"
    else:
        code, what = "ScriptFailed", f"{script} (rank {exited.rank}) exited with code {exited.exit_code}: {last}"
    return Failure(
        code=code,
        message=what[:3000],
        target=script,
        last_lines=list(exited.last_lines)[-20:],
        rank=exited.rank,
        exit_code=exited.exit_code,
    )
