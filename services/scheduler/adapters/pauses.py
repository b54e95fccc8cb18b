"""How long to leave alone what has failed: twice as long each time."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pauses:
    def __init__(self, first_seconds: float = 2.0, longest_seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._first = first_seconds
        self._longest = longest_seconds
        self._clock = clock
        self._failed: dict[str, tuple[float, float, str]] = {}

    def failed(self, name: str, why: str) -> None:
        _, pause, _ = self._failed.get(name, (0.0, self._first / 2, ""))
        pause = min(2 * pause, self._longest)
        self._failed[name] = (self._clock() + pause, pause, why)

    def fine(self, name: str) -> None:
        self._failed.pop(name, None)

    def pausing(self, name: str) -> str:
        """Why it is left alone now; "" if it is not."""
        until, _, why = self._failed.get(name, (0.0, 0.0, ""))
        return why if self._clock() < until else ""
