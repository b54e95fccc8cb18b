"""Filling an empty store: the fold of the log up to this service's last word in it, answers to what was left open, the rest live."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import structlog

from services.chassis import dead_letters
from services.chassis.causal_order import in_causal_order
from services.chassis.handler import Handler
from services.chassis.inputs import Inputs
from services.chassis.records import LogReader, NewRecord, Place, Record, in_time_order
from services.chassis.store import Store
from trainyard._cloudevents import Received, Undecodable, UnknownType, decode
from trainyard.event.v1.dead_letter_pb2 import DeadLetter

log = structlog.get_logger()


class Replay:
    """One replay, from the first record on. The store counts as filled once the positions are stored, which comes last; until
    then the next attempt begins anew, so a crash or a log that goes away in the middle leaves nothing half answered.

    An input of which the log has one answer of this service counts as answered. So what a database had not sent is lost with
    it only where the process ended in the middle of sending the answers to one input.
    """

    def __init__(self, name: str, store: Store, handler: Handler, reader: LogReader, inputs: Inputs) -> None:
        self._name = name
        self._store = store
        self._handler = handler
        self._reader = reader
        self._inputs = inputs
        self._open: dict[str, tuple[Record, Received]] = {}

    def run(self, ends: Mapping[Place, int], besides: Mapping[Place, int]) -> int:
        """Blocking. `besides` are read as well and their positions are not kept. Returns the records read. Raises Unavailable."""
        log.info("filling a new store by replay", records=sum(ends.values()))
        ranges = {place: (0, end) for place, end in (*ends.items(), *besides.items())}
        last = self._last_word(ranges)
        refused = self._refused_before()
        letters: list[NewRecord] = []
        while True:
            records = self._records(ranges)
            count = self._fold(records, last, refused) if last else self._begin()
            found = [(record, self._inputs.answer(record, event)) for record, event in self._open.values()]
            if all(letter is None for _, letter in found):
                break
            # Nobody met these before. Their effects are among the others, so the fold begins anew without them.
            letters += [letter for _, letter in found if letter is not None]
            refused |= {(record.place, record.offset) for record, letter in found if letter is not None}
        count += self._go_on(records, refused, besides)
        self._inputs.finish(letters, ends)
        return count

    def _records(self, ranges: Mapping[Place, tuple[int, int]]) -> Iterator[Record]:
        return in_causal_order(in_time_order(self._reader, ranges), self._inputs.source)

    def _last_word(self, ranges: Mapping[Place, tuple[int, int]]) -> tuple[Place, int] | None:
        """Where this service's last event lies; what follows it was never answered, whatever was made of it."""
        own = ("ce_source", self._inputs.source.encode())
        last = None
        for record in self._records(ranges):
            if own in record.headers:
                last = record.place, record.offset
        return last

    def _begin(self) -> int:
        self._store.clear()
        with self._store.reading() as documents:
            self._handler.reset(documents)
        self._open = {}
        return 0

    def _fold(self, records: Iterator[Record], last: tuple[Place, int], refused: set[tuple[Place, int]]) -> int:
        """Leaves what is not answered in `_open`."""
        count = self._begin()
        answers = tuple(self._handler.answers)
        for record in records:
            count += 1
            where = record.place, record.offset
            event = self._inputs.fold(record) if where not in refused else None
            if event is not None and event.source == self._inputs.source:
                self._open.pop(event.causation_id, None)
            elif event is not None and isinstance(event.message, answers):
                self._open[event.event_id] = record, event
            if where == last:
                break
        return count

    def _go_on(self, records: Iterator[Record], refused: set[tuple[Place, int]], besides: Mapping[Place, int]) -> int:
        """As if they came now."""
        count = 0
        for record in records:
            count += 1
            if record.place in besides:
                self._inputs.fold(record)
            elif (record.place, record.offset) not in refused:
                self._inputs.take(record, once=True, advance=False)
        return count

    def _refused_before(self) -> set[tuple[Place, int]]:
        """What this service could not take when it met it: it had no effect then, so it has none now."""
        refused = set()
        ends = self._reader.ends([dead_letters.TOPIC])
        for record in in_time_order(self._reader, {place: (0, end) for place, end in ends.items()}):
            try:
                letter = decode(record.topic, record.partition, record.offset, record.key, record.value, record.headers).message
            except (Undecodable, UnknownType):
                continue
            if isinstance(letter, DeadLetter) and letter.service == self._name:
                refused.add((Place(letter.topic, letter.partition), letter.offset))
        return refused
