"""Each record takes effect once: sequence, decode, dedupe, react, apply, store with the offset in one transaction, send after it.

One writer: everything runs under one lock on one asyncio loop. A record that cannot be taken becomes a dead letter in the same
kind of transaction; a store that fails ends the process, because that is no message's fault.
"""

from __future__ import annotations

import asyncio
import heapq
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime

import sqlalchemy.exc
import structlog

from services.chassis.dead_letters import Limit, as_letter
from services.chassis.handler import Command, Emit, Handler, InvalidMessage
from services.chassis.logs import about
from services.chassis.records import LogReader, NewRecord, Place, Record
from services.chassis.store import Store, Transaction
from trainyard._cloudevents import Outgoing, Received, Undecodable, UnknownType, decode, derived_id

log = structlog.get_logger()


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
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        limit: Limit | None = None,
    ) -> None:
        self.name = name
        self.counts: Counter[str] = Counter()
        self.revision = 0
        self._store = store
        self._handler = handler
        self._reader = reader
        self._ephemeral = frozenset(ephemeral)
        self._durable = [topic for topic in topics if topic not in self._ephemeral]
        self._owned = frozenset(owned)
        self._clock = clock
        self._limit = limit or Limit()
        self._lock = asyncio.Lock()
        self._next: dict[Place, int] = dict(store.positions())
        self._is_new = not self._next
        self._changed = asyncio.Condition()
        self._unsent = asyncio.Event()
        self._fatal: asyncio.Future[None] | None = None

    # -- what others look at

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

        async def wait() -> None:
            async with self._changed:
                await self._changed.wait_for(condition)

        try:
            await asyncio.wait_for(wait(), timeout)
        except TimeoutError:
            return False
        return True

    async def applied(self, place: Place, offset: int, timeout: float) -> bool:
        """Waits until the record at that offset has taken effect: read your writes."""
        return await self.until(lambda: self._next.get(place, 0) > offset, timeout)

    # -- inputs

    async def deliver(self, record: Record) -> None:
        """What the loop calls. Raises only what must end the process."""
        async with self._lock:
            try:
                if record.topic in self._ephemeral:
                    self._take(record, advance=False)
                else:
                    await self._in_sequence(record)
            except Exception as error:
                self._die(error)
                raise
        await self._tell()

    async def command(self, command: Command) -> None:
        async with self._lock:
            try:
                with self._transaction() as transaction:
                    emits = self._handler.command(command, transaction.documents)
                    self._emit(transaction, emits, command.cause_id, command.correlation_id, "")
            except Exception as error:
                self._die(error)
                raise
        await self._tell()

    async def catch_up(self) -> int:
        """Reads from where the store stands to the end of every topic; a new store is filled by replay.

        Returns how many records it read. Raises Unavailable, after which it may be called again.
        """
        async with self._lock:
            with self._store.reading() as documents:
                self._handler.reset(documents)
            ends = await asyncio.to_thread(self._reader.ends, self._durable)
            count = await (self._replay(ends) if self._is_new and any(ends.values()) else self._fetch_all(ends))
            self._is_new = False
        await self._tell()
        return count

    async def fetch_missing(self) -> int:
        """What the loop should have delivered and did not. Returns the count; raises Unavailable."""
        async with self._lock:
            count = await self._fetch_all(await asyncio.to_thread(self._reader.ends, self._durable))
        if count:
            self.counts["fetched_by_itself"] += count
            log.warning("fetched what the loop skipped", records=count)
            await self._tell()
        return count

    # -- the sequencer: the next record is the last plus one

    async def _in_sequence(self, record: Record) -> None:
        wanted = self._next.get(record.place, 0)
        if record.offset < wanted:
            self.counts["repeated_records"] += 1
            return
        if record.offset > wanted:
            self.counts["gaps"] += 1
            log.warning("gap in a partition, fetching it", place=str(record), wanted=wanted)
            await self._fetch(record.place, record.offset)
        self._take(record, advance=True)

    async def _fetch_all(self, ends: Mapping[Place, int]) -> int:
        return sum([await self._fetch(place, end) for place, end in sorted(ends.items())])

    async def _fetch(self, place: Place, end: int) -> int:
        start = self._next.get(place, 0)
        if start >= end:
            return 0
        records = await asyncio.to_thread(lambda: list(self._reader.read(place, start, end)))
        for record in records:
            self._take(record, advance=True)
        if self._next.get(place, 0) < end:
            # Retention has passed here; on topics that are kept for ever this means that somebody deleted records.
            log.error(
                "records are gone from the log", topic=place.topic, partition=place.partition, wanted=self._next.get(place, 0), end=end
            )
            self._next[place] = end
        return len(records)

    # -- one record

    def _take(self, record: Record, *, advance: bool) -> None:
        """`advance` stores the offset with the effect and refuses to repeat an event; ephemeral topics do neither."""
        self.counts["records"] += 1
        try:
            event = decode(record.topic, record.partition, record.offset, record.key, record.value, record.headers)
            with self._transaction() as transaction:
                if not advance or not transaction.was_seen(event.event_id):
                    self._handle(transaction, event, remember=advance)
                else:
                    self.counts["repeated_events"] += 1
                if advance:
                    transaction.advance(record.place, record.offset + 1)
            self._limit.good()
        except UnknownType as error:
            self.counts["unknown_types"] += 1
            log.info("ignored an event of an unknown type", place=str(record), error=str(error))
            self._pass_over(record, advance, None)
        except Undecodable as error:
            # Every reader of the topic meets it; its owner keeps it.
            self._limit.unreadable()
            self._refuse(record, advance, f"Undecodable: {error}", "", keep=record.topic in self._owned)
        except InvalidMessage as error:
            self._refuse(record, advance, f"InvalidMessage: {error}", "")
        except sqlalchemy.exc.SQLAlchemyError:
            raise
        except Exception as error:
            log.exception("a handler failed", place=str(record))
            self._limit.handler_failed()
            self._refuse(record, advance, f"{type(error).__name__}: {error}", traceback.format_exc())
        if advance:
            self._next[record.place] = record.offset + 1

    def _handle(self, transaction: Transaction, event: Received, *, remember: bool) -> None:
        if remember:
            transaction.mark_seen(event.event_id)
        with about(event=event.type.rpartition(".")[2], key=event.key, correlation=event.correlation_id or event.key):
            emits = list(self._handler.react(event, transaction.documents))
            self._handler.apply(event, transaction.documents)
            self._emit(transaction, emits, event.event_id, event.correlation_id or event.key, event.traceparent)

    def _emit(self, transaction: Transaction, emits: Iterable[Emit], cause_id: str, correlation_id: str, traceparent: str) -> None:
        ordinals: Counter[str] = Counter()
        records = []
        for emit in list(emits):
            kind = emit.message.DESCRIPTOR.full_name
            event_id = derived_id(cause_id, kind, ordinals[kind]) if cause_id else str(uuid.uuid4())
            ordinals[kind] += 1
            outgoing = Outgoing(
                topic=emit.topic,
                key=emit.key,
                message=emit.message,
                event_id=event_id,
                source=f"trainyard/{self.name}",
                time=self._clock(),
                causation_id=cause_id,
                correlation_id=emit.correlation_id or correlation_id,
                traceparent=traceparent,
            )
            self._handler.apply(_as_received(outgoing), transaction.documents)
            transaction.mark_seen(event_id)
            records.append(NewRecord(emit.topic, emit.key.encode(), outgoing.value(), tuple(outgoing.headers())))
        if records:
            transaction.send(records)
            self._unsent.set()

    # -- what cannot be taken

    def _refuse(self, record: Record, advance: bool, error: str, stack: str, *, keep: bool = True) -> None:
        self.counts["refused"] += 1
        log.warning("cannot be taken", place=str(record), error=error, dead_letter=keep)
        self._pass_over(record, advance, as_letter(record, self.name, error, stack, self._clock()) if keep else None)

    def _pass_over(self, record: Record, advance: bool, letter: NewRecord | None) -> None:
        with self._store.transaction() as transaction:
            if letter is not None:
                transaction.send([letter])
                self._unsent.set()
            if advance:
                transaction.advance(record.place, record.offset + 1)

    # -- replay into a new store

    async def _replay(self, ends: Mapping[Place, int]) -> int:
        """Folds the whole log in the order in which the broker took it; then answers the inputs that nobody has answered."""
        log.info("filling a new store by replay", records=sum(ends.values()))
        answers = tuple(self._handler.answers)
        open_inputs: dict[str, Received] = {}

        def fold() -> int:
            count = 0
            for record in self._merged(ends):
                count += 1
                try:
                    event = decode(record.topic, record.partition, record.offset, record.key, record.value, record.headers)
                except (Undecodable, UnknownType):
                    event = None
                with self._transaction() as transaction:
                    if event is not None and not transaction.was_seen(event.event_id):
                        transaction.mark_seen(event.event_id)
                        self._handler.apply(event, transaction.documents)
                        open_inputs.pop(event.causation_id, None)
                        if isinstance(event.message, answers):
                            open_inputs[event.event_id] = event
                    transaction.advance(record.place, record.offset + 1)
                self._next[record.place] = record.offset + 1
            return count

        count = await asyncio.to_thread(fold)
        for event in open_inputs.values():
            try:
                with self._transaction() as transaction:
                    emits = list(self._handler.react(event, transaction.documents))
                    self._emit(transaction, emits, event.event_id, event.correlation_id or event.key, event.traceparent)
            except InvalidMessage as error:
                log.warning("an input without an answer is invalid", id=event.event_id, error=str(error))
        return count

    def _merged(self, ends: Mapping[Place, int]) -> Iterator[Record]:
        streams = [self._reader.read(place, 0, end) for place, end in sorted(ends.items()) if end]
        return heapq.merge(*streams, key=lambda record: (record.timestamp, record.topic, record.partition, record.offset))

    # -- the outbox

    def unsent(self, limit: int = 500) -> list[NewRecord]:
        """The next records to send, in order. `sent()` forgets them."""
        self._sending = self._store.unsent(limit)
        return [row.record for row in self._sending]

    def sent(self) -> None:
        self._store.sent(self._sending)

    async def wait_for_unsent(self, timeout: float) -> None:
        try:
            await asyncio.wait_for(self._unsent.wait(), timeout)
        except TimeoutError:
            pass
        self._unsent.clear()

    # -- small things

    def _transaction(self) -> _Guarded:
        return _Guarded(self._store, self._handler)

    async def _tell(self) -> None:
        self.revision += 1
        async with self._changed:
            self._changed.notify_all()

    def _die(self, error: Exception) -> None:
        log.error("the engine stops", error=f"{type(error).__name__}: {error}")
        self._fatal = self._fatal or asyncio.get_running_loop().create_future()
        if not self._fatal.done():
            self._fatal.set_exception(error)


class _Guarded:
    """A transaction after whose failure the handler forgets what it kept in memory."""

    def __init__(self, store: Store, handler: Handler) -> None:
        self._store = store
        self._handler = handler

    def __enter__(self) -> Transaction:
        self._context = self._store.transaction()
        return self._context.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self._context.__exit__(kind, error, trace)  # type: ignore[arg-type]
        finally:
            if error is not None:
                with self._store.reading() as documents:
                    self._handler.reset(documents)


def _as_received(outgoing: Outgoing) -> Received:
    return Received(
        topic=outgoing.topic,
        partition=-1,
        offset=-1,
        key=outgoing.key,
        event_id=outgoing.event_id,
        type=outgoing.message.DESCRIPTOR.full_name,
        source=outgoing.source,
        time=outgoing.time,
        message=outgoing.message,
        causation_id=outgoing.causation_id,
        correlation_id=outgoing.correlation_id,
        traceparent=outgoing.traceparent,
    )
