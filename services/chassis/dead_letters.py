"""Records that could not be taken, kept with the reason; and the limit beyond which refusing is a fault of ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from services.chassis.records import NewRecord, Record
from trainyard._cloudevents import Outgoing, derived_id
from trainyard.event.v1.dead_letter_pb2 import DeadLetter, Header

TOPIC = "trainyard.deadletters"
# What a letter keeps at the most, in bytes; more would make a record that no topic takes, and hold up the outbox for ever.
_MAX_VALUE, _MAX_HEADERS, _MAX_KEY = 512 << 10, 64 << 10, 16 << 10
_MAX_SUBJECT = 1 << 10


class TooManyDeadLetters(Exception):
    """So much cannot be meant: most likely this version of the service is wrong, and going on would divert the whole topic."""


@dataclass
class Limit:
    """Consecutive records on which the handler raised what nobody expects, after which the service stops: that is ours to mend.

    What is a message's own fault (it cannot be read, or is refused as InvalidMessage) never counts: anybody may publish it.
    """

    failures: int = 10
    _failed: int = 0

    def good(self) -> None:
        self._failed = 0

    def handler_failed(self) -> None:
        self._failed += 1
        if self._failed >= self.failures:
            raise TooManyDeadLetters(f"the handler raised on {self._failed} records in a row")


def as_letter(record: Record, service: str, error: str, stack: str, now: datetime) -> NewRecord:
    """The same refusal always has the same id, so a crash between sending and committing repeats nothing.

    Cut to sizes that any topic takes: the value, a key of more than 16 KiB, and headers beyond 64 KiB in all.
    """
    key = (record.key or b"")[:_MAX_KEY]
    letter = DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=key,
        value=(record.value or b"")[:_MAX_VALUE],
        headers=_headers(record),
        service=service,
        error=_text(error[:3000]),
        stack=_text(stack[-20_000:]),
    )
    letter.refused_at.FromDatetime(now)
    # The letter is an event itself, so its key is text; inside, the key stays as it came.
    outgoing = Outgoing(
        topic=TOPIC,
        key=key[:_MAX_SUBJECT].decode("utf-8", "replace"),
        message=letter,
        event_id=derived_id(f"{service}:{record}", letter.DESCRIPTOR.full_name, 0),
        source=f"trainyard/{service}",
        time=now,
    )
    return NewRecord(TOPIC, outgoing.key.encode(), outgoing.value(), tuple(outgoing.headers()))


def _headers(record: Record) -> Iterator[Header]:
    room = _MAX_HEADERS
    for name, value in record.headers:
        room -= len(name.encode()) + len(value or b"")
        if room < 0:
            return
        yield Header(name=name, value=value or b"")


def _text(text: str) -> str:
    """Without lone surrogates, which protobuf refuses: file names bring them."""
    return text.encode("utf-8", "replace").decode()
