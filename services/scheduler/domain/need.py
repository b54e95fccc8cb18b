"""What a run asks of each node, and how nodes are measured."""

from __future__ import annotations

from typing import Any, NamedTuple

from trainyard import _gang
from trainyard.job.v1 import spec_pb2


class Size(NamedTuple):
    """What a Resources message says, without its weight."""

    cpus: float
    memory_bytes: int
    gpus: int


def size_of(resources: Any) -> Size:
    return Size(resources.cpus, resources.memory_bytes, resources.gpus)


class Device(NamedTuple):
    number: int
    """On its node."""
    uuid: str
    """What the driver calls it; "" where it is not known."""


class Need(NamedTuple):
    """Of each of `nodes` nodes; `fewest` is less for an elastic gang."""

    nodes: int
    fewest: int
    whole: bool
    cpus: float
    memory_bytes: int
    gpus: int
    labels: tuple[str, ...]
    spread: bool

    @property
    def of_each(self) -> tuple[Any, ...]:
        """What is asked of each node, however many."""
        return self[2:]

    @classmethod
    def of(cls, spec: Any) -> Need:
        asked = spec.resources
        return cls(
            nodes=_gang.node_count(spec.distribution),
            fewest=_gang.fewest_nodes(spec.distribution),
            whole=not spec.HasField("resources"),
            cpus=asked.cpus,
            memory_bytes=asked.memory_bytes,
            gpus=asked.gpus,
            labels=tuple(spec.labels),
            spread=spec.spread == spec_pb2.SPREAD_SPREAD,
        )
