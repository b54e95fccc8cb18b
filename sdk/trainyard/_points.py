"""What was logged as MetricPoint, for whoever publishes it: an agent for its scripts, a client for its own runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from trainyard._metric_limits import COLUMNS, NAME_CHARACTERS, POINT_BYTES, TEXT_CHARACTERS
from trainyard._values import KINDS, wrong_name

FIELDS = ("name", "kind", "value", "at", "step", "description")
# Integers beyond this are no doubles.
_EXACT = 2**53
# The last second of the year 9999.
_LATEST = 253_402_300_799


def as_point(item: Any) -> Any:
    """A dict with FIELDS as a MetricPoint. Raises ValueError, TypeError or OverflowError for what is no metric."""
    from trainyard.job.v1.telemetry_pb2 import MetricPoint

    return MetricPoint(**checked([item.get(field) for field in FIELDS])[0])


def checked(row: Sequence[Any], good: set[str] | None = None) -> tuple[dict[str, Any], int]:
    """(what a MetricPoint is made of, about how many bytes it takes) of the values of FIELDS. A batch is made of many such dicts
    at once, which is several times cheaper than message by message. `good`: names known to be right, which are not checked again.

    Raises ValueError, TypeError or OverflowError for what is no metric.
    """
    name, kind, value, at, step, description = row
    if good is None or name not in good:
        trouble = wrong_name(name)
        if trouble:
            raise ValueError(trouble)
        if good is not None and len(good) < 10_000:
            good.add(name)
    seconds = int(at)
    if not 0 <= seconds <= _LATEST:
        raise ValueError(f"{name!r} was logged at {at!r}, which is no time")
    fields = {"name": name, "kind": kind, "logged_at": {"seconds": seconds, "nanos": int((at - seconds) * 1e9)}}
    weight = 60 + len(name) * 4
    if type(value) is float and kind == "scalar":
        fields["number"] = value
    elif type(value) is int and kind == "scalar" and -_EXACT <= value <= _EXACT:
        fields |= {"number": float(value), "integer": True}
    else:
        if kind not in KINDS:
            raise ValueError(f"kind {str(kind)[:50]!r} is none of {', '.join(KINDS)}")
        field, content = _content(name, kind, value)
        fields[field] = content
        weight += len(content.encode()) if isinstance(content, str) else 0
    if step is not None:
        fields["step"] = step = int(step)
        if not -(2**63) <= step < 2**63:
            raise ValueError(f"{name!r}: the step {step} is none")
    if description:
        fields["description"] = text = str(description)[:TEXT_CHARACTERS]
        weight += len(text.encode())
    return fields, weight


def _content(name: str, kind: str, value: Any) -> tuple[str, Any]:
    """The member of the oneof, and its value."""
    if isinstance(value, str) and kind not in ("list", "row", "table"):
        return "text", value[:TEXT_CHARACTERS]
    _check_kind(name, kind, value)
    content = json.dumps(value)
    if len(content) > POINT_BYTES:
        raise ValueError(f"{name!r} takes {len(content)} bytes as JSON, and {POINT_BYTES} is the most")
    return "json", content


def _check_kind(name: str, kind: str, value: Any) -> None:
    wanted: Any = {"scalar": bool | int | None, "list": list, "row": dict, "table": dict}.get(kind, str)
    if not isinstance(value, wanted):
        raise ValueError(f"{name!r} is no {kind}: its value is a {type(value).__name__}")
    if isinstance(value, dict):
        if len(value) > COLUMNS:
            raise ValueError(f"{name!r} has {len(value)} columns, and {COLUMNS} are the most")
        if long := next((column for column in value if len(str(column)) > NAME_CHARACTERS), None):
            raise ValueError(f"{name!r} has a column {str(long)[:80]!r}..., whose name has more than {NAME_CHARACTERS} characters")
