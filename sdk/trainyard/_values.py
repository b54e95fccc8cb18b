"""What may be logged: names and values as plain JSON, and the shapes in which they are given back. Standard library only."""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trainyard._metric_limits import NAME_CHARACTERS, TEXT_CHARACTERS

# More digits than this Python does not turn into text.
_INT_BITS = 13_000
Scalar = float | int | str | bool | None
_FILES = ("image", "confusion_matrix", "accuracy_table", "residuals", "predictions")
KINDS = ("scalar", "list", "row", "table", *_FILES)


def wrong_name(name: object) -> str:
    """What is wrong with a metric's name, or nothing."""
    if not isinstance(name, str) or not name or len(name) > NAME_CHARACTERS:
        return f"A metric's name is a text of 1 to {NAME_CHARACTERS} characters; {str(name)[:80]!r} is not."
    if name != name.strip() or any(ord(char) < 32 or 0xD800 <= ord(char) < 0xE000 for char in name):
        return f"A metric's name has no space at its ends and no control character; {name!r} has."
    return ""


def plain(value: Any) -> Scalar:
    """A JSON value: numbers of any library stay numbers, bool and None themselves; anything else becomes its repr."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return int(value) if value.bit_length() <= _INT_BITS else text(hex(value))
    if isinstance(value, str):
        return text(value)
    if isinstance(value, bytes | bytearray | complex):
        return text(repr(value))
    found = _number_of(value)
    return text(repr(value)) if found is None else found


def _number_of(value: Any) -> float | int | bool | None:
    """By `.item()`, as NumPy, PyTorch and (after `.numpy()`) TensorFlow have it; else by `float()`."""
    for take in (lambda: value.item(), lambda: value.numpy().item(), lambda: float(value)):
        try:
            found = take()
        except (AttributeError, TypeError, ValueError, OverflowError, NotImplementedError):
            continue
        if isinstance(found, bool | int | float):
            return found
    return None


def text(value: str) -> str:
    """At most 3,000 characters, and none that cannot be written as UTF-8."""
    return value[:TEXT_CHARACTERS].encode("utf-8", "replace").decode()


def table(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {
        str(column): [plain(item) for item in cell]
        if isinstance(cell, Sequence) and not isinstance(cell, str | bytes) or type(cell).__name__ in ("ndarray", "Series")
        else plain(cell)
        for column, cell in columns.items()
    }


def value_of(point: Any) -> Any:
    """What a MetricPoint holds."""
    which = point.WhichOneof("value")
    if which == "number" and point.integer and point.number.is_integer():
        return int(point.number)
    if which != "json":
        return getattr(point, which) if which else None
    try:
        return json.loads(point.json)
    except ValueError:
        return point.json


def shape(run_id: str, points: Iterable[tuple[str, str, Any]]) -> dict[str, Any]:
    """(name, kind, value) in the order logged, as get_metrics gives it: one value -> scalar, several -> list; one row -> dict,
    several -> dict of lists; a file -> its aml:// name. Of two kinds under one name the first stays, with a warning."""
    kinds: dict[str, str] = {}
    values: defaultdict[str, list[Any]] = defaultdict(list)
    for name, kind, value in points:
        if kinds.setdefault(name, kind) != kind:
            warnings.warn(f"Metric {name!r} is a {kinds[name]}; a {kind} of that name is left out.", stacklevel=3)
            continue
        values[name].append(_linked(run_id, value) if kind in _FILES else value)
    return {name: _shaped(kinds[name], found) for name, found in values.items()}


def _linked(run_id: str, value: Any) -> Any:
    if not isinstance(value, str) or value.startswith("aml://"):
        return value
    return f"aml://artifactId/ExperimentRun/dcid.{run_id}/{value}"


def _shaped(kind: str, found: list[Any]) -> Any:
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
