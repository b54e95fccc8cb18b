"""Records that could not be taken, kept with the reason; and the limit beyond which refusing is a fault of ours."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.chassis.records import NewRecord, Record
from trainyard._cloudevents import Outgoing, derived_id
from trainyard.event.v1.dead_letter_pb2 import DeadLetter, Header

TOPIC = "trainyard.deadletters"
_MAX_BYTES = 512 << 10


class TooManyDeadLetters(Exception):
    """So much cannot be meant: most likely this version of the service is wrong, and going on would divert the whole topic."""


@dataclass
class Limit:
    """Consecutive refusals after which the service stops. Handlers that raise are ours to mend; unreadable bytes mostly are not."""

    failures: int = 10
    unreadables: int = 1000
    _failed: int = 0
    _unreadable: int = 0

    def good(self) -> None:
        self._failed = self._unreadable = 0

    def handler_failed(self) -> None:
        self._failed += 1
        if self._failed >= self.failures:
            raise TooManyDeadLetters(f"the handler raised on {self._failed} records in a row")

    def unreadable(self) -> None:
        self._unreadable += 1
        if self._unreadable >= self.unreadables:
            raise TooManyDeadLetters(f"{self._unreadable} records in a row could not be read")


def as_letter(record: Record, service: str, error: str, stack: str, now: datetime) -> NewRecord:
    """The same refusal always has the same id, so a crash between sending and committing repeats nothing."""
    letter = DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key or b"",
        value=(record.value or b"")[:_MAX_BYTES],
        headers=[Header(name=name, value=value or b"") for name, value in record.headers],
        service=service,
        error=error[:3000],
        stack=stack[-20_000:],
    )
    letter.refused_at.FromDatetime(now)
    outgoing = Outgoing(
        topic=TOPIC,
        key=(record.key or b"").decode("utf-8", "replace"),
        message=letter,
        event_id=derived_id(f"{service}:{record}", letter.DESCRIPTOR.full_name, 0),
        source=f"trainyard/{service}",
        time=now,
    )
    # The header that names the subject must be text; the key itself stays as it came.
    return NewRecord(TOPIC, record.key, outgoing.value(), tuple(outgoing.headers()))
