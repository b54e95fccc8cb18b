"""Each record takes effect once: sequence, decode, dedupe, react, apply, store with the offset in one transaction, send after it.

One writer: everything runs under one lock on one asyncio loop. A record that cannot be taken becomes a dead letter in the same
kind of transaction; a store that fails ends the process, because that is no message's fault.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import sqlalchemy.exc
import structlog

from services.chassis.dead_letters import Limit
from services.chassis.handler import Command, Handler
from services.chassis.inputs import Inputs
from services.chassis.records import LogReader, NewRecord, Place, Record, Unavailable, in_time_order
from services.chassis.refusals import Refusals
from services.chassis.replay import Replay
from services.chassis.store import Store, Unsent

log = structlog.get_logger()
_BATCH = 500
# In one transaction. What waits for the service meanwhile waits so much longer.
_TOGETHER = 200
# So many fetches in a row that found something in a partition, and nothing of it from the loop in between: it is dead there.
_FETCHES_ALONE = 10


class LogReplaced(RuntimeError):
    """The log ends before what was read of it: going on would skip new records as repeats of old ones."""


class LoopStalled(RuntimeError):
    """A partition comes by fetching and never by the loop: it goes on, but late for ever; only a new process mends it."""


class Engine:
    """The heart of a service. `owned` are the topics whose unreadable records this service dead-letters."""

    def __init__(
        self,
        name: str,
        store: Store,
        handler: Handler,
        reader: LogReader,
        *,
        topics: Iterable[str],
        owned: Iterable[str] = (),
        ephemeral: Iterable[str] = (),
        replayed: Iterable[str] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        limit: Limit | None = None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """`timer` gives seconds that only grow."""
        self.name = name
        self.counts: Counter[str] = Counter()
        self.revision = 0
        self._store = store
        self._handler = handler
        self._reader = reader
        self._ephemeral = frozenset(ephemeral)
        self._replayed = list(replayed)
        self._durable = [topic for topic in topics if topic not in self._ephemeral]
        self._inputs = Inputs(name, store, handler, owned=owned, clock=clock, limit=limit or Limit(), counts=self.counts, timer=timer)
        self._lock = asyncio.Lock()
        self._next: dict[Place, int] = dict(store.positions())
        self._changed = asyncio.Condition()
        self._unsent = asyncio.Event()
        self._sending: list[Unsent] = []
        self._sent_through = 0
        self._told_of = 0
        self._fetched_alone: Counter[Place] = Counter()
        self._fatal: asyncio.Future[None] | None = None
        self.filled = asyncio.Event()
        """Its store is no new one any more: what lies in the outbox is to be sent."""

    # -- what others look at

    @property
    def refusals(self) -> Refusals:
        return self._inputs.refusals

    @property
    def positions(self) -> Mapping[Place, int]:
        """The next offset wanted of each partition; safe to read from any thread."""
        return self._next

    @property
    def durable_topics(self) -> list[str]:
        return list(self._durable)

    async def failed(self) -> None:
        """Waits for ever, or raises what the engine died of."""
        self._fatal = self._fatal or asyncio.get_running_loop().create_future()
        await asyncio.shield(self._fatal)

    async def until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """True as soon as the condition holds; looked at after every change. False when the time is up."""
        try:
            # Not asyncio.wait_for: up to Python 3.11 it swallows a cancellation that meets a change, and a stop would hang.
            async with asyncio.timeout(timeout):
                async with self._changed:
                    await self._changed.wait_for(condition)
        except TimeoutError:
            return False
        return True

    async def applied(self, place: Place, offset: int, timeout: float) -> bool:
        """Waits until the record at that offset has taken effect: read your writes."""
        return await self.until(lambda: self._next.get(place, 0) > offset, timeout)

    # -- inputs

    async def deliver(self, *records: Record) -> None:
        """What the loop calls, with what has come since it last did. Raises only what must end the process."""
        async with self._lock:
            with self._fatal_errors():
                for start in range(0, len(records), _TOGETHER):
                    if start:
                        await asyncio.sleep(0)
                    await self._in_sequence(records[start : start + _TOGETHER])
                    await self.wake()

    async def command(self, command: Command) -> None:
        """Raises what the handler raises, and then nothing has happened: whoever gave the command decides what that means."""
        async with self._lock:
            try:
                self._inputs.command(command)
            except sqlalchemy.exc.SQLAlchemyError as error:
                self._die(error)
                raise
        await self.wake()

    async def catch_up(self) -> int:
        """Reads from where the store stands to the end of every topic; a new store is filled by replay.

        Returns how many records it read. Raises Unavailable, after which it may be called again, and LogReplaced.
        """
        async with self._lock:
            with self._fatal_errors():
                with self._store.reading() as documents:
                    self._handler.reset(documents)
                ends = await asyncio.to_thread(self._reader.ends, self._durable)
                for place, end in ends.items():
                    if end < self._next.get(place, 0):
                        raise LogReplaced(
                            f"{place.topic}/{place.partition} ends at {end}, and {self._next[place]} records of it were read: the log was "
                            f"replaced or cut. If this log is the right one, remove the database of {self.name}: it is filled anew."
                        )
                is_new = not self._next and any(ends.values())
                if is_new:
                    count = await self._replay(ends)
                    self.filled.set()
                else:
                    self.filled.set()
                    self._store.returns({place: end for place, end in ends.items() if self._next.get(place, 0) < end})
                    count = await self._fetch(ends)
        await self.wake()
        return count

    async def fetch_missing(self) -> int:
        """What the loop should have delivered and did not. Returns the count; raises Unavailable and LoopStalled."""
        # Asked for outside of the lock: a log that is away answers late, and workers' commands need not wait for it.
        ends = await asyncio.to_thread(self._reader.ends, self._durable)
        async with self._lock:
            with self._fatal_errors():
                behind = [place for place, end in ends.items() if self._next.get(place, 0) < end]
                count = await self._fetch(ends)
                self._fetched_alone.update(behind if count else ())
                for place, times in self._fetched_alone.items():
                    if times > _FETCHES_ALONE:
                        what = f"the loop has delivered nothing of {place.topic}/{place.partition}"
                        raise LoopStalled(f"{what} while its records were fetched {_FETCHES_ALONE} times")
        if count:
            self.counts["fetched_by_itself"] += count
            log.warning("fetched what the loop skipped", records=count)
            await self.wake()
        return count

    # -- the sequencer: the next record is the last plus one

    async def _in_sequence(self, records: Sequence[Record]) -> None:
        ready: list[Record] = []
        nexts: dict[Place, int] = {}
        for record in records:
            self._fetched_alone.pop(record.place, None)
            if record.topic not in self._ephemeral:
                wanted = nexts.get(record.place, self._next.get(record.place, 0))
                if record.offset < wanted:
                    self.counts["repeated_records"] += 1
                    continue
                if record.offset > wanted:
                    await self._take(ready)
                    ready, nexts = [], {}
                    if not await self._fill_gap(record, wanted):
                        continue
                nexts[record.place] = record.offset + 1
            ready.append(record)
        await self._take(ready)

    async def _fill_gap(self, record: Record, wanted: int) -> bool:
        """Takes what lies between the position and the record. False where it cannot be had."""
        self.counts["gaps"] += 1
        log.warning("gap in a partition, fetching it", place=str(record), wanted=wanted)
        try:
            await self._fetch({record.place: record.offset})
        except Unavailable as error:
            # The position stays before the gap, so the next record or the progress guard fetches it, this record included.
            self.counts["gaps_left"] += 1
            log.warning("the gap stays for now", place=str(record), reason=str(error))
            return False
        return True

    async def _take(self, records: Sequence[Record]) -> None:
        """As few transactions as may be, or one each where a handler fails on one of them. In between others have their turn: nothing
        else here waits for anything, and a delivery would keep calls and the outbox waiting to its end."""
        while records:
            marked = [(record, record.topic not in self._ephemeral) for record in records]
            taken = self._inputs.take_together(marked) if len(records) > 1 else 0
            self._advance(records[:taken])
            for at, (record, durable) in enumerate(() if taken else marked):
                if at:
                    await asyncio.sleep(0)
                self._inputs.take(record, once=durable, advance=durable)
                self._advance([record])
            records = records[taken:] if taken else ()
            if records:
                await asyncio.sleep(0)

    def _advance(self, records: Sequence[Record]) -> None:
        self._next |= {record.place: record.offset + 1 for record in records if record.topic not in self._ephemeral}

    async def _fetch(self, ends: Mapping[Place, int]) -> int:
        """Takes what lies between the positions and the ends, in the order in which the broker took it."""
        ranges = {place: (self._next.get(place, 0), end) for place, end in ends.items() if self._next.get(place, 0) < end}
        records = in_time_order(self._reader, ranges)
        count = 0
        try:
            while batch := await asyncio.to_thread(_first, records, _BATCH):
                for start in range(0, len(batch), _TOGETHER):
                    await asyncio.sleep(0)
                    await self._take(batch[start : start + _TOGETHER])
                count += len(batch)
        except Unavailable:
            if count:
                await self.wake()
            raise
        for place, (_, end) in ranges.items():
            if self._next.get(place, 0) < end:
                self._pass_by(place, end)
        return count

    def _pass_by(self, place: Place, end: int) -> None:
        """Retention has passed here; on topics that are kept for ever this means that somebody deleted records."""
        log.error("records are gone from the log", topic=place.topic, partition=place.partition, wanted=self._next.get(place, 0), end=end)
        with self._store.transaction() as transaction:
            transaction.advance(place, end)
        self._next[place] = end

    async def _replay(self, ends: Mapping[Place, int]) -> int:
        besides = await asyncio.to_thread(self._reader.ends, self._replayed)
        replay = Replay(self.name, self._store, self._handler, self._reader, self._inputs)
        count = await asyncio.to_thread(replay.run, ends, besides)
        self._next.update(ends)
        return count

    # -- the outbox

    def unsent(self, limit: int = 500) -> list[NewRecord]:
        """The next records to send, in order. `sent()` forgets them."""
        self._sending = self._store.unsent(limit)
        return [row.record for row in self._sending]

    def sent(self, places: Iterable[tuple[Place, int]] = ()) -> None:
        """`places` is where they came to lie, in order."""
        self._store.sent(self._sending, {place: offset for place, offset in places if place.topic in self._durable})
        if self._sending:
            self._sent_through = self._sending[-1].id

    async def told(self, timeout: float) -> bool:
        """Waits until what lies in the outbox now lies in the log; what is added meanwhile is not waited for."""
        last = self._store.newest_unsent()
        return await self.until(lambda: self._sent_through >= last, timeout)

    async def wait_for_unsent(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._unsent.wait()
        except TimeoutError:
            pass
        self._unsent.clear()

    # -- small things

    async def wake(self) -> None:
        """Whoever waits for something looks again."""
        self.revision += 1
        if self.counts["emitted"] != self._told_of:
            self._told_of = self.counts["emitted"]
            self._unsent.set()
        async with self._changed:
            self._changed.notify_all()

    @contextmanager
    def _fatal_errors(self) -> Iterator[None]:
        try:
            yield
        except Unavailable:
            raise
        except Exception as error:
            self._die(error)
            raise

    def _die(self, error: Exception) -> None:
        log.error("the engine stops", error=f"{type(error).__name__}: {error}")
        self._fatal = self._fatal or asyncio.get_running_loop().create_future()
        if not self._fatal.done():
            self._fatal.set_exception(error)
            # It is told above; asyncio need not tell it again where nobody waits for it.
            self._fatal.exception()


def _first(records: Iterator[Record], count: int) -> list[Record]:
    return list(itertools.islice(records, count))
