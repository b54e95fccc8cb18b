"""What a run logged, as history has it, in Azure's shapes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trainyard._values import shape, value_of


def shaped(run_id: str, points: Iterable[Any]) -> dict[str, Any]:
    """RankedPoints of one attempt by name, in the shapes of `shape`.

    Where several ranks logged a name, rank 0's values are given, or the lowest rank's that logged it: in a distributed run each
    rank logs the same name, and a list that mixes them is of use to nobody.
    """
    found = list(points)
    lowest: dict[str, int] = {}
    for item in found:
        lowest[item.point.name] = min(item.rank, lowest.get(item.point.name, item.rank))
    shown = (item.point for item in found if item.rank == lowest[item.point.name])
    return shape(run_id, ((point.name, point.kind, value_of(point)) for point in shown))
