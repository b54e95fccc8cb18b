"""How long each phase of a run took, from its events."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from trainyard import Workspace
from trainyard.cluster.v1 import cluster_pb2
from trainyard.job.v1 import job_pb2

_MARKS = (
    (job_pb2.RunQueued, "queued"),
    (job_pb2.RunScaling, "scaling"),
    (job_pb2.RunPreparing, "preparing"),
    (job_pb2.RunStarted, "running"),
    (job_pb2.RunFinalizing, "finalizing"),
)
_ENDS = (job_pb2.RunCompleted, job_pb2.RunFailed, job_pb2.RunCanceled)


def breakdown(events: Iterable[tuple[datetime, Any]]) -> list[tuple[str, float, str]]:
    """(phase, seconds, detail) in order; each phase lasts until the next one begins."""
    marks: list[tuple[datetime, str, str]] = []
    steps: list[tuple[str, float, str]] = []
    begun: dict[str, datetime] = {}
    for at, message in events:
        for kind, name in _MARKS:
            if isinstance(message, kind):
                marks.append((at, name, getattr(message, "why", "")))
        if isinstance(message, _ENDS):
            marks.append((at, "", ""))
        if isinstance(message, cluster_pb2.TaskPhase):
            if not message.done:
                begun[message.phase] = message.at.ToDatetime()
            elif message.phase in begun:
                seconds = (message.at.ToDatetime() - begun[message.phase]).total_seconds()
                steps.append((f"  of which {message.phase}", seconds, message.detail))
    found = [(name, (later[0] - at).total_seconds(), why) for (at, name, why), later in zip(marks, marks[1:], strict=False) if name]
    total = [("total", (marks[-1][0] - marks[0][0]).total_seconds(), "")] if len(marks) > 1 else []
    return found + steps + total


def phases(workspace: Workspace, run_id: str) -> list[tuple[str, float, str]]:
    from trainyard._kafka import in_causal_order

    records = in_causal_order(workspace._events.read_all(["trainyard.jobs", "trainyard.tasks"], key=run_id))
    return breakdown((record.event.time, record.event.message) for record in records if record.event is not None)
