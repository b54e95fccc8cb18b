"""Which calls are sampled, and their way out of the process: a call only hands over what it has, and never waits."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from services.serving.sampling.call import Call, to_bytes
from services.serving.sampling.spool import Full, Spool

ABOUT = "about.json"
_MOST_WAITING, _MOST_WAITING_BYTES = 1000, 8 << 20
_LOOK_SECONDS = 0.5
_REST_SECONDS = 0.02  # calls that come within it wake nobody
_COUNTER = "trainyard_serving_samples_total"


class Sampler:
    """`rate` is all that a call looks at while nothing is sampled. Thread safe."""

    def __init__(self, folder: str | Path = "", chance: Callable[[], float] = random.random) -> None:
        """`folder`: of the deployment's spool, with the file that says how many are wanted; empty: none ever are."""
        self.rate = 0.0
        self.kept = 0
        self.dropped = 0
        self._folder = Path(folder) if folder else None
        self._chance = chance
        self._seen: tuple[int, int] | None = None
        self._waiting: deque[Call] = deque()
        self._waiting_bytes = 0
        self._ends = False
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        if self._folder is not None:
            self._look(self._folder)
            self._thread = threading.Thread(target=self._work, args=(self._folder,), name="samples", daemon=True)
            self._thread.start()

    def chosen(self) -> bool:
        """Whether this call is one of those that are sampled."""
        return self._chance() < self.rate

    def take(self, call: Call) -> None:
        """Keeps the call, or counts it as dropped where too many wait already."""
        with self._news:
            full = len(self._waiting) >= _MOST_WAITING or self._waiting_bytes + call.size > _MOST_WAITING_BYTES
            if self._ends or (full and self._waiting):
                self.dropped += 1
                return
            if not self._waiting:
                self._news.notify()
            self._waiting.append(call)
            self._waiting_bytes += call.size

    def metrics(self) -> str:
        """For Prometheus; empty where nothing can be sampled."""
        if self._folder is None:
            return ""
        counts = f'{_COUNTER}{{outcome="kept"}} {self.kept}\n{_COUNTER}{{outcome="dropped"}} {self.dropped}\n'
        return f"# TYPE {_COUNTER} counter\n{counts}"

    def close(self, seconds: float = 2.0) -> None:
        """What was taken is written, within that time."""
        with self._news:
            self._ends = True
            self._news.notify()
        if self._thread is not None:
            self._thread.join(seconds)

    def _work(self, folder: Path) -> None:
        spool, written, looked = Spool(folder), False, time.monotonic()
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._ends, _LOOK_SECONDS)
                calls, ends = list(self._waiting), self._ends
                self._waiting.clear()
                self._waiting_bytes = 0
            for call in calls:
                written = self._write(spool, call) or written
            if ends or time.monotonic() - looked >= _LOOK_SECONDS:
                if written:
                    spool.close()
                    written = False
                if ends:
                    return
                self._look(folder)
                looked = time.monotonic()
            with self._news:
                self._news.wait_for(lambda: self._ends, _REST_SECONDS)

    def _write(self, spool: Spool, call: Call) -> bool:
        try:
            spool.append(to_bytes(call))
        except (Full, OSError, ValueError):
            with self._news:
                self.dropped += 1
            return False
        self.kept += 1
        return True

    def _look(self, folder: Path) -> None:
        """A file that cannot be read asks for nothing."""
        try:
            status = (folder / ABOUT).stat()
            seen = (status.st_mtime_ns, status.st_ino)
            if seen != self._seen:
                rate = float(json.loads((folder / ABOUT).read_text())["rate"])
                self.rate = rate if 0 < rate <= 1 else 0.0
                self._seen = seen
        except (OSError, ValueError, KeyError, TypeError):
            self.rate, self._seen = 0.0, None
