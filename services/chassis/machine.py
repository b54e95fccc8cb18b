"""What this machine has, and what its kernel does for us."""

from __future__ import annotations

import ctypes
import os
import signal

import psutil

from trainyard.cluster.v1.cluster_pb2 import Resources

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def end_with_parent() -> None:
    """Called in a child: whoever kills its parent ends it too."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def this_machine() -> Resources:
    """Cores and memory that this process may use. GPUs are not counted yet."""
    return Resources(cpus=len(os.sched_getaffinity(0)), memory_bytes=psutil.virtual_memory().total, gpus=0)
