"""wait_for_completion(show_output=True), as text."""

from __future__ import annotations

from typing import Any

from trainyard._errors import headline
from trainyard._progress import Printer
from trainyard._run_status import status_name
from trainyard._times import as_utc
from trainyard._watch import Line


class Story:
    def __init__(self, run_id: str, url: str, printer: Printer | None = None) -> None:
        self._print = (printer or Printer()).line
        self._last: tuple[Any, ...] = ()
        self._log: tuple[int, str] = (0, "")
        self._warned = 0
        self._print(f"RunId: {run_id}", "head")
        self._print(f"Web View: {url}")

    def state(self, run: Any) -> None:
        for message in run.warnings[self._warned :]:
            self._print(f"warning: {message}", "note")
        self._warned = len(run.warnings)
        now = (run.status, run.why, run.epoch, run.position)
        if now == self._last:
            return
        if run.epoch > 1 and (len(self._last) < 3 or self._last[2] != run.epoch):
            self._print(f"[Attempt {run.epoch}]", "note")
        self._last = now
        why = f": {run.why}" if run.why else ""
        place = f", position {run.position}" if run.position else ""
        self._print(f"[{status_name(run.status)}{place}]{why}", "phase")

    def output(self, line: Line) -> None:
        if line.log and (line.epoch, line.log) != self._log:
            self._log = (line.epoch, line.log)
            self._print()
            self._print(f"Streaming {line.log}", "head")
            self._print("=" * (10 + len(line.log)), "head")
        self._print(line.text)

    def summary(self, run: Any) -> None:
        self._print()
        self._print("Execution Summary", "head")
        self._print("=================", "head")
        self._print(f"RunId: {run.run_id}")
        status = status_name(run.status)
        self._print(f"Status: {status}", "good" if status == "Completed" else "bad")
        if run.HasField("started_at") and run.HasField("ended_at"):
            seconds = (as_utc(run.ended_at) - as_utc(run.started_at)).total_seconds()
            self._print(f"Script started to end: {seconds:.1f} s")
        if run.HasField("failure"):
            self._print(f"{run.failure.code}: {headline(run.failure)}", "bad")
            for line in run.failure.last_lines:
                self._print(f"  | {line}")
