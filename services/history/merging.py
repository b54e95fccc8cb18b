"""Records of many partitions in the order of their time stamps, as they arrive."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from services.chassis.records import Place


class TimeMerge:
    """Gives a record once no partition can bring an earlier one; what comes after the ends is given as it comes."""

    def __init__(self, open_places: Iterable[Place]) -> None:
        """`open_places`: partitions from which more is known to come."""
        self._open = set(open_places)
        self._held: dict[Place, deque[Any]] = {}

    def add(self, raws: Iterable[Any]) -> None:
        """Of one partition, in its order."""
        for raw in raws:
            self._held.setdefault(Place(raw.topic, raw.partition), deque()).append(raw)

    def at_end(self, place: Place) -> None:
        """All that it had at the beginning was added."""
        self._open.discard(place)

    def waiting(self, place: Place) -> int:
        """Records of it that are held."""
        return len(self._held.get(place, ()))

    def ready(self) -> Iterator[Any]:
        heads = [(lane[0].timestamp, place) for place, lane in self._held.items()]
        heapq.heapify(heads)
        missing = sum(1 for place in self._open if place not in self._held)
        while heads and not missing:
            _, place = heapq.heappop(heads)
            lane = self._held[place]
            yield lane.popleft()
            if lane:
                heapq.heappush(heads, (lane[0].timestamp, place))
            else:
                del self._held[place]
                missing += place in self._open
