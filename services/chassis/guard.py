"""Liveness by progress, not by process: records wait and nothing moves -> fetch them directly; still nothing -> dump stacks and end.

A thread of its own with a consumer of its own, because the asyncio loop may be what is stuck.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import structlog

from services.chassis.records import LogReader, Place, Unavailable

log = structlog.get_logger()
EXIT_CODE = 70


class Verdict(Enum):
    FINE = "fine"
    FETCH = "fetch"
    EXIT = "exit"


@dataclass
class Progress:
    """Pure: what the positions say over time. Times are monotonic seconds."""

    fetch_after: float
    exit_after: float
    _seen: Mapping[Place, int] | None = None
    _still_since: float = 0.0
    _fetched: bool = False

    def judge(self, ends: Mapping[Place, int], positions: Mapping[Place, int], now: float) -> Verdict:
        waiting = any(end > positions.get(place, 0) for place, end in ends.items())
        if not waiting or positions != self._seen:
            self._seen, self._still_since, self._fetched = dict(positions), now, False
            return Verdict.FINE
        still = now - self._still_since
        if still >= self.exit_after:
            return Verdict.EXIT
        if still >= self.fetch_after and not self._fetched:
            self._fetched = True
            return Verdict.FETCH
        return Verdict.FINE

    def unknown(self) -> None:
        """The log does not answer: nothing can be said, and the clock starts anew."""
        self._seen = None


class ProgressGuard(threading.Thread):
    def __init__(
        self,
        reader: LogReader,
        topics: Sequence[str],
        positions: Callable[[], Mapping[Place, int]],
        fetch: Callable[[], None],
        *,
        progress: Progress,
        every: float = 1.0,
        exit: Callable[[int], object] = os._exit,  # noqa: A002 - what it does
    ) -> None:
        super().__init__(name="progress-guard", daemon=True)
        self._reader = reader
        self._topics = list(topics)
        self._positions = positions
        self._fetch = fetch
        self._progress = progress
        self._every = every
        self._exit = exit
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(self._every):
            try:
                ends = self._reader.ends(self._topics)
            except Unavailable:
                self._progress.unknown()
                continue
            match self._progress.judge(ends, dict(self._positions()), time.monotonic()):
                case Verdict.FETCH:
                    self._fetch()
                case Verdict.EXIT:
                    log.error("no progress while records wait: the process ends, the supervisor starts it anew")
                    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
                    self._exit(EXIT_CODE)
                    return
                case Verdict.FINE:
                    pass

    def stop(self) -> None:
        self._stopped.set()
