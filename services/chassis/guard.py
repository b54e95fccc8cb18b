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
from dataclasses import dataclass, field
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
    """Pure: what the positions say over time. Times are monotonic seconds.

    A partition that waits and stands still is fetched, however busy the others are: its lost record has nobody else to
    reveal it. The process ends only when nothing at all moves.
    """

    fetch_after: float
    exit_after: float
    _standing: dict[tuple[Place, int], float] = field(default_factory=dict)
    _positions: Mapping[Place, int] | None = None
    _moved: float = 0.0
    _looked: float = 0.0

    def judge(self, ends: Mapping[Place, int], positions: Mapping[Place, int], now: float) -> Verdict:
        # Whoever looks so late was suspended itself, and with it all that should have moved.
        late, self._looked = now - self._looked >= self.exit_after, now
        if late:
            self.unknown()
        waiting = [(place, positions.get(place, 0)) for place, end in ends.items() if end > positions.get(place, 0)]
        self._standing = {item: self._standing.get(item, now) for item in waiting}
        if not waiting or positions != self._positions:
            self._positions, self._moved = dict(positions), now
        if now - self._moved >= self.exit_after:
            return Verdict.EXIT
        if any(now - since >= self.fetch_after for since in self._standing.values()):
            self._standing = dict.fromkeys(self._standing, now)
            return Verdict.FETCH
        return Verdict.FINE

    def unknown(self) -> None:
        """The log does not answer: nothing can be said, and the clocks start anew."""
        self._standing, self._positions = {}, None


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
                verdict = self._look()
                if verdict is Verdict.FETCH:
                    self._fetch()
            except Unavailable:
                self._progress.unknown()
                continue
            except Exception:
                # A guard that died would be missed by nobody.
                log.exception("the progress guard failed, it goes on")
                self._progress.unknown()
                continue
            if verdict is Verdict.EXIT:
                log.error("no progress while records wait: the process ends, the supervisor starts it anew")
                faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
                self._exit(EXIT_CODE)
                return

    def _look(self) -> Verdict:
        ends = self._reader.ends(self._topics)
        return self._progress.judge(ends, dict(self._positions()), time.monotonic())

    def stop(self) -> None:
        self._stopped.set()
