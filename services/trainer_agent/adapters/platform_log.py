"""The platform's log as a client of it sees it: a request is published, its answer is read behind it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message

from services.chassis.records import NewRecord, Publisher, Unavailable
from trainyard._cloudevents import Outgoing
from trainyard._errors import PlatformUnavailableException
from trainyard._kafka import Events


class PlatformLog:
    def __init__(self, publisher: Publisher, events: Events, source: str, patience_seconds: float = 90.0) -> None:
        self._publisher = publisher
        self._events = events
        self._source = source
        self._patience_seconds = patience_seconds

    def ask(self, topic: str, key: str, request: Any, is_answer: Callable[[str, Message], bool]) -> Message:
        """`is_answer` gets the request's id where the event follows from it, else "". Raises PlatformUnavailableException."""
        event_id = str(uuid.uuid4())
        outgoing = Outgoing(topic, key, request, event_id, self._source, datetime.now(UTC), correlation_id=getattr(request, "run_id", key))
        deadline = time.monotonic() + self._patience_seconds
        place, offset = self._publish(NewRecord(topic, key.encode(), outgoing.value(), tuple(outgoing.headers())), deadline)
        after = {(place.topic, place.partition): offset}
        for batch in self._events.read([topic], key=key, after=after, follow=lambda: time.monotonic() < deadline):
            for record in batch:
                if record.event is None:
                    continue
                cause = event_id if record.event.causation_id == event_id else ""
                if is_answer(cause, record.event.message):
                    return record.event.message
        what = f"{type(request).__name__} was not answered within {self._patience_seconds:.0f} s."
        raise PlatformUnavailableException(what, target=key, hint="see `make status`")

    def messages(self, topic: str, key: str, since: float) -> list[Message]:
        records = self._events.read_all([topic], key=key, since=datetime.fromtimestamp(since, UTC))
        found: dict[str, Message] = {}
        for record in records:
            if record.event is not None:
                found.setdefault(record.event.event_id, record.event.message)
        return list(found.values())

    def _publish(self, record: NewRecord, deadline: float) -> Any:
        """Repeated under the same id while the broker is away."""
        while True:
            try:
                return self._publisher.publish([record])[0]
            except Unavailable as error:
                if time.monotonic() >= deadline:
                    raise PlatformUnavailableException(f"Kafka does not answer: {error}") from error
                time.sleep(0.5)
