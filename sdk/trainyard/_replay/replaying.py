"""A replay: each sampled call asked again, and what became of its answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from trainyard._errors import WebserviceException
from trainyard._replay import answers
from trainyard._replay.comparing import SAME, Difference, difference
from trainyard._replay.target import Answer, CannotAsk
from trainyard._times import as_utc

_EXAMPLES = 10
_SILENT = 20
_FIRST_ERROR_STATUS = 400


class Asks(Protocol):
    def ask(self, sample: Any) -> Answer:
        """Raises CannotAsk."""
        ...


@dataclass
class Report:
    """Counts of samples; `failed` were answered before and are not now, `skipped` were cut when they were kept. Differences are as
    comparing.Difference has them."""

    same: int = 0
    within_tolerance: int = 0
    differing: int = 0
    failed: int = 0
    skipped: int = 0
    largest: Difference = SAME
    largest_sample: str = ""
    examples: list[dict[str, Any]] = field(default_factory=list)
    """The first few that differ or failed."""

    @property
    def samples(self) -> int:
        """All of them."""
        return self.same + self.within_tolerance + self.differing + self.failed + self.skipped

    @property
    def is_clean(self) -> bool:
        """Whatever could be asked again was answered as before."""
        return not (self.differing or self.failed)

    def as_dict(self) -> dict[str, Any]:
        """Plain values; a difference that is none of two numbers is "inf"."""
        largest = None
        if self.largest.size:
            largest = {"sample": self.largest_sample, **_plain(self.largest)}
        counts = {name: getattr(self, name) for name in ("samples", "same", "within_tolerance", "differing", "failed", "skipped")}
        return {**counts, "largest": largest, "examples": self.examples}


def replay(samples: Iterable[Any], target: Asks, tolerance: float, tell: Callable[[Report], None] = lambda _: None) -> Report:
    """`tolerance`: two numbers are as good as equal where they differ by no more, as a part of the larger one where that is above 1.
    `tell` hears after each sample. Raises WebserviceException where the target has fallen silent."""
    report, silent = Report(), 0
    for sample in samples:
        try:
            _one(sample, target, tolerance, report)
            silent = 0
        except CannotAsk as error:
            report.failed += 1
            silent += 1
            _example(report, sample, "failed", {"why": str(error)[:500]})
            if silent >= _SILENT:
                raise WebserviceException(f"{_SILENT} calls in a row came to nothing: {error}", code="Unavailable") from error
        tell(report)
    return report


def _one(sample: Any, target: Asks, tolerance: float, report: Report) -> None:
    """Raises CannotAsk."""
    if _is_cut(sample.request) or _is_cut(sample.response):
        report.skipped += 1
        return
    answer = target.ask(sample)
    before, after = _went_well(sample, sample.status), _went_well(sample, answer.status)
    if before and not after:
        report.failed += 1
        words = answer.payload.content.decode("utf-8", "replace")[:500]
        _example(report, sample, "failed", {"why": f"it answered {answer.status}: {words}"})
        return
    found = _of_values(sample, answer) if before else _of_statuses(sample.status, answer.status)
    if not found.size:
        report.same += 1
    elif found.size <= tolerance:
        report.within_tolerance += 1
    else:
        report.differing += 1
        _example(report, sample, "differs", _plain(found))
    if found.size > report.largest.size:
        report.largest, report.largest_sample = found, sample.sample_id


def _of_values(sample: Any, answer: Answer) -> Difference:
    try:
        before = answers.values(sample.method, sample.path, sample.response)
    except ValueError as error:
        return Difference(math.inf, "", f"(unreadable: {error})", "")
    try:
        after = answers.values(sample.method, sample.path, answer.payload)
    except ValueError as error:
        return Difference(math.inf, "", "", f"(unreadable: {error})")
    return difference(before, after)


def _of_statuses(before: int, after: int) -> Difference:
    """Of two errors the words do not count: they name versions."""
    return SAME if before == after else Difference(math.inf, "status", str(before), str(after))


def _went_well(sample: Any, status: int) -> bool:
    return status < _FIRST_ERROR_STATUS if sample.path else status == 0


def _is_cut(payload: Any) -> bool:
    return bool(payload.size_bytes > len(payload.content))


def _example(report: Report, sample: Any, outcome: str, what: dict[str, Any]) -> None:
    if len(report.examples) < _EXAMPLES:
        at = as_utc(sample.at).isoformat()
        call = f"{sample.method} {sample.path}".strip()[:200]
        report.examples.append({"sample": sample.sample_id, "at": at, "call": call, "outcome": outcome, **what})


def _plain(found: Difference) -> dict[str, Any]:
    size: Any = "inf" if math.isinf(found.size) else found.size
    return {"difference": size, "where": found.where, "before": found.before, "after": found.after}
