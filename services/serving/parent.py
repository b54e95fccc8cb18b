"""A process of serving ends with the control plane. Standard library alone: it is called before anything else is loaded."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """No orphan keeps a port: when the control plane is killed the kernel kills us, and its successor starts us anew. `parent` 0:
    whoever started this process."""
    if sys.platform != "linux":
        return
    parent = parent or os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before the kernel knew of our wish
        os._exit(1)
