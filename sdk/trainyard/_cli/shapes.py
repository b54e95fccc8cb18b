"""History's messages as the objects that the command prints."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToDict

from trainyard._attempts import attempts_of
from trainyard._cli.output import iso
from trainyard._values import value_of


def status(number: int) -> str:
    """Azure's word for a status."""
    from trainyard._run_status import status_name

    return status_name(number)


def run_row(run: Any) -> dict[str, Any]:
    """A run in a list. Times are ISO 8601 in UTC."""
    return {
        "runId": run.run_id,
        "experiment": run.experiment,
        "number": int(run.number),
        "status": status(run.status),
        "queuedAt": iso(run.queued_at),
        "startedAt": iso(run.started_at),
        "endedAt": iso(run.ended_at),
        "displayName": run.display_name,
        "parentRunId": run.parent_run_id,
        "tags": dict(run.tags),
        "properties": dict(run.properties),
        "why": run.why,
        "position": run.position or None,
    }


def file_row(file: Any) -> dict[str, Any]:
    """A file of a run or model; bytes."""
    return {"path": file.path, "bytes": int(file.size_bytes), "sha256": file.sha256}


def point_row(batch: Any, point: Any) -> dict[str, Any]:
    """One logged value of a MetricBatch."""
    return {
        "runId": batch.run_id,
        "name": point.name,
        "kind": point.kind,
        "value": value_of(point),
        "step": int(point.step) if point.HasField("step") else None,
        "rank": batch.rank,
        "epoch": batch.epoch,
        "loggedAt": iso(point.logged_at),
    }


def failure(found: Any) -> dict[str, Any]:
    """Why it ended badly."""
    shown: dict[str, Any] = {"code": found.code, "message": found.message}
    if found.target:
        shown["target"] = found.target
    if found.HasField("rank"):
        shown["rank"] = found.rank
    if found.HasField("exit_code"):
        shown["exitCode"] = found.exit_code
    if found.last_lines:
        shown["lastLines"] = list(found.last_lines)
    return shown


def run_view(view: Any, metrics: dict[str, Any]) -> dict[str, Any]:
    """All that is known of a run; `metrics` is name -> last value."""
    run = view.run
    shown = {
        **run_row(run),
        "epoch": run.epoch,
        "nodes": list(run.agent_ids),
        "restarts": run.restarts,
        "priority": run.spec.priority,
        "user": run.spec.user or None,
        "attempts": attempts_of(view),
        "metrics": metrics,
        "metricNames": list(view.metric_names),
        "files": [file_row(file) for file in view.files],
        "logs": [{"log": it.log, "rank": it.rank, "epoch": it.epoch, "lines": int(it.lines), "ended": it.ended} for it in view.logs],
        "children": list(view.child_run_ids),
        "models": [f"{it.model}:{it.version}" for it in view.models],
        "transitions": [{"at": iso(it.at), "status": status(it.status), "epoch": it.epoch, "why": it.why} for it in view.transitions],
        "warnings": list(run.warnings),
        "lastEventAt": iso(view.last_event_at),
    }
    if run.HasField("failure"):
        shown["error"] = failure(run.failure)
    if run.HasField("spec"):
        shown["spec"] = MessageToDict(run.spec)
    return shown


def attempt_line(attempt: dict[str, Any]) -> dict[str, str]:
    """An attempt on one line: where each rank ran, how it ended, what was saved."""
    nodes = "; ".join(f"{it['agent']}{_ranks(it['ranks'])}" for it in attempt["nodes"])
    cause, newest = attempt["firstCause"] or {}, attempt["newestCheckpoint"]
    first = f"first cause: rank {cause['rank']} exited with {cause['exitCode']}" if cause.get("rank") is not None else ""
    ends = ", ".join(
        f"rank {it['rank']} {it['exitCode']}" for it in attempt["ranks"] if it["ended"] and it["exitCode"] and it["ended"] != "stopped"
    )
    parts = {
        "attempt": str(attempt["attempt"]),
        "outcome": attempt["outcome"] or "goes on",
        "why": attempt["why"],
        "nodes": f"on {nodes}" if nodes else "",
        "rounds": f"round {attempt['rounds']}" if attempt["rounds"] > 1 else "",
        "cause": first,
        "exits": f"exit codes: {ends}" if ends else "",
        "checkpoints": f"{attempt['checkpoints']} checkpoints, the newest at {newest['savedAt']}" if newest else "",
    }
    return {name: part for name, part in parts.items() if part}


def _ranks(ranks: list[int]) -> str:
    if len(ranks) > 1 and ranks == list(range(ranks[0], ranks[0] + len(ranks))):
        return f" (ranks {ranks[0]}-{ranks[-1]})"
    return f" (rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))})" if ranks else ""
