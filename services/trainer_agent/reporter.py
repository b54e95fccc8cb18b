"""Reports to the log: in order, each until it is acknowledged, with one id however often it is sent."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from google.protobuf.message import Message

from services.chassis.records import NewRecord, Publisher, Unavailable
from services.chassis.topics import MAX_MESSAGE_BYTES
from trainyard._cloudevents import Outgoing

log = structlog.get_logger()
_RETRY_SECONDS = 0.5
_BATCH = 500
# A record's headers and what Python keeps around it, roughly.
_OVERHEAD_BYTES = 1024


@dataclass(frozen=True)
class Cause:
    """What a report follows from."""

    event_id: str = ""
    correlation_id: str = ""


def as_record(topic: str, key: str, message: Message, source: str, cause: Cause = Cause()) -> NewRecord:  # noqa: B008 - frozen
    outgoing = Outgoing(
        topic, key, message, str(uuid.uuid4()), source, datetime.now(UTC), causation_id=cause.event_id, correlation_id=cause.correlation_id
    )
    return NewRecord(topic, key.encode(), outgoing.value(), tuple(outgoing.headers()))


def _size(record: NewRecord) -> int:
    return len(record.value or b"") + _OVERHEAD_BYTES


class Reporter:
    """A queue that one task empties. Batches form by themselves while a send is under way."""

    def __init__(self, publisher: Publisher, *, limit: int = 64 << 20, dropped: Callable[[int], None] = lambda count: None) -> None:
        """Beyond `limit` bytes that nobody takes, the oldest are let go and counted: a broker that is away must not eat the memory."""
        self._publisher = publisher
        self._limit = limit
        self._dropped = dropped
        self._waiting: deque[NewRecord] = deque()
        self._size = 0
        self._news = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def send(self, record: NewRecord) -> None:
        if len(record.value or b"") > MAX_MESSAGE_BYTES:
            # Tried again and again it would hold up all that follows.
            log.error("let go what no topic takes", topic=record.topic, bytes=len(record.value or b""))
            self._dropped(1)
            return
        self._waiting.append(record)
        self._size += _size(record)
        before = len(self._waiting)
        while self._size > self._limit and len(self._waiting) > 1:
            self._take()
        if before > len(self._waiting):
            self._dropped(before - len(self._waiting))
        self._empty.clear()
        self._news.set()

    @property
    def behind(self) -> int:
        """Records that wait."""
        return len(self._waiting)

    async def flush(self) -> None:
        """Returns when all is acknowledged."""
        await self._empty.wait()

    async def run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                await self._publish([self._take() for _ in range(min(len(self._waiting), _BATCH))])
            self._empty.set()

    def _take(self) -> NewRecord:
        record = self._waiting.popleft()
        self._size -= _size(record)
        return record

    async def _publish(self, batch: list[NewRecord]) -> None:
        while True:
            try:
                await asyncio.to_thread(self._publisher.publish, batch)
                return
            except Unavailable as error:
                log.warning("reports wait", records=len(batch), reason=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
