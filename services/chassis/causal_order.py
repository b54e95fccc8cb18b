"""The order in which a replay folds: the broker's time, but no event before its cause, and a service's own events as it told them.

Events that follow from one input go to several topics in one batch, and which of them the broker takes first is chance; after an
outage a part of the batch may come seconds later. Folded in that order, an offer would meet a run that is not known yet.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Iterator

from services.chassis.records import Place, Record


def in_causal_order(records: Iterable[Record], source: str, window_ms: int = 60_000) -> Iterator[Record]:
    """`records` come by broker time, each partition in order; `source` is the teller whose `ce_sequence` counts.

    What should have come earlier is looked for up to `window_ms` ahead. Every record is given once, whatever its headers claim.
    """
    order = _Order(source.encode(), window_ms)
    for record in records:
        order.take(record)
        yield from order.give(until=record.timestamp - window_ms)
    yield from order.give(until=None)


class _Order:
    def __init__(self, source: bytes, window_ms: int) -> None:
        self._source = source
        self._window_ms = window_ms
        self._ahead: deque[Record] = deque()
        """By time; not looked at yet."""
        self._held: dict[Place, deque[Record]] = {}
        """Partitions whose next record waits for one that is still ahead or held."""
        self._left: Counter[bytes] = Counter()
        """Copies of each event that were not given yet."""
        self._given: set[bytes] = set()
        """Events of which a copy was given and another is left."""
        self._own: list[bytes] = []
        """Heap of the teller's sequences; those given already are dropped when they come up."""
        self._own_left: Counter[bytes] = Counter()

    def take(self, record: Record) -> None:
        self._ahead.append(record)
        headers = dict(record.headers)
        self._left[headers.get("ce_id") or b""] += 1
        if sequence := self._sequence(headers):
            heapq.heappush(self._own, sequence)
            self._own_left[sequence] += 1

    def give(self, until: int | None) -> Iterator[Record]:
        """All up to that time; None: all."""
        while self._ahead and (until is None or self._ahead[0].timestamp <= until):
            record = self._ahead.popleft()
            lane = self._held.get(record.place)
            if lane is not None:
                lane.append(record)
            elif self._waits(record):
                self._held[record.place] = deque([record])
            else:
                yield self._release(record)
                yield from self._freed()
        # What still waits has waited for the whole window: its cause is not coming, or claims to follow from it.
        while late := [lane[0] for lane in self._held.values() if until is None or lane[0].timestamp <= until - self._window_ms]:
            yield self._pop(min(late, key=lambda record: record.timestamp).place)
            yield from self._freed()

    def _freed(self) -> Iterator[Record]:
        while free := next((place for place, lane in self._held.items() if not self._waits(lane[0])), None):
            yield self._pop(free)

    def _pop(self, place: Place) -> Record:
        lane = self._held[place]
        record = lane.popleft()
        if not lane:
            del self._held[place]
        return self._release(record)

    def _waits(self, record: Record) -> bool:
        headers = dict(record.headers)
        cause = headers.get("ce_causationid")
        if cause and cause != headers.get("ce_id") and self._left[cause] and cause not in self._given:
            return True
        sequence = self._sequence(headers)
        while self._own and not self._own_left[self._own[0]]:
            heapq.heappop(self._own)
        return bool(sequence) and sequence > self._own[0]

    def _release(self, record: Record) -> Record:
        headers = dict(record.headers)
        name = headers.get("ce_id") or b""
        self._left[name] -= 1
        if self._left[name]:
            self._given.add(name)
        else:
            del self._left[name]
            self._given.discard(name)
        if sequence := self._sequence(headers):
            self._own_left[sequence] -= 1
            if not self._own_left[sequence]:
                del self._own_left[sequence]
        return record

    def _sequence(self, headers: dict[str, bytes | None]) -> bytes:
        return (headers.get("ce_sequence") or b"") if headers.get("ce_source") == self._source else b""
