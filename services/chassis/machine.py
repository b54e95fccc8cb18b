"""What this machine has."""

from __future__ import annotations

import os
from collections.abc import Sequence

import psutil

from services.chassis.gpus import visible_gpus
from trainyard.cluster.v1.resources_pb2 import Gpu, Resources


def gpus(fake: str = "") -> Sequence[Gpu]:
    """The GPUs that this process may use, by the driver's index; none where there is no driver.

    `fake` is the setting agent.fake_gpus. Raises ValueError where that is no inventory.
    """
    return visible_gpus(fake, os.environ.get("CUDA_VISIBLE_DEVICES"))


def this_machine(fake_gpus: str = "") -> Resources:
    """Cores, memory and GPUs that this process may use."""
    return Resources(cpus=len(os.sched_getaffinity(0)), memory_bytes=psutil.virtual_memory().total, gpus=len(gpus(fake_gpus)))
