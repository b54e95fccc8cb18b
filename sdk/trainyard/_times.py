"""Times out of messages: a forged one must not keep the list that it stands in from being shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799
"""Of the years 1 and 9999, since 1970: what a Timestamp may say."""


def as_utc(stamp: Any) -> datetime:
    """A Timestamp's time; the first or last second there is for what lies beyond."""
    seconds = min(max(stamp.seconds, FIRST_SECOND), LAST_SECOND)
    nanos = min(max(stamp.nanos, 0), 999_999_999)
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=nanos // 1000)


def order(stamp: Any) -> int:
    """Nanoseconds since 1970, whatever a Timestamp holds; sorts them."""
    return int(stamp.seconds) * 1_000_000_000 + int(stamp.nanos)
