"""What requests ask, checked: moments, pages, sizes."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sized
from typing import Any

from services.chassis.choices import told
from services.chassis.grpc_server import Code, Refused, refuse
from services.chassis.records import Place
from services.chassis.topics import topics
from services.history.domain.moment import Moment, Spot
from trainyard.history.v1.history_pb2 import AsOf

# A client that takes no more than gRPC's default of 4 MiB must get every page.
PAGE_BYTES = 3 << 20
_TOKEN = 16 << 10
# A run has 50 labels of a kind; beyond these a database's statement would be too large.
LABELS, NUMBERS, TEXT = 50, 1000, 1000


def wrong(what: str, target: str) -> Refused:
    return refuse(Code.INVALID_ARGUMENT, "UserError", what, target)


def time_of(as_of: AsOf) -> int:
    """Milliseconds since 1970. Refuses the future, and what no clock has ever shown."""
    stamp = as_of.time
    if not 0 <= stamp.seconds < 1 << 36 or not 0 <= stamp.nanos < 1_000_000_000:
        raise wrong(f"as_of.time {stamp.seconds} s is no time.", "as_of.time")
    asked = int(stamp.seconds * 1000 + stamp.nanos // 1_000_000)
    now = int(time.time() * 1000)
    if asked > now:
        raise wrong(f"as_of.time lies {(asked - now) / 1000:.3f} s in the future. Leave as_of out for what is now.", "as_of.time")
    return asked


def place_of(as_of: AsOf) -> tuple[Place, int]:
    """The partition and offset named. Refuses what cannot be."""
    named = as_of.place
    known = topics()
    if named.topic not in known:
        raise wrong(f"There is no topic {named.topic[:200]!r}; there is: {told([], known)}.", "as_of.place.topic")
    if not 0 <= named.partition < known[named.topic].partitions or named.offset < 0:
        what = (
            f"{named.topic} has partitions 0 to {known[named.topic].partitions - 1}, offsets from 0; not {named.partition}@{named.offset}."
        )
        raise wrong(what, "as_of.place")
    return Place(named.topic, named.partition), int(named.offset)


def no_such_record(place: Place, offset: int, end: int) -> Refused:
    what = f"There is no record {place.topic}/{place.partition}@{offset}: the partition ends at {end}, or the record is older than the topic keeps."
    return wrong(what, "as_of.place")


def moment_of(spot: Spot) -> Moment:
    return Moment(spot.at, spot)


def page_size(asked: int, default: int, most: int) -> int:
    if asked > most:
        raise wrong(f"page_size is {most} at most, not {asked}.", "page_size")
    return asked or default


def no_more(asked: Sized, most: int, target: str) -> None:
    """Refuses a wish that is longer than any that makes sense."""
    if len(asked) > most:
        raise wrong(f"{target} takes {most} at most, not {len(asked)}.", target)


def token(*parts: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def read_token(text: str, *kinds: type) -> list[Any] | None:
    """The parts that `token` was given; None for the first page."""
    if not text:
        return None
    try:
        parts = json.loads(base64.urlsafe_b64decode(text[:_TOKEN].encode()))
        # Half a pair of surrogates is no text that a database takes.
        json.dumps(parts, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        parts = None
    if not isinstance(parts, list) or len(parts) != len(kinds) or not all(type(it) is kind for it, kind in zip(parts, kinds, strict=True)):
        raise wrong("page_token is none that this call gave.", "page_token")
    if any(isinstance(it, int) and abs(it) >= 1 << 63 for it in parts):
        raise wrong("page_token is none that this call gave.", "page_token")
    return parts
