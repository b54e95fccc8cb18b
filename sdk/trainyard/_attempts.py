"""A run's attempts as plain values: for run.get_details() and the command."""

from __future__ import annotations

from typing import Any

from trainyard._times import as_utc

_OUTCOMES = ("", "Completed", "Failed", "Canceled", "Restarted", "Preempted", "Lost")


def attempts_of(view: Any) -> list[dict[str, Any]]:
    """Of a RunView, oldest first. outcome: Completed, Failed, Canceled, Restarted, Preempted, Lost; None while it goes on."""
    return [_attempt(it) for it in view.attempts]


def _attempt(attempt: Any) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "attempt": attempt.epoch,
        "outcome": (_OUTCOMES[attempt.outcome] or None) if attempt.outcome < len(_OUTCOMES) else None,
        "why": attempt.why,
        "beganAt": _time(attempt, "began_at"),
        "startedAt": _time(attempt, "started_at"),
        "endedAt": _time(attempt, "ended_at"),
        "rounds": attempt.rounds,
        "nodes": [{"agent": it.agent_id, "address": it.address, "ranks": list(it.ranks)} for it in attempt.members],
        "ranks": [_rank(it) for it in attempt.ranks],
        "checkpoints": int(attempt.checkpoints),
        "firstCause": None,
        "newestCheckpoint": None,
    }
    if attempt.HasField("failure"):
        failure = attempt.failure
        shown["firstCause"] = {
            "code": failure.code,
            "message": failure.message,
            "rank": failure.rank if failure.HasField("rank") else None,
            "exitCode": failure.exit_code if failure.HasField("exit_code") else None,
            "lastLines": list(failure.last_lines),
        }
    if attempt.checkpoints:
        newest = attempt.checkpoint
        shown["newestCheckpoint"] = {
            "number": int(newest.number),
            "savedAt": _time(newest, "saved_at"),
            "files": int(newest.files),
            "bytes": int(newest.bytes) or None,
            "agent": newest.agent_id,
        }
    return shown


def _rank(rank: Any) -> dict[str, Any]:
    return {
        "rank": rank.rank,
        "agent": rank.agent_id,
        "startedAt": _time(rank, "started_at"),
        "exitedAt": _time(rank, "exited_at"),
        "exitCode": rank.exit_code if rank.HasField("exit_code") else None,
        "ended": "stopped" if rank.stopped else "timed out" if rank.timed_out else "by itself" if rank.HasField("exit_code") else None,
    }


def _time(message: Any, field: str) -> str | None:
    return as_utc(getattr(message, field)).isoformat(timespec="milliseconds").replace("+00:00", "Z") if message.HasField(field) else None
