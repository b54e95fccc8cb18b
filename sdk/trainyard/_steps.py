"""What `take`, `skip`, `filter` and `random_split` make of a list of files. Pure; the client and the nodes use the same code."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from trainyard._errors import UserErrorException
from trainyard._ignore import IgnoreRules

MAX_STEPS = 100
_WHOLE = 1 << 64


def apply(files: Sequence[Any], steps: Iterable[Any]) -> list[Any]:
    """The SourceFiles that are left after the Steps, in the order in which they stood."""
    left = list(files)
    for step in steps:
        match step.WhichOneof("what"):
            case "take":
                left = left[: step.take.count]
            case "skip":
                left = left[step.skip.count :]
            case "filter":
                matches = _matches(step.filter)
                left = [file for file in left if matches(file)]
            case "split":
                left = [file for file in left if _is_first(file.path, step.split) != step.split.second]
    return left


def wrong(steps: Sequence[Any]) -> str:
    """What cannot be applied, in words; "" if all can."""
    if len(steps) > MAX_STEPS:
        return f"{len(steps)} transformations are more than {MAX_STEPS}"
    for step in steps:
        kind = step.WhichOneof("what")
        if kind is None:
            return "a transformation is none of take, skip, filter and split"
        if kind == "split" and not (math.isfinite(step.split.percentage) and 0 < step.split.percentage < 1):
            return f"a split's percentage lies between 0 and 1, and {step.split.percentage} does not"
    return ""


def needs_sizes(steps: Iterable[Any]) -> bool:
    """A file whose size is not known cannot go through them."""
    return any(step.HasField("filter") and (step.filter.HasField("min_bytes") or step.filter.HasField("max_bytes")) for step in steps)


def take(count: int) -> Any:
    return _step(take=_message().Take(count=_count(count, "take")))


def skip(count: int) -> Any:
    return _step(skip=_message().Skip(count=_count(count, "skip")))


def filter(pattern: str = "", min_bytes: int | None = None, max_bytes: int | None = None) -> Any:  # noqa: A001
    made = _message().Filter(pattern=pattern)
    if min_bytes is not None:
        made.min_bytes = max(0, min_bytes)
    if max_bytes is not None:
        made.max_bytes = max_bytes
    return _checked(_step(filter=made))


def split(percentage: float, seed: int, *, second: bool) -> Any:
    return _checked(_step(split=_message().Split(percentage=percentage, seed=seed, second=second)))


def told(step: Any) -> str:
    """As a person reads it, e.g. "take(10)"."""
    match step.WhichOneof("what"):
        case "take":
            return f"take({step.take.count})"
        case "skip":
            return f"skip({step.skip.count})"
        case "filter":
            bounds = [f"'{step.filter.pattern}'"] if step.filter.pattern else []
            bounds += [f"Size >= {step.filter.min_bytes}"] if step.filter.HasField("min_bytes") else []
            bounds += [f"Size <= {step.filter.max_bytes}"] if step.filter.HasField("max_bytes") else []
            return f"filter({', '.join(bounds)})"
        case "split":
            part = "the rest" if step.split.second else "the first part"
            return f"random_split({step.split.percentage:g}, seed={step.split.seed}): {part}"
    return "an unknown transformation"


def _is_first(path: str, split: Any) -> bool:
    """By the path alone: adding files moves no other file to the other part."""
    digest = hashlib.sha256(f"{split.seed}\0{path}".encode("utf-8", "surrogatepass")).digest()
    return bool(int.from_bytes(digest[:8], "big") < split.percentage * _WHOLE)


def _matches(condition: Any) -> Callable[[Any], bool]:
    rules = IgnoreRules([condition.pattern]) if condition.pattern else None

    def matches(file: Any) -> bool:
        return bool(
            (rules is None or rules.ignores(file.path))
            and (not condition.HasField("min_bytes") or file.size_bytes >= condition.min_bytes)
            and (not condition.HasField("max_bytes") or file.size_bytes <= condition.max_bytes)
        )

    return matches


def _count(count: object, what: str) -> int:
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count < _WHOLE:
        raise UserErrorException(f"{what} needs a whole number of files, 0 or more; {count!r} is none.", target=what)
    return count


def _checked(step: Any) -> Any:
    if trouble := wrong([step]):
        raise UserErrorException(f"The transformation cannot be applied: {trouble}.", target=step.WhichOneof("what") or "step")
    return step


def _message() -> Any:
    from trainyard.dataset.v1.dataset_pb2 import Step

    return Step


def _step(**what: Any) -> Any:
    return _message()(**what)
