"""Protobuf's times and spans, whatever was put into them: its own conversions raise on what no calendar has."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp


def seconds(span: Any) -> float:
    return float(span.seconds + span.nanos / 1e9)


def when(stamp: Any, at: datetime) -> datetime:
    """The time that a fact names, or `at`, that of its event."""
    try:
        named: datetime = stamp.ToDatetime(at.tzinfo)
    except (ValueError, OverflowError):
        return at
    return named


def stamp(at: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(at)
    return made
