"""A process ends with the one that started it. Standard library alone: servers of models call it in environments that have nothing else, and
children call it between fork and exec."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
# Loaded here: between fork and exec a lock of the loader's may be held by a thread that is gone.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with(parent: int, by: signal.Signals = signal.SIGKILL) -> None:
    """No orphan is left: when `parent` is killed the kernel sends us that signal. 0: whoever started this process. Below 0: nobody."""
    if _libc is None or parent < 0:
        return
    parent = parent or os.getppid()
    _libc.prctl(_PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:  # it was gone before the kernel knew of our wish
        os._exit(1)
