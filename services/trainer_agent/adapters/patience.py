"""Waiting for an object store that is away: a minute without it costs a minute, and no run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from trainyard._errors import PlatformUnavailableException

T = TypeVar("T")
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 5.0


def when_it_answers(action: Callable[[], T], seconds: float, stopped: Callable[[], bool]) -> T:
    """Does it again while the store does not answer. Raises PlatformUnavailableException after `seconds`, or once `stopped()`."""
    deadline, pause = time.monotonic() + seconds, _FIRST_PAUSE_SECONDS
    while True:
        try:
            return action()
        except PlatformUnavailableException:
            if stopped() or time.monotonic() >= deadline:
                raise
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
