"""How far a transfer is, on standard error: a bar on a terminal, a plain line now and then elsewhere, nothing for what is done at once."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Any, TextIO

_FIRST_SECONDS = 1.0
_LINE_SECONDS = 5.0


class Meter:
    """`with Meter("uploading", total) as meter: meter.add(number)`; numbers are bytes, from any thread."""

    def __init__(self, verb: str, total: int, *, shown: bool = True, stream: TextIO | None = None) -> None:
        self._verb = verb
        self._total = max(total, 1)
        self._shown = shown
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()
        self._done = 0
        self._began = self._said = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            if self._bar is not None:
                self._bar.stop()
            elif self._said > self._began and error is None:
                self._line(time.monotonic())

    def add(self, number: int) -> None:
        """So many bytes more are done."""
        with self._lock:
            self._done += number
            now = time.monotonic()
            if not self._shown or now - self._began < _FIRST_SECONDS:
                return
            if self._stream.isatty():
                self._draw()
            elif now - self._said >= (_LINE_SECONDS if self._said > self._began else 0.0):
                self._line(now)

    def _draw(self) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._bar = Progress(*columns, console=Console(file=self._stream), transient=True)
            self._task = self._bar.add_task(self._verb, total=self._total)
            self._bar.start()
        self._bar.update(self._task, completed=self._done)

    def _line(self, now: float) -> None:
        self._said = now
        print(f"{self._verb}: {self._done / 1e6:.1f} of {self._total / 1e6:.1f} MB", file=self._stream, flush=True)
