"""What a run logged, as history has it, in Azure's shapes.

Of a distributed run each rank logs the same names, and a list that mixes them is of use to nobody: of a name rank 0's values are
given, or, where it never logged it, the lowest rank's that did. A value that a rank logs again under the same step, as after going
back to a checkpoint, is one value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from trainyard._errors import UserErrorException
from trainyard._values import shape, value_of

_LARGEST = 2**31 - 1


def ranks_of(wish: int | str | None) -> list[int] | None:
    """What get_metrics(rank=) asks of history: one rank; [] for all; None for the preferred of each name."""
    if wish is None:
        return None
    if wish == "all":
        return []
    if not isinstance(wish, int) or isinstance(wish, bool) or not 0 <= wish <= _LARGEST:
        raise UserErrorException(f'rank is a number from 0, "all", or None for the preferred one; not {wish!r}.', target="rank")
    return [wish]


def shaped(run_id: str, batches: Sequence[Any]) -> dict[str, Any]:
    """MetricBatches of one attempt by name, in the shapes of `shape`; of each name those of one rank."""
    points = once(preferred(batches))
    return shape(run_id, ((point.name, point.kind, value_of(point)) for point in points))


def by_rank(run_id: str, batches: Sequence[Any]) -> dict[int, dict[str, Any]]:
    """Rank -> what `shaped` makes of its batches; by rank."""
    found: dict[int, list[Any]] = {}
    for batch in batches:
        found.setdefault(batch.rank, []).append(batch)
    return {rank: shaped(run_id, found[rank]) for rank in sorted(found)}


def once(points: Iterable[Any]) -> Iterator[Any]:
    """MetricPoints of one rank, without those that say the same of the same step again. Points without a step all count."""
    seen: set[tuple[Any, ...]] = set()
    for point in points:
        if point.HasField("step"):
            said = (point.name, point.kind, point.step, point.number, point.text, point.json)
            if said in seen:
                continue
            seen.add(said)
        yield point


def preferred(batches: Sequence[Any]) -> Iterator[Any]:
    """The MetricPoints of one attempt's batches that are shown: of each name those of rank 0, or of the lowest rank that logged it."""
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
