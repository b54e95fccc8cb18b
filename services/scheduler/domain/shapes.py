"""What a node of a named size would have, and what this machine makes of it."""

from __future__ import annotations

from trainyard._vm_sizes import SIZES
from trainyard.cluster.v1.cluster_pb2 import Resources


def names() -> list[str]:
    return sorted(SIZES)


def capped(vm_size: str, machine: Resources) -> tuple[Resources, str] | None:
    """What a node of that size gets on this machine, and what was capped, in words. None: no such size."""
    found = SIZES.get(vm_size.upper())
    if found is None:
        return None
    cpus, gib, gpus = found
    asked = Resources(cpus=cpus, memory_bytes=int(gib * 2**30), gpus=gpus)
    got = Resources(
        cpus=min(asked.cpus, machine.cpus),
        memory_bytes=min(asked.memory_bytes, machine.memory_bytes),
        gpus=min(asked.gpus, machine.gpus),
    )
    if got == asked or vm_size.upper() == "LOCAL":
        return got, ""
    return got, f"{vm_size} asks for {_words(asked)}; this machine gives {_words(got)}"


def on_other_machines(vm_size: str) -> tuple[Resources, str] | None:
    """What a node of that size gets where the nodes are other machines, which tell themselves what they have. None: no such size."""
    return capped(vm_size, Resources(cpus=1e9, memory_bytes=1 << 62, gpus=1 << 20))


def _words(size: Resources) -> str:
    return f"{size.cpus:g} cores, {size.memory_bytes / 2**30:.3g} GiB, {size.gpus} GPU{'' if size.gpus == 1 else 's'}"
