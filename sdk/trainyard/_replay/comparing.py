"""How far two answers are apart: numbers by their distance, all else exactly. NaN equals NaN."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_SHOWN = 80


@dataclass(frozen=True)
class Difference:
    """`size`: of two numbers their distance, as a part of the larger one where that is above 1; infinite where they are no two numbers, or
    lists of two lengths. `where`: e.g. predictions[0][3]."""

    size: float
    where: str = ""
    before: str = ""
    after: str = ""


SAME = Difference(0.0)


def difference(before: Any, after: Any) -> Difference:
    """The largest one, the first of them where several are as large."""
    largest = SAME
    for size, where, one, other in _differences(before, after):
        if size > largest.size:
            largest = Difference(size, where, _told(one), _told(other))
            if math.isinf(size):
                break
    return largest


def _differences(before: Any, after: Any) -> Iterator[tuple[float, str, Any, Any]]:
    """Without recursion: how deep an answer is nested is its sender's choice."""
    waiting: list[tuple[str, Any, Any]] = [("", before, after)]
    while waiting:
        where, one, other = waiting.pop()
        if isinstance(one, dict) and isinstance(other, dict):
            if one.keys() != other.keys():
                odd = sorted(map(str, one.keys() ^ other.keys()))
                yield math.inf, f"{where}.{odd[0]}".lstrip("."), one.get(odd[0], "(absent)"), other.get(odd[0], "(absent)")
                return
            waiting += [(f"{where}.{key}".lstrip("."), one[key], other[key]) for key in reversed(one)]
        elif isinstance(one, list) and isinstance(other, list):
            if len(one) != len(other):
                yield math.inf, where, f"{len(one)} elements", f"{len(other)} elements"
                return
            waiting += [
                (f"{where}[{place}]", *pair)
                for place, pair in reversed(list(enumerate(zip(one, other, strict=True))))
                if pair[0] is not pair[1]
            ]
        elif size := _apart(one, other):
            yield size, where, one, other


def _apart(one: Any, other: Any) -> float:
    if not (_is_number(one) and _is_number(other)):
        return 0.0 if type(one) is type(other) and one == other else math.inf
    if one == other or (one != one and other != other):
        return 0.0
    try:
        apart = float(abs(one - other)) / max(1.0, abs(one), abs(other))
    except OverflowError:
        return math.inf
    return apart if apart == apart else math.inf


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _told(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
