"""What a run logged, as history has it, in Azure's shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from trainyard._values import shape, value_of


def shaped(run_id: str, batches: Sequence[Any]) -> dict[str, Any]:
    """MetricBatches of one attempt by name, in the shapes of `shape`.

    Where several ranks logged a name, rank 0's values are given, or the lowest rank's that logged it: in a distributed run each
    rank logs the same name, and a list that mixes them is of use to nobody.
    """
    return shape(run_id, ((point.name, point.kind, value_of(point)) for point in _of_lowest_ranks(batches)))


def _of_lowest_ranks(batches: Sequence[Any]) -> Iterator[Any]:
    if len({batch.rank for batch in batches}) <= 1:
        for batch in batches:
            yield from batch.points
        return
    lowest: dict[str, int] = {}
    for batch in batches:
        for name in {point.name for point in batch.points}:
            lowest[name] = min(batch.rank, lowest.get(name, batch.rank))
    for batch in batches:
        yield from (point for point in batch.points if batch.rank == lowest[point.name])
