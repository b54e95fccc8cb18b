"""What this machine has."""

from __future__ import annotations

import os

import psutil

from trainyard.cluster.v1.cluster_pb2 import Resources


def this_machine() -> Resources:
    """Cores and memory that this process may use. GPUs are not counted yet."""
    return Resources(cpus=len(os.sched_getaffinity(0)), memory_bytes=psutil.virtual_memory().total, gpus=0)
