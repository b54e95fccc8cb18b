"""The steps of a build and how long each took, as a sentence: what to look at when the time was not enough."""

from __future__ import annotations

import time
from collections.abc import Callable

# uv says in the past tense what is over; what comes next it does not say.
_FOLLOWS = {
    "Resolved ": "downloading and building packages",
    "Prepared ": "installing packages",
    "Installed ": "compiling bytecode",
}


class Steps:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._steps: list[tuple[str, float]] = []
        self._last_line = ""

    def begin(self, step: str) -> None:
        self._steps.append((step, self._clock()))
        self._last_line = ""

    def hear(self, line: str) -> None:
        """A line of uv's output may end a step."""
        step = next((step for word, step in _FOLLOWS.items() if line.startswith(word)), None)
        if step is not None:
            self.begin(step)
        elif line.strip():
            self._last_line = line.strip()

    def story(self) -> str:
        """E.g. "resolving 1.2 s, then downloading and building packages 1798.8 s (last: Building horovod==0.28.1)"."""
        if not self._steps:
            return "nothing had begun"
        ends = [at for _, at in self._steps[1:]] + [self._clock()]
        told = ", then ".join(f"{step} {end - at:.1f} s" for (step, at), end in zip(self._steps, ends, strict=True))
        return told + (f" (last: {self._last_line[:200]})" if self._last_line else "")
