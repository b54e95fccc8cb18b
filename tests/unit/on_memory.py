"""A service's handler on the real engine and an SQL store, over a log in memory: every step is taken by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from google.protobuf.message import Message

from services.chassis.engine import Engine
from services.chassis.handler import Command, Handler
from services.chassis.loop.memory import MemoryLog, MemoryReader
from services.chassis.records import NewRecord, Record
from services.chassis.store import Store
from services.chassis.topics import topics
from trainyard._cloudevents import Outgoing, Received, Undecodable, decode

T = TypeVar("T")
START = datetime(2026, 1, 1, tzinfo=UTC)


class OnMemory:
    """`kinds` are the documents to compare. Answers wait in the outbox until `flush`, so their order in the log can be chosen."""

    def __init__(self, name: str, make: Callable[[], Handler], names: Sequence[str], kinds: Sequence[str]) -> None:
        self._name, self._make, self._names, self._kinds = name, make, list(names), list(kinds)
        self._loop = asyncio.new_event_loop()
        self._log = MemoryLog({topic: topics()[topic].partitions for topic in [*names, "trainyard.deadletters"]})
        self._ticks = 0
        self.store, self.engine = self._new()

    def close(self) -> None:
        self._loop.close()
        self.store.close()

    def publish(self, topic: str, key: str, message: Message) -> str:
        """As any client does; the record is delivered at once. Returns the event's id."""
        now = self.now()
        outgoing = Outgoing(topic, key, message, f"event-{self._ticks}", "a test", now)
        self.append(NewRecord(topic, key.encode(), outgoing.value(), tuple(outgoing.headers())))
        return outgoing.event_id

    def append(self, record: NewRecord) -> None:
        self._run(self.engine.deliver(self._log.append(record)))

    def command(self, command: Command) -> None:
        self._run(self.engine.command(command))

    def flush(self, *, crash: bool = False) -> None:
        """The outbox goes into the log and comes back, as a service's own facts do; a crash comes before it is noted as sent."""
        while records := self.engine.unsent():
            for record in records:
                self.append(record)
            if crash:
                break
            self.engine.sent()

    def restart(self) -> None:
        """The process is new, what it stored is there."""
        self.engine = self._engine(self.store)
        self._run(self.engine.catch_up())

    def documents(self) -> dict[tuple[str, str], bytes]:
        return self._documents(self.store)

    def replayed(self) -> dict[tuple[str, str], bytes]:
        """The documents of a new store that is filled from the log alone."""
        store, engine = self._new()
        try:
            self._run(engine.catch_up())
            return self._documents(store)
        finally:
            store.close()

    def pending(self, kind: str) -> list[bytes]:
        """What lies there for a worker, by key."""
        with self.store.reading() as documents:
            return [content for _, content in documents.all(kind)]

    def events(self, topic: str) -> list[Received]:
        """All that lies in the topic and can be read, in the order in which it came."""
        return [event for record in self._log.everything() if record.topic == topic and (event := _decoded(record)) is not None]

    def now(self) -> datetime:
        self._ticks += 1
        return START + timedelta(seconds=self._ticks)

    def _new(self) -> tuple[Store, Engine]:
        store = Store("sqlite://")
        return store, self._engine(store)

    def _engine(self, store: Store) -> Engine:
        owned = [topic for topic in self._names if topics()[topic].owner == self._name]
        return Engine(self._name, store, self._make(), MemoryReader(self._log), topics=self._names, owned=owned, clock=self.now)

    def _documents(self, store: Store) -> dict[tuple[str, str], bytes]:
        with store.reading() as documents:
            return {(kind, key): content for kind in self._kinds for key, content in documents.all(kind)}

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(coroutine)


def _decoded(record: Record) -> Received | None:
    try:
        return decode(record.topic, record.partition, record.offset, record.key, record.value, record.headers)
    except Undecodable:
        return None
