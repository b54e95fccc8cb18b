"""Reports to the log: in order, each until it is acknowledged, with one id however often it is sent."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from google.protobuf.message import Message

from services.chassis.records import NewRecord, Publisher, Unavailable
from trainyard._cloudevents import Outgoing

log = structlog.get_logger()
_RETRY_SECONDS = 0.5


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


class Reporter:
    """A queue that one task empties. Batches form by themselves while a send is under way."""

    def __init__(self, publisher: Publisher, *, limit: int = 100_000, dropped: Callable[[int], None] = lambda count: None) -> None:
        """Beyond `limit` records that nobody takes, the oldest are let go and counted: a broker that is away must not eat the memory."""
        self._publisher = publisher
        self._limit = limit
        self._dropped = dropped
        self._waiting: list[NewRecord] = []
        self._news = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def send(self, record: NewRecord) -> None:
        self._waiting.append(record)
        excess = len(self._waiting) - self._limit
        if excess > 0:
            del self._waiting[:excess]
            self._dropped(excess)
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
                batch, self._waiting = self._waiting[:500], self._waiting[500:]
                await self._publish(batch)
            self._empty.set()

    async def _publish(self, batch: list[NewRecord]) -> None:
        while True:
            try:
                await asyncio.to_thread(self._publisher.publish, batch)
                return
            except Unavailable as error:
                log.warning("reports wait", records=len(batch), reason=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
