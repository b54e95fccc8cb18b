"""The platform's log as a client of it sees it: a request is published, its answer is read behind it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message

from services.chassis.records import NewRecord, Place, Publisher, Unavailable
from trainyard._cloudevents import Outgoing
from trainyard._errors import PlatformUnavailableException, UserErrorException
from trainyard._kafka import Events

# As the services count it: a record of the log holds 1 MiB, its key and headers included.
_EVENT_BYTES = 1_000_000


class PlatformLog:
    def __init__(self, publisher: Publisher, events: Events, source: str, patience_seconds: float = 90.0) -> None:
        self._publisher = publisher
        self._events = events
        self._source = source
        self._patience_seconds = patience_seconds

    def ask(
        self, topic: str, requests: Mapping[str, Any], is_answer: Callable[[bool, Message], bool], since: float | None = None
    ) -> dict[str, Message]:
        """Key -> request in, key -> answer out. `is_answer` gets whether the event follows from the request, and its message.

        since: a time in seconds from which on answers count, where one may lie there already; None: behind the request only.
        Raises PlatformUnavailableException, and UserErrorException for a request that no topic takes.
        """
        deadline = time.monotonic() + self._patience_seconds
        ids = {key: str(uuid.uuid4()) for key in requests}
        records = [self._record(topic, key, request, ids[key]) for key, request in requests.items()]
        places = self._publish(records, deadline)
        after: dict[tuple[str, int], int] = {}
        for place, offset in places:
            after[place] = min(offset, after.get(place, offset))
        found: dict[str, Message] = {}
        reading = self._events.read(
            [topic],
            key=next(iter(requests)) if len(requests) == 1 else "",
            since=None if since is None else datetime.fromtimestamp(since, UTC),
            from_end=since is None,
            after=after if since is None else None,
            follow=lambda: len(found) < len(requests) and time.monotonic() < deadline,
        )
        for batch in reading:
            for record in batch:
                event = record.event
                if event is None or event.key not in requests or event.key in found:
                    continue
                if is_answer(event.causation_id == ids[event.key], event.message):
                    found[event.key] = event.message
            if len(found) == len(requests):
                return found
        kind = type(next(iter(requests.values()))).__name__
        missing = ", ".join(sorted(requests.keys() - found.keys())[:5])
        what = f"{kind} of {missing} was not answered within {self._patience_seconds:.0f} s."
        raise PlatformUnavailableException(what, target=missing, hint="see `make status`")

    def messages(self, topic: str, key: str, since: float) -> list[Message]:
        records = self._events.read_all([topic], key=key, since=datetime.fromtimestamp(since, UTC))
        found: dict[str, Message] = {}
        for record in records:
            if record.event is not None:
                found.setdefault(record.event.event_id, record.event.message)
        return list(found.values())

    def _record(self, topic: str, key: str, request: Message, event_id: str) -> NewRecord:
        run_id = getattr(request, "run_id", key)
        outgoing = Outgoing(topic, key, request, event_id, self._source, datetime.now(UTC), correlation_id=run_id)
        value = outgoing.value()
        if len(value) > _EVENT_BYTES:
            what = f"The {type(request).__name__} takes {len(value)} bytes, and one event holds {_EVENT_BYTES}: name fewer files at a time."
            raise UserErrorException(what, code="RequestTooLarge", target=key)
        return NewRecord(topic, key.encode(), value, tuple(outgoing.headers()))

    def _publish(self, records: list[NewRecord], deadline: float) -> list[tuple[Place, int]]:
        """Repeated under the same ids while the broker is away."""
        while True:
            try:
                return self._publisher.publish(records)
            except Unavailable as error:
                if time.monotonic() >= deadline:
                    raise PlatformUnavailableException(f"Kafka does not answer: {error}") from error
                time.sleep(0.5)
