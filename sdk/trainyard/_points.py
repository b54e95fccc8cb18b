"""What was logged as MetricPoint, for whoever publishes it: an agent for its scripts, a client for its own runs."""

from __future__ import annotations

import json
from typing import Any

from trainyard._values import KINDS, TEXT_LIMIT, wrong_name

POINT_BYTES, BATCH_BYTES = 500_000, 700_000
FIELDS = ("name", "kind", "value", "at", "step", "description")
# Integers beyond this are no doubles.
_EXACT = 2**53


def as_point(item: Any, good: set[str] | None = None) -> Any:
    """A dict with FIELDS as a MetricPoint. `good`: names known to be right, which are not checked again.

    Raises ValueError, TypeError, KeyError or OverflowError for what is no metric.
    """
    from trainyard.job.v1.telemetry_pb2 import MetricPoint

    name, kind, value = item["name"], item["kind"], item["value"]
    if good is None or name not in good:
        trouble = wrong_name(name)
        if trouble:
            raise ValueError(trouble)
        if good is not None and len(good) < 10_000:
            good.add(name)
    if kind not in KINDS:
        raise ValueError(f"kind {str(kind)[:50]!r} is none of {', '.join(KINDS)}")
    point = MetricPoint(name=name, kind=kind)
    point.logged_at.FromNanoseconds(int(float(item["at"]) * 1e9))
    if item.get("step") is not None:
        point.step = int(item["step"])
    if item.get("description"):
        point.description = str(item["description"])[:TEXT_LIMIT]
    _set_value(point, kind, value)
    return point


def _set_value(point: Any, kind: str, value: Any) -> None:
    if type(value) is float:
        point.number = value
    elif isinstance(value, str) and kind not in ("list", "row", "table"):
        point.text = value[:TEXT_LIMIT]
    elif type(value) is int and kind == "scalar" and -_EXACT <= value <= _EXACT:
        point.number = value
    else:
        _check_kind(point.name, kind, value)
        content = json.dumps(value)
        if len(content) > POINT_BYTES:
            raise ValueError(f"{point.name!r} takes {len(content)} bytes as JSON, and {POINT_BYTES} is the most")
        point.json = content


def _check_kind(name: str, kind: str, value: Any) -> None:
    wanted: Any = {"scalar": bool | int | None, "list": list, "row": dict, "table": dict}.get(kind, str)
    if not isinstance(value, wanted):
        raise ValueError(f"{name!r} is no {kind}: its value is a {type(value).__name__}")
