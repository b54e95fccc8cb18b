"""Why a run failed, in words that a person can act on."""

from __future__ import annotations

from typing import Any

from services.scheduler.domain.restarting import SCRIPT_FAILED, SCRIPT_KILLED
from services.scheduler.domain.state import Member, Run
from services.scheduler.domain.times import seconds
from trainyard import _gang
from trainyard.event.v1.artifact_pb2 import Failure

_LIMIT = 3000
_SIGKILL = -9


def failure(code: str, message: str, target: str = "") -> Failure:
    return Failure(code=code, message=message[:_LIMIT], target=target[:1000])


def of_exit(run: Run, member: Member, exited: Any) -> Failure | None:
    """Why a rank's end is a failure of the run; None for exit code 0 and for ends that were asked for."""
    asked_for = run.cancel_requested or run.preempted or (exited.stopped and not exited.timed_out)
    if exited.exit_code == 0 or asked_for:
        return None
    script = run.spec.entry_script or run.spec.command[0]
    who = f"{script} ({_process(run, member, exited.rank)})"
    last = next((line.strip() for line in reversed(exited.last_lines) if line.strip()), "it printed nothing")
    if exited.timed_out:
        limit = seconds(run.spec.max_duration)
        code, what = "TimedOut", f"{who} was stopped after its time limit of {limit:g} s"
    elif exited.exit_code < 0:
        memory = ", perhaps because the node ran out of memory" if exited.exit_code == _SIGKILL else ""
        code, what = SCRIPT_KILLED, f"{who} was ended by signal {-exited.exit_code}{memory}; its last line: {last}"
    else:
        code, what = SCRIPT_FAILED, f"{who} exited with code {exited.exit_code}: {last}"
    return Failure(
        code=code,
        message=what[:_LIMIT],
        target=script,
        last_lines=list(exited.last_lines)[-20:],
        rank=exited.rank,
        exit_code=exited.exit_code,
    )


def _process(run: Run, member: Member, rank: int) -> str:
    """One of several is told by its task and its node."""
    if len(run.members) == 1 and len(member.ranks) == 1:
        return f"rank {rank}"
    task = next((it for it in _gang.tasks(run.spec.distribution) if it.rank == rank and it.kind), None)
    return f"rank {rank}, {task.kind} {task.index} on {member.agent_id}" if task else f"rank {rank} on {member.agent_id}"
