"""What a run logged, in Azure's shapes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from typing import Any

_FILES = ("image", "confusion_matrix", "accuracy_table", "residuals", "predictions")


def shaped(run_id: str, points: Iterable[Any]) -> dict[str, Any]:
    """RankedPoints of one attempt by name: one value -> scalar, several -> list; rows -> dict (of lists); files -> their aml:// name.

    Where several ranks logged a name, rank 0's values are given, or the lowest rank's that logged it: in a distributed run each
    rank logs the same name, and a list that mixes them is of use to nobody. The first kind under a name stays.
    """
    by_name: dict[str, dict[int, list[Any]]] = {}
    for item in points:
        by_name.setdefault(item.point.name, {}).setdefault(item.rank, []).append(item.point)
    return {name: _of_one(run_id, name, ranks[min(ranks)]) for name, ranks in by_name.items()}


def _of_one(run_id: str, name: str, points: list[Any]) -> Any:
    kind = points[0].kind
    other = next((point.kind for point in points if point.kind != kind), None)
    if other is not None:
        warnings.warn(f"Metric {name!r} is a {kind}; a {other} of that name is left out.", stacklevel=4)
    return _shape(kind, [_value(run_id, point) for point in points if point.kind == kind])


def _value(run_id: str, point: Any) -> Any:
    which = point.WhichOneof("value")
    if which == "json":
        try:
            value = json.loads(point.json)
        except ValueError:
            value = point.json
    else:
        value = getattr(point, which) if which else None
    if point.kind in _FILES and isinstance(value, str) and not value.startswith("aml://"):
        return f"aml://artifactId/ExperimentRun/dcid.{run_id}/{value}"
    return value


def _shape(kind: str, found: list[Any]) -> Any:
    if kind == "list":
        joined = [item for value in found for item in (value if isinstance(value, list) else [value])]
        return joined[0] if len(joined) == 1 and len(found) == 1 else joined
    if kind in ("row", "table") and len(found) > 1 and all(isinstance(value, dict) for value in found):
        columns: dict[str, list[Any]] = {}
        for row in found:
            for name, value in row.items():
                columns.setdefault(name, []).extend(value if kind == "table" and isinstance(value, list) else [value])
        return columns
    return found[0] if len(found) == 1 else found
