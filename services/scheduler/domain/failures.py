"""Why a run failed, in words that a person can act on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.scheduler.domain.restarting import SCRIPT_FAILED, SCRIPT_KILLED
from services.scheduler.domain.state import Member, Run
from services.scheduler.domain.times import seconds
from trainyard import _gang
from trainyard.event.v1.artifact_pb2 import Failure

_LIMIT = 3000
# Of a run's last word: its first line, and the lines of the log below it.
_HEAD, _LINES, _CHARACTERS = 800, 10, 2000
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


def last_word(run: Run, why: Failure) -> Failure:
    """The failure as the run's end tells it: below the first line the end of the rank's log under its name, for a traceback's last line
    seldom says where. What is shown on one line takes the first alone (`trainyard._errors.headline`)."""
    told = Failure()
    told.CopyFrom(why)
    restarts = f" It had been restarted {run.restarts} {'time' if run.restarts == 1 else 'times'}." if run.restarts else ""
    if not why.HasField("rank"):
        told.message = why.message[: _LIMIT - len(restarts)] + restarts
        return told
    log, end = _gang.driver_log(run.spec.distribution, why.rank), _end(why.last_lines)
    below = [f"The end of {log}:", *(f"  {line}" for line in end)] if end else [f"Its log is {log}."]
    told.message = "\n".join([why.message.split("\n", 1)[0][:_HEAD] + restarts, *below])[:_LIMIT]
    return told


def _end(lines: Sequence[str]) -> list[str]:
    """The last lines that say something, as many as have room."""
    kept: list[str] = []
    room = _CHARACTERS
    for line in reversed([line.rstrip() for line in lines if line.strip()][-_LINES:]):
        if room <= 0:
            break
        # What a program draws over itself, or splits, stays one line.
        kept.append(" ".join(line.splitlines())[:room])
        room -= len(kept[-1]) + 3
    return kept[::-1]


def _process(run: Run, member: Member, rank: int) -> str:
    """One of several is told by its task and its node."""
    if len(run.members) == 1 and len(member.ranks) == 1:
        return f"rank {rank}"
    task = next((it for it in _gang.tasks(run.spec.distribution) if it.rank == rank and it.kind), None)
    return f"rank {rank}, {task.kind} {task.index} on {member.agent_id}" if task else f"rank {rank} on {member.agent_id}"
