"""What a run logged, in Azure's shapes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from typing import Any


def fold(batches: Iterable[Any]) -> dict[str, Any]:
    """Of the newest epoch only: one value -> scalar, several -> list; rows -> dict (of lists); the first kind under a name stays."""
    batches = list(batches)
    newest = max((batch.epoch for batch in batches), default=0)
    kinds: dict[str, str] = {}
    values: dict[str, list[Any]] = {}
    for batch in batches:
        if batch.epoch != newest:
            continue
        for point in batch.points:
            if kinds.setdefault(point.name, point.kind) != point.kind:
                warnings.warn(f"Metric {point.name!r} is a {kinds[point.name]}; a {point.kind} of that name is left out.", stacklevel=2)
                continue
            values.setdefault(point.name, []).append(_value(point))
    return {name: _shape(kinds[name], found) for name, found in values.items()}


def _value(point: Any) -> Any:
    which = point.WhichOneof("value")
    if which == "json":
        try:
            return json.loads(point.json)
        except ValueError:
            return point.json
    return getattr(point, which) if which else None


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
