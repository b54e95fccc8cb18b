"""What one input does to the store: its effect, the events that follow and its offset are one transaction, or nothing is."""

from __future__ import annotations

import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

import sqlalchemy.exc
import structlog

from services.chassis.dead_letters import Limit, as_letter
from services.chassis.handler import Command, Counting, Emit, Handler, InvalidMessage
from services.chassis.logs import about
from services.chassis.records import NewRecord, Place, Record
from services.chassis.refusals import Refusal, Refusals
from services.chassis.store import Store, Transaction
from services.chassis.topics import MAX_MESSAGE_BYTES
from trainyard._cloudevents import Outgoing, Received, Undecodable, UnknownType, decode, derived_id

log = structlog.get_logger()
# Of one transaction. The guard and all who ask the service something see no progress before its end.
_TOGETHER_SECONDS = 0.25
_INVALID, _UNDECODABLE = "InvalidMessage: ", "Undecodable: "


class MessageTooLarge(ValueError):
    """A handler emitted what no topic takes; kept in the outbox it would hold up all that follows it."""


class Inputs:
    """`owned` are the topics whose unreadable records become dead letters here."""

    def __init__(
        self,
        name: str,
        store: Store,
        handler: Handler,
        *,
        owned: Iterable[str],
        clock: Callable[[], datetime],
        limit: Limit,
        counts: Counter[str],
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = f"trainyard/{name}"
        self._name = name
        self._store = store
        self._handler = handler
        self._owned = frozenset(owned)
        self._clock = clock
        self._limit = limit
        self._counts = counts
        self._timer = timer
        self._sequence = 0
        self._applied = False
        self.refusals = Refusals()

    def take(self, record: Record, *, once: bool, advance: bool) -> None:
        """`once` refuses to repeat an event; `advance` stores the offset with the effect. Ephemeral topics do neither.

        Raises what is no message's fault: a database that fails, too many dead letters.
        """
        self._counts["records"] += 1
        try:
            with self._transaction() as transaction:
                self._take(transaction, record, once, advance)
            self._limit.good()
        except sqlalchemy.exc.SQLAlchemyError:
            raise
        except Exception as error:
            letter = self._letter(record, error)
            with self._store.transaction() as transaction:
                self._pass_over(transaction, record, advance, letter)

    def take_together(self, records: Sequence[tuple[Record, bool]]) -> int:
        """Several (record, is its topic durable) in a row, in one transaction; a durable topic's are taken once, with their offsets.

        Returns how many of the first were taken: no more are begun once it has lasted for a while. 0, and nothing has happened, where
        a handler fails on one of them: then each wants a transaction of its own. Raises as `take` does.
        """
        before = Counter(self._counts)
        restore = self._handler.snapshot() if isinstance(self._handler, Counting) else None
        try:
            with self._transaction() as transaction:
                applied = False
                taken, end = 0, self._timer() + _TOGETHER_SECONDS
                for record, durable in records:
                    if taken and self._timer() >= end:
                        break
                    taken += 1
                    self._counts["records"] += 1
                    self._applied = False
                    try:
                        self._take(transaction, record, durable, durable)
                    except Exception as error:
                        if self._applied or not _is_the_messages_fault(error):
                            raise
                        self._pass_over(transaction, record, durable, self._letter(record, error))
                    finally:
                        applied = self._applied = self._applied or applied
        except sqlalchemy.exc.SQLAlchemyError:
            raise
        except Exception:
            self._counts.clear()
            self._counts.update(before)
            if restore is not None:
                # They are all taken again: three heartbeats would count as six.
                restore()
            return 0
        self._limit.good()
        return taken

    def _take(self, transaction: Transaction, record: Record, once: bool, advance: bool) -> None:
        # Looked at before all else of it: half of what comes is often what was said here, on its way back by the log.
        if once and transaction.was_seen(_id_of(record)):
            self._counts["repeated_events"] += 1
        else:
            self._handle(transaction, _decoded(record), remember=once)
        if advance:
            transaction.advance(record.place, record.offset + 1)

    def command(self, command: Command) -> None:
        """Raises what the handler raises; then nothing of it has happened."""
        with self._transaction() as transaction:
            emits = self._handler.command(command, transaction.documents)
            self._emit(transaction, emits, command.cause_id, command.correlation_id, "", recurs=command.recurs)

    # -- replay: effect and answer apart

    def fold(self, record: Record) -> Received | None:
        """The effect alone. None where it has none: what cannot be read, what was seen, what `apply` fails on (a dead letter)."""
        try:
            event = _decoded(record)
            with self._transaction() as transaction:
                if transaction.was_seen(event.event_id):
                    return None
                transaction.mark_seen(event.event_id)
                self._apply(event, transaction)
        except (Undecodable, UnknownType):
            return None
        except sqlalchemy.exc.SQLAlchemyError:
            raise
        except Exception as error:
            letter = self._letter(record, error)
            with self._store.transaction() as transaction:
                self._pass_over(transaction, record, False, letter)
            return None
        self._limit.good()
        return event

    def answer(self, record: Record, event: Received) -> NewRecord | None:
        """Answers an input whose effect is there already. Returns a dead letter where that cannot be: the effect must go then."""
        try:
            with self._transaction() as transaction:
                emits = list(self._handler.react(event, transaction.documents))
                self._emit(transaction, emits, event.event_id, event.correlation_id or event.key, event.traceparent)
        except sqlalchemy.exc.SQLAlchemyError:
            raise
        except Exception as error:
            return as_letter(record, self._name, *self._reason(record, error), self._clock())
        self._limit.good()
        return None

    def finish(self, letters: Sequence[NewRecord], positions: Mapping[Place, int]) -> None:
        """The end of a replay: from here on the store counts as filled."""
        self._counts["refused"] += len(letters)
        self._counts["emitted"] += len(letters)
        with self._store.transaction() as transaction:
            transaction.send(letters)
            for place, end in positions.items():
                transaction.advance(place, end)

    # -- events that follow

    def _handle(self, transaction: Transaction, event: Received, *, remember: bool) -> None:
        with about(event=event.type.rpartition(".")[2], key=event.key, correlation=event.correlation_id or event.key):
            emits = list(self._handler.react(event, transaction.documents))
            if remember:
                transaction.mark_seen(event.event_id)
            self._apply(event, transaction)
            self._emit(transaction, emits, event.event_id, event.correlation_id or event.key, event.traceparent)

    def _emit(
        self, transaction: Transaction, emits: Iterable[Emit], cause_id: str, correlation_id: str, traceparent: str, *, recurs: bool = False
    ) -> None:
        emits = list(emits)
        if not emits:
            return
        ordinals: Counter[str] = Counter()
        records = []
        told, value = None, b""
        for emit in emits:
            kind = emit.message.DESCRIPTOR.full_name
            event_id = derived_id(cause_id, kind, ordinals[kind]) if cause_id and not recurs else str(uuid.uuid4())
            ordinals[kind] += 1
            outgoing = Outgoing(
                topic=emit.topic,
                key=emit.key,
                message=emit.message,
                event_id=event_id,
                source=self.source,
                time=self._clock(),
                causation_id=cause_id,
                correlation_id=emit.correlation_id or correlation_id,
                traceparent=traceparent,
                sequence=self._next_sequence(),
            )
            if emit.message is not told:
                # What is told to many, as a gang's shape to each of its members, is put into bytes once.
                told, value = emit.message, outgoing.value()
            if len(value) > MAX_MESSAGE_BYTES:
                raise MessageTooLarge(
                    f"{kind} for {emit.topic}, key {emit.key[:200]!r}, has {len(value)} bytes; a message has {MAX_MESSAGE_BYTES} at most"
                )
            self._apply(_as_received(outgoing), transaction)
            transaction.mark_seen(event_id)
            records.append(NewRecord(emit.topic, emit.key.encode(), value, tuple(outgoing.headers())))
        transaction.send(records)
        self._counts["emitted"] += len(records)

    def _apply(self, event: Received, transaction: Transaction) -> None:
        self._applied = True
        self._handler.apply(event, transaction.documents)

    def _next_sequence(self) -> int:
        """Microseconds, so that it goes on growing in a process that knows nothing of its predecessor's."""
        self._sequence = max(self._sequence + 1, int(self._clock().timestamp() * 1e6))
        return self._sequence

    # -- what cannot be taken

    def _reason(self, record: Record, error: Exception) -> tuple[str, str]:
        """(what is told, the stack). Raises TooManyDeadLetters where it is not the message's fault once too often."""
        if _is_the_messages_fault(error):
            return f"{_INVALID}{error}", ""
        log.error("a handler failed", place=str(record), exc_info=error)
        self._limit.handler_failed()
        return f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error))

    def _letter(self, record: Record, error: Exception) -> NewRecord | None:
        """What is kept of a record that cannot be taken; nothing of an unknown type, and nothing where another service keeps it."""
        if isinstance(error, UnknownType):
            self._counts["unknown_types"] += 1
            log.info("ignored an event of an unknown type", place=str(record), error=str(error))
            return None
        # Every reader of the topic meets what is undecodable; its owner keeps it.
        keep = not isinstance(error, Undecodable) or record.topic in self._owned
        reason, stack = (f"{_UNDECODABLE}{error}", "") if isinstance(error, Undecodable) else self._reason(record, error)
        self._counts["refused"] += 1
        log.warning("cannot be taken", place=str(record), error=reason, dead_letter=keep)
        for prefix in (_INVALID, _UNDECODABLE, ""):
            if reason.startswith(prefix):
                self.refusals.tell(_id_of(record), Refusal(reason.removeprefix(prefix), bool(prefix)))
                break
        return as_letter(record, self._name, reason, stack, self._clock()) if keep else None

    def _pass_over(self, transaction: Transaction, record: Record, advance: bool, letter: NewRecord | None) -> None:
        if letter is not None:
            transaction.send([letter])
            self._counts["emitted"] += 1
        if advance:
            transaction.advance(record.place, record.offset + 1)

    @contextmanager
    def _transaction(self) -> Iterator[Transaction]:
        """One after whose failure, that of its commit included, the handler forgets what it kept in memory.

        Where nothing was applied yet it has nothing to forget, and what strangers publish costs no reading of all documents.
        """
        self._applied = False
        try:
            with self._store.transaction() as transaction:
                yield transaction
        except BaseException:
            if self._applied:
                with self._store.reading() as documents:
                    self._handler.reset(documents)
            raise


def _is_the_messages_fault(error: Exception) -> bool:
    return isinstance(error, InvalidMessage | UnknownType | Undecodable) or _is_of_a_field(error)


def _is_of_a_field(error: Exception) -> bool:
    """Raised inside protobuf's own conversions, which refuse times and spans that no calendar has: the message holds one."""
    if not isinstance(error, ValueError | OverflowError):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).startswith("google.protobuf.")


def _id_of(record: Record) -> str:
    for name, value in record.headers:
        if value and (name == "ce_id" or name.lower() == "ce_id"):
            return value.decode("utf-8", "replace")
    return ""


def _decoded(record: Record) -> Received:
    return decode(record.topic, record.partition, record.offset, record.key, record.value, record.headers)


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
