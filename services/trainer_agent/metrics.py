"""What a rank logs, from JSON to MetricBatch. A bad metric is one line in the rank's log, and never more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.trainer_agent.archive import MetricsFile
from services.trainer_agent.reporter import Reporter, as_record
from services.trainer_agent.telemetry import Attempt, LogStream
from trainyard._metric_limits import BATCH_BYTES, NAMES
from trainyard._points import checked
from trainyard.job.v1.telemetry_pb2 import MetricBatch

_COMPLAINTS = 100


class Metrics:
    """`take` gets what the script wrote. Kinds are shared by all ranks of the attempt: two under one name are told apart here."""

    def __init__(self, attempt: Attempt, rank: int, reporter: Reporter, complain: LogStream, archive: MetricsFile) -> None:
        self.rank = rank
        """An elastic gang numbers its ranks anew."""
        self._attempt = attempt
        self._reporter = reporter
        self._log = complain
        self._archive = archive
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
        points: list[dict[str, Any]] = []
        size = 0
        kinds = self._attempt.kinds
        for row in rows:
            try:
                point, weight = checked(row, self._good)
                if len(kinds) >= NAMES and (run_id, point["name"]) not in kinds:
                    raise ValueError(f"{point['name']!r} is one name too many: {NAMES} are kept")
                known = kinds.setdefault((run_id, point["name"]), point["kind"])
                if known != point["kind"]:
                    raise ValueError(f"{point['name']!r} is a {known}; a {point['kind']} of that name is left out")
            except (ValueError, TypeError, OverflowError, RecursionError) as error:
                self.complain(f"a metric was not recorded: {str(error)[:300]}")
                continue
            if points and size + weight > BATCH_BYTES:
                self._send(run_id, epoch, points)
                points, size = [], 0
            points.append(point)
            size += weight
        if points:
            self._send(run_id, epoch, points)

    def _send(self, run_id: str, epoch: int, points: list[dict[str, Any]]) -> None:
        attempt = self._attempt
        batch = MetricBatch(run_id=run_id, epoch=epoch, rank=self.rank, points=points)
        record = as_record("trainyard.metrics", run_id, batch, attempt.source, attempt.cause)
        self._archive.add(record)
        self._reporter.send(record)

    def complain(self, what: str) -> None:
        """One line in the rank's log; after a hundred no more."""
        self._complaints += 1
        if self._complaints <= _COMPLAINTS:
            last = " (no more of these are told)" if self._complaints == _COMPLAINTS else ""
            self._log.write([f"trainyard: {what}{last}".replace("\n", " ")])
