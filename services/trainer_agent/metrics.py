"""What a rank logs, from JSON to MetricBatch. A bad metric is one line in the rank's log, and never more."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from services.trainer_agent.reporter import Reporter, as_record
from services.trainer_agent.telemetry import Attempt, LogStream
from trainyard._values import KINDS, wrong_name
from trainyard.job.v1.telemetry_pb2 import MetricBatch, MetricPoint

_FIELDS = ("name", "kind", "value", "at", "step", "description")
_TEXT, _POINT_BYTES, _BATCH_BYTES, _COMPLAINTS = 3000, 500_000, 700_000, 100
# Integers beyond this are no doubles.
_EXACT = 2**53


class Metrics:
    """`take` gets what the script wrote. Kinds are shared by all ranks of the attempt: two under one name are told apart here."""

    def __init__(self, attempt: Attempt, rank: int, reporter: Reporter, complain: LogStream) -> None:
        self._attempt = attempt
        self._rank = rank
        self._reporter = reporter
        self._log = complain
        self._complaints = 0
        self._good: set[str] = set()

    @property
    def behind(self) -> int:
        """Records that nobody has taken yet."""
        return self._reporter.behind

    async def flush(self) -> None:
        await self._reporter.flush()

    def take(self, rows: Sequence[Any], run_id: str = "", epoch: int | None = None) -> None:
        """`run_id`: of a child, whose epoch is 0; the attempt's own where it is empty."""
        run_id, epoch = (run_id, 0) if run_id else (self._attempt.run_id, self._attempt.epoch)
        points: list[Any] = []
        size = 0
        for row in rows:
            try:
                point = self._point(row, run_id)
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
                self.complain(f"a metric was not recorded: {str(error)[:300]}")
                continue
            weight = point.ByteSize()
            if points and size + weight > _BATCH_BYTES:
                self._send(run_id, epoch, points)
                points, size = [], 0
            points.append(point)
            size += weight
        if points:
            self._send(run_id, epoch, points)

    def _point(self, row: Any, run_id: str) -> Any:
        point = as_point(dict(zip(_FIELDS, row, strict=True)) if isinstance(row, list) else row, self._good)
        known = self._attempt.kinds.setdefault((run_id, point.name), point.kind)
        if known != point.kind:
            raise ValueError(f"{point.name!r} is a {known}; a {point.kind} of that name is left out")
        return point

    def _send(self, run_id: str, epoch: int, points: Iterable[Any]) -> None:
        attempt = self._attempt
        batch = MetricBatch(run_id=run_id, epoch=epoch, rank=self._rank, points=points)
        self._reporter.send(as_record("trainyard.metrics", run_id, batch, attempt.source, attempt.cause))

    def complain(self, what: str) -> None:
        """One line in the rank's log; after a hundred no more."""
        self._complaints += 1
        if self._complaints <= _COMPLAINTS:
            last = " (no more of these are told)" if self._complaints == _COMPLAINTS else ""
            self._log.write([f"trainyard: {what}{last}".replace("\n", " ")])


def as_point(item: Any, good: set[str] | None = None) -> Any:
    """Raises ValueError, TypeError, KeyError or OverflowError for what is no metric. `good`: names known to be right."""
    name, kind, value = item["name"], item["kind"], item["value"]
    if good is None or name not in good:
        trouble = wrong_name(name)
        if trouble:
            raise ValueError(trouble)
        if good is not None and len(good) < 10_000:
            good.add(name)
    if kind not in KINDS:
        raise ValueError(f"kind {str(kind)[:50]!r} is none of {', '.join(KINDS)}")
    point = MetricPoint(name=name, kind=kind)
    point.logged_at.FromNanoseconds(int(float(item["at"]) * 1e9))
    if item.get("step") is not None:
        point.step = int(item["step"])
    if item.get("description"):
        point.description = str(item["description"])[:_TEXT]
    _set_value(point, kind, value)
    return point


def _set_value(point: Any, kind: str, value: Any) -> None:
    if type(value) is float:
        point.number = value
    elif isinstance(value, str) and kind not in ("list", "row", "table"):
        point.text = value[:_TEXT]
    elif type(value) is int and kind == "scalar" and -_EXACT <= value <= _EXACT:
        point.number = value
    else:
        _check_kind(point.name, kind, value)
        content = json.dumps(value)
        if len(content) > _POINT_BYTES:
            raise ValueError(f"{point.name!r} takes {len(content)} bytes as JSON, and {_POINT_BYTES} is the most")
        point.json = content


def _check_kind(name: str, kind: str, value: Any) -> None:
    wanted: Any = {"scalar": bool | int | None, "list": list, "row": dict, "table": dict}.get(kind, str)
    if not isinstance(value, wanted):
        raise ValueError(f"{name!r} is no {kind}: its value is a {type(value).__name__}")
