"""`dataclasses.replace` for what changes thousands of times a second: it makes a run anew field by field, this copies it whole."""

from __future__ import annotations

from typing import Any, TypeVar

T = TypeVar("T")


def replace(value: T, **changes: Any) -> T:
    """For frozen dataclasses without `__post_init__`. What was worked out from a field that never changes stays worked out: `spec`
    does not change. Raises TypeError for what is no field."""
    kind = type(value)
    if not changes.keys() <= kind.__dataclass_fields__.keys() or "spec" in changes:  # type: ignore[attr-defined]
        raise TypeError(f"{kind.__name__} has no field that could change: {', '.join(changes)}")
    made = object.__new__(kind)
    made.__dict__.update(value.__dict__)
    made.__dict__.update(changes)
    return made
