"""A service small enough to be seen through, on the real engine and an SQL store, over a log in memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.message import Message

from services.chassis import codec, dead_letters
from services.chassis.engine import Engine
from services.chassis.handler import Command, Emit, InvalidMessage
from services.chassis.loop.memory import MemoryLog, MemoryPublisher, MemoryReader
from services.chassis.records import NewRecord, Place, Record
from services.chassis.store import Documents, Store
from trainyard._cloudevents import Outgoing, Received, decode
from trainyard.event.v1.dead_letter_pb2 import DeadLetter
from trainyard.job.v1.job_pb2 import CancelRun, RunCancelRequested, RunFinalizing, RunPreparing, RunQueued, RunScaling, RunWarned

JOBS, TASKS, PULSES, LETTERS = "trainyard.jobs", "trainyard.tasks", "trainyard.heartbeats", dead_letters.TOPIC
START = datetime(2026, 1, 1, tzinfo=UTC)
_numbers = itertools.count()


@dataclass(frozen=True)
class Tally:
    """What was counted of one run."""

    queued: int = 0
    asked: int = 0
    requested: int = 0
    warned: int = 0


@dataclass(frozen=True)
class Prepared:
    """A worker's result."""

    run_id: str


class TallyHandler:
    """Counts what happens to runs; answers CancelRun with two facts, and has a worker prepare what is scaled.

    Keeps tallies in memory too, so a reset that is forgotten shows. `broken` is what its code raises where a reason or an
    experiment says "boom". `met` are the ids of what it was asked to react to, `pulses` how many came by the ephemeral topic.
    """

    answers = (CancelRun,)

    def __init__(self) -> None:
        self.broken: Exception | None = RuntimeError("boom")
        self.met: list[str] = []
        self.resets = 0
        self.pulses = 0
        self._kept: dict[str, Tally] = {}

    def react(self, event: Received, documents: Documents) -> Iterable[Emit]:
        self.met.append(event.event_id)
        request = event.message
        self.pulses += event.topic == PULSES
        if not isinstance(request, CancelRun):
            return []
        if request.reason == "invalid":
            raise InvalidMessage("the reason is invalid")
        if request.reason == "boom" and self.broken:
            raise self.broken
        if request.reason == "silence":
            return []
        text = "x" * (2 << 20) if request.reason == "too much" else request.reason
        number = self._of(request.run_id, documents).asked + 1
        return [
            Emit(JOBS, request.run_id, RunCancelRequested(run_id=request.run_id, reason=f"{number}: {text}")),
            Emit(TASKS, request.run_id, RunWarned(run_id=request.run_id, message=f"asked {number} times")),
            Emit(TASKS, request.run_id, RunWarned(run_id=request.run_id, message="it is over")),
        ]

    def apply(self, event: Received, documents: Documents) -> None:
        match event.message:
            case RunQueued(run_id=run_id) as fact:
                fact.queued_at.ToDatetime()
                self._count(run_id, documents, "queued")
                if fact.experiment == "boom" and self.broken:
                    raise self.broken
            case CancelRun(run_id=run_id):
                self._count(run_id, documents, "asked")
            case RunCancelRequested(run_id=run_id):
                self._count(run_id, documents, "requested")
            case RunWarned(run_id=run_id):
                self._count(run_id, documents, "warned")
            case RunScaling(run_id=run_id):
                documents.put("to prepare", run_id, f"{run_id} {event.event_id}".encode())
            case RunPreparing(run_id=run_id):
                documents.remove("to prepare", run_id)

    def command(self, command: Command, documents: Documents) -> Iterable[Emit]:
        run_id = command.payload.run_id
        if run_id == "boom" and self.broken:
            raise self.broken
        return [Emit(JOBS, run_id, RunPreparing(run_id=run_id)), Emit(JOBS, run_id, RunFinalizing(run_id=run_id))]

    def reset(self, documents: Documents) -> None:
        self.resets += 1
        self._kept.clear()

    def snapshot(self) -> Callable[[], None]:
        pulses = self.pulses

        def restore() -> None:
            self.pulses = pulses

        return restore

    def _of(self, run_id: str, documents: Documents) -> Tally:
        if run_id not in self._kept:
            content = documents.get("tally", run_id)
            self._kept[run_id] = codec.loads(content, Tally) if content else Tally()
        return self._kept[run_id]

    def _count(self, run_id: str, documents: Documents, field: str) -> None:
        tally = self._of(run_id, documents)
        self._kept[run_id] = replace(tally, **{field: getattr(tally, field) + 1})
        documents.put("tally", run_id, codec.dumps(self._kept[run_id]))


def new_log() -> MemoryLog:
    return MemoryLog({JOBS: 2, TASKS: 2, PULSES: 1, LETTERS: 1})


def an_event(message: Message, *, event_id: str = "", key: str = "", topic: str = JOBS, source: str = "a test") -> NewRecord:
    """As any client publishes it; the key is the run's id."""
    outgoing = Outgoing(topic, key or message.run_id, message, event_id or f"event-{next(_numbers)}", source, START)  # type: ignore[attr-defined]
    return NewRecord(topic, outgoing.key.encode(), outgoing.value(), tuple(outgoing.headers()))


def speaks(log: MemoryLog, spoke_later: bool) -> None:
    """A fact of the service's own at the end of the log: all before it is folded, and without it all is taken as if it came now."""
    if spoke_later:
        log.append(an_event(RunFinalizing(run_id="another"), source="trainyard/tally"))


def queued(run_id: str = "r1", **fields: Any) -> RunQueued:
    return RunQueued(run_id=run_id, **fields)


def cancel(run_id: str = "r1", reason: str = "enough") -> CancelRun:
    return CancelRun(run_id=run_id, reason=reason)


class SmallService:
    """The log and the store outlive it: a crash is a new one on the same two."""

    def __init__(self, log: MemoryLog, store: Store | None = None, reader: Any = None, **options: Any) -> None:
        self.log = log
        self.store = store or Store("sqlite://")
        self.handler = TallyHandler()
        self.reader = reader or MemoryReader(log)
        self._ticks = 0
        options = {"topics": [JOBS, TASKS, PULSES], "owned": [JOBS, TASKS, PULSES], "ephemeral": [PULSES], "clock": self._now, **options}
        self.engine = Engine("tally", self.store, self.handler, self.reader, **options)

    def _now(self) -> datetime:
        self._ticks += 1
        return START + timedelta(seconds=self._ticks)

    async def receive(self, *records: NewRecord) -> list[Record]:
        """They come to lie in the log and the loop delivers them."""
        made = [self.log.append(record) for record in records]
        for record in made:
            await self.engine.deliver(record)
        return made

    def send(self) -> None:
        """The outbox, emptied into the log."""
        while records := self.engine.unsent():
            MemoryPublisher(self.log).publish(records)
            self.engine.sent()

    async def settle(self) -> None:
        """Everything sent and everything read, until nothing follows any more."""
        while await self.engine.catch_up() or self.engine.unsent():
            self.send()

    def tally(self, run_id: str = "r1") -> Tally:
        return self.tallies().get(run_id, Tally())

    def tallies(self) -> dict[str, Tally]:
        with self.store.reading() as documents:
            return {key: codec.loads(content, Tally) for key, content in documents.all("tally")}

    def position(self, place: Place) -> int:
        return self.store.positions().get(place, 0)


def events(records: Iterable[Record | NewRecord], *kinds: type[Message]) -> list[Received]:
    """What can be read of them, of these kinds."""
    found = [decode(it.topic, getattr(it, "partition", -1), getattr(it, "offset", -1), it.key, it.value, it.headers) for it in records]
    return [event for event in found if isinstance(event.message, kinds or Message)]


def letters(records: Iterable[Record | NewRecord]) -> list[DeadLetter]:
    return [event.message for event in events((it for it in records if it.topic == LETTERS), DeadLetter)]  # type: ignore[misc]
