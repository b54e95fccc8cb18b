"""What a run's widget shows, gathered from wherever it can be had. Never raises: what cannot be read is told as trouble."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from trainyard._errors import headline
from trainyard._gang import driver_log
from trainyard._metrics import once
from trainyard._offline import OfflineRun
from trainyard._times import as_utc

TAIL_LINES = 200
_POINTS = 100_000
# No repeats: what does not answer now is asked again at the next look.
_SECONDS = 5.0
_WAITING = ("Queued", "Provisioning")
_TERMINAL = ("Completed", "Failed", "Canceled")


@dataclass
class Snapshot:
    """A run at a moment. `metrics`: name -> (step, value) in the order logged, numbers alone; `texts`: name -> last value of any other."""

    run_id: str
    experiment: str = ""
    status: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    phases: list[tuple[str, str, str]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    logs: list[str] = field(default_factory=list)
    log: str = ""
    lines: list[str] = field(default_factory=list)
    children: list[tuple[str, str]] = field(default_factory=list)
    error: str = ""
    error_lines: list[str] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        """Nothing more will come."""
        return self.status in _TERMINAL


def gather(run: Any, log: str = "") -> Snapshot:
    """All of a run that can be had now; `log` names the log whose tail is wanted, "" the driver's."""
    found = Snapshot("")
    with _told(found, "id"):
        found.run_id = str(run.id)
    with _told(found, "experiment"):
        found.experiment = str(run.experiment.name)
    clients: Any = None
    if isinstance(run, OfflineRun):
        _from_offline(found, run)  # whatever platform a config.json nearby names
        return found
    with _told(found, "connection"):
        clients = run.experiment.workspace._clients
    if clients is None:
        _from_offline(found, run)
        return found
    with _told(found, "history"):
        _from_history(found, clients, log)
    if found.status in _WAITING or not found.status:
        # Its place in the queue moves without an event: the scheduler alone knows it.
        with _told(found, "scheduler"):
            from trainyard.job.v1 import job_pb2

            _from_message(found, clients.jobs.GetRun(job_pb2.GetRunRequest(run_id=found.run_id), timeout=_SECONDS).run)
    if not found.status:
        with _told(found, "run"):
            _from_message(found, run._message)
    return found


@contextmanager
def _told(found: Snapshot, part: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a widget shows what it has
        details = getattr(error, "details", None)
        told = str(details() if callable(details) else error) or type(error).__name__
        found.trouble.append(f"{part}: {told.splitlines()[0][:300]}")


def _from_history(found: Snapshot, clients: Any, log: str) -> None:
    from trainyard.history.v1 import history_pb2

    view = clients.history.GetRun(history_pb2.GetRunRequest(run_id=found.run_id), timeout=_SECONDS).run
    with _told(found, "run"):
        _from_message(found, view.run)
        found.phases = [(_clock(it.at), _status(it.status), it.why) for it in view.transitions] or found.phases
    with _told(found, "metrics"):
        request = history_pb2.GetMetricsRequest(run_id=found.run_id, page_size=_POINTS, preferred_ranks=True)
        answer = clients.history.GetMetrics(request, timeout=_SECONDS)
        for point in once(point for group in answer.runs for batch in group.batches for point in batch.points):
            _add_point(found, point)
    with _told(found, "children"):
        if view.child_run_ids:
            asked = history_pb2.ListRunsRequest(parent_run_id=found.run_id, page_size=100)
            children = clients.history.ListRuns(asked, timeout=_SECONDS).runs
            found.children = [(child.run_id, _status(child.status)) for child in children]
    with _told(found, "log"):
        _add_log(found, clients, list(view.logs), log or driver_log(view.run.spec.distribution, 0))


def _add_point(found: Snapshot, point: Any) -> None:
    which = point.WhichOneof("value")
    if which == "number":
        series = found.metrics.setdefault(point.name, [])
        if math.isfinite(point.number):
            series.append((float(point.step) if point.HasField("step") else float(len(series)), float(point.number)))
        else:
            found.texts[point.name] = str(point.number)
    elif which is not None:
        found.texts[point.name] = str(getattr(point, which))[:300]


def _add_log(found: Snapshot, clients: Any, logs: list[Any], wanted: str) -> None:
    from trainyard.history.v1 import history_pb2

    names = Counter(it.log for it in logs)
    labelled = {it.log if it.rank == 0 or names[it.log] == 1 else f"{it.log} (rank {it.rank})": it for it in logs}
    found.logs = list(labelled)
    found.log = wanted if wanted in labelled else next(iter(labelled), "")
    if not found.log:
        return
    chosen = labelled[found.log]
    request = history_pb2.ReadLogRequest(
        run_id=found.run_id, log=chosen.log, rank=chosen.rank, epoch=chosen.epoch, first_line=max(int(chosen.lines) - TAIL_LINES, 0)
    )
    lines = [line.text for answer in clients.history.ReadLog(request, timeout=_SECONDS) for line in answer.lines]
    found.lines = lines[-TAIL_LINES:]


def _from_message(found: Snapshot, run: Any) -> None:
    found.experiment = found.experiment or run.experiment
    found.status = _status(run.status)
    found.tags, found.properties = dict(run.tags), dict(run.properties)
    times = {"queued": run.queued_at, "started": run.started_at, "ended": run.ended_at}
    found.facts = {name: _clock(stamp) for name, stamp in times.items() if stamp.seconds}
    found.facts |= {"why": run.why} if run.why else {}
    found.facts |= {"position": str(run.position)} if run.position else {}
    found.facts |= {"target": run.spec.compute_target} if run.spec.compute_target else {}
    found.facts |= {"nodes": ", ".join(run.agent_ids)} if run.agent_ids else {}
    found.facts |= {"attempt": str(run.epoch)} if run.epoch > 1 else {}
    found.facts |= {"restarts": f"{run.restarts} of {run.spec.max_restarts}"} if run.restarts else {}
    found.facts |= {f"warning {number}": text for number, text in enumerate(run.warnings, 1)}
    if run.HasField("failure"):
        found.error = f"{run.failure.code}: {headline(run.failure)}"
        found.error_lines = list(run.failure.last_lines)


def _from_offline(found: Snapshot, run: Any) -> None:
    """By what the object itself can say."""
    ask: dict[str, Callable[[], Any]] = {
        "status": lambda: str(run.get_status()),
        "tags": lambda: dict(run.tags),
        "properties": lambda: dict(run.properties),
    }
    for name, question in ask.items():
        with _told(found, name):
            setattr(found, name, question())
    with _told(found, "metrics"):
        metrics: Mapping[str, Any] = run.get_metrics()
        for name, value in metrics.items():
            values = value if isinstance(value, list) else [value]
            numbers = [
                float(it)
                for it in values
                if isinstance(it, int | float) and not isinstance(it, bool) and abs(it) < 1e300 and math.isfinite(it)
            ]
            if numbers and len(numbers) == len(values):
                found.metrics[str(name)] = [(float(step), number) for step, number in enumerate(numbers)]
            else:
                found.texts[str(name)] = str(value)[:300]


def _status(number: int) -> str:
    from trainyard._run_status import status_name

    return status_name(number)


def _clock(stamp: Any) -> str:

    return f"{as_utc(stamp):%Y-%m-%d %H:%M:%S}" if stamp.seconds else ""
