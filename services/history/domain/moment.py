"""A moment of the log, and facts as they lie there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.message import Message


class Spot(NamedTuple):
    """Where and when a record lies; earlier spots sort first."""

    at: int
    """The broker's time stamp, milliseconds since 1970."""
    topic: str
    partition: int
    offset: int


class Fact(NamedTuple):
    spot: Spot
    event_id: str
    message: Message


@dataclass(frozen=True)
class Moment:
    """All up to `at` in milliseconds; of the partition of `last`, where one is named, all up to that record."""

    at: int
    last: Spot | None = None

    def includes(self, spot: Spot) -> bool:
        last = self.last
        if last is not None and (spot.topic, spot.partition) == (last.topic, last.partition):
            return spot.offset <= last.offset
        return spot.at <= self.at


def in_order(facts: Iterable[Fact]) -> Iterator[Fact]:
    """By time, but within a partition as they lie there, and each event once: the same order whatever order they come in."""
    latest: dict[tuple[str, int], int] = {}
    placed: list[tuple[Spot, Fact]] = []
    for fact in sorted(facts, key=lambda fact: fact.spot[1:]):
        spot = fact.spot
        # A broker whose clock was set back must not turn its partition around.
        at = latest[spot.topic, spot.partition] = max(spot.at, latest.get((spot.topic, spot.partition), spot.at))
        placed.append((spot._replace(at=at), fact))
    seen: set[str] = set()
    for _, fact in sorted(placed, key=lambda item: item[0]):
        if fact.event_id not in seen:
            seen.add(fact.event_id)
            yield fact
