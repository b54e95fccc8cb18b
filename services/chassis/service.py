"""One service as a process: settings, store, engine, loop, outbox, guard, gRPC and workers, started and stopped in order."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

import grpc
import structlog
from google.protobuf.message import Message

from services.chassis import logs
from services.chassis.engine import Engine
from services.chassis.grpc_server import Code, Server, refuse
from services.chassis.guard import Progress, ProgressGuard
from services.chassis.handler import Handler
from services.chassis.loop.kafka_client import KafkaLoop, KafkaPublisher, KafkaReader
from services.chassis.records import EventLoop, LogReader, NewRecord, Place, Publisher, Unavailable
from services.chassis.settings import Settings
from services.chassis.store import Documents, Store
from services.chassis.topics import MAX_MESSAGE_BYTES, topics
from services.chassis.worker import Worker
from trainyard._cloudevents import Outgoing

log = structlog.get_logger()
_APPLY_SECONDS = 30.0
# A partition that waits and stands still for so long is read directly.
_FETCH_SECONDS = 2.0
_GOODBYE_SECONDS = 3.0
_TELL_SECONDS = 10.0
_LONGEST_CALL_SECONDS = 3600.0
T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """What servicers and background tasks are given."""

    settings: Settings
    store: Store
    engine: Engine
    publisher: Publisher
    reader: LogReader

    async def request(self, topic: str, key: str, message: Message) -> str:
        """Publishes a request as any client could, waits until it has taken effect here, and returns its event id.

        What follows from it at once lies in the log by then: whoever acts on the answer may look there, or ask another service.
        """
        event_id = str(uuid.uuid4())
        outgoing = Outgoing(topic, key, message, event_id, f"trainyard/{self.settings.service}/grpc", datetime.now(UTC))
        value = outgoing.value()
        if len(value) > MAX_MESSAGE_BYTES:
            what = f"The request has {len(value)} bytes; a message has {MAX_MESSAGE_BYTES} at most."
            raise refuse(Code.INVALID_ARGUMENT, "RequestTooLarge", what, key)
        record = NewRecord(topic, key.encode(), value, tuple(outgoing.headers()))
        ((place, offset),) = await asyncio.to_thread(self.publisher.publish, [record])
        if not await self.engine.applied(place, offset, _APPLY_SECONDS):
            raise refuse(
                Code.DEADLINE_EXCEEDED, "Unavailable", f"The request lies in the log and was not handled within {_APPLY_SECONDS:.0f} s."
            )
        await self.told()
        return event_id

    async def answer(self, look: Callable[[Documents], T | None], seconds: float | None) -> T | None:
        """What `look` finds in the documents as soon as it finds something, and once it lies in the log; None when the time is up.

        `seconds` None: the caller has set no deadline.
        """

        def found() -> T | None:
            with self.store.reading() as documents:
                return look(documents)

        await self.engine.until(lambda: found() is not None, _LONGEST_CALL_SECONDS if seconds is None else seconds)
        answer = found()
        if answer is not None:
            await self.told()
        return answer

    async def told(self) -> None:
        """Waits until all that follows from what was handled so far lies in the log; a broker that is away delays an answer only so long."""
        await self.engine.told(_TELL_SECONDS)

    async def caught_up(self, topic: str, key: str, timeout: float = _APPLY_SECONDS) -> None:
        """Waits until all that lies in the key's partition now has taken effect here. Raises Unavailable."""
        from trainyard._kafka import partition_of

        ends = await asyncio.to_thread(self.reader.ends, [topic])
        place = Place(topic, partition_of(key, len(ends)))
        if ends[place] and not await self.engine.applied(place, ends[place] - 1, timeout):
            raise Unavailable(f"this service lags behind {topic}")


Register = Callable[[grpc.aio.Server, Context], None]
Background = Callable[[Context], Awaitable[None]]


def run_process(name: str, settings: Settings, main: Callable[[], Coroutine[Any, Any, None]]) -> NoReturn:
    """`main` as the only process of that name in its home. Ends the process: with 0 when main returns, with 1 when it raises."""
    logs.set_up(name, as_json=settings.log_json)
    code = 1
    try:
        with _only_one(settings.home / "db" / f"{name}.lock"):
            # Not asyncio.run: it would wait for threads that wait for a broker.
            asyncio.new_event_loop().run_until_complete(main())
            code = 0
    except (OSError, RuntimeError, asyncio.CancelledError) as error:
        log.error("ends", reason=f"{type(error).__name__}: {error}")
    except Exception:
        log.exception("ends")
    finally:
        sys.stderr.flush()
        os._exit(code)


class Service:
    """A table of contents in `__main__`: what it listens to, what it serves, what works beside it."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._settings = settings
        self._topics: tuple[str, ...] = ()
        self._replays: tuple[str, ...] = ()
        self._handler: Handler | None = None
        self._servicers: list[tuple[str, Register]] = []
        self._workers: list[Callable[[Context], Worker]] = []
        self._background: list[Background] = []

    def listens(self, *names: str, to: Handler, replays: tuple[str, ...] = ()) -> Service:
        """`replays` are topics that hold facts of this service's own and nothing for it to answer: read to fill a new store only."""
        self._topics, self._handler, self._replays = names, to, replays
        return self

    def serves(self, full_name: str, register: Register) -> Service:
        self._servicers.append((full_name, register))
        return self

    def works(self, make: Callable[[Context], Worker]) -> Service:
        self._workers.append(make)
        return self

    def beside(self, task: Background) -> Service:
        self._background.append(task)
        return self

    def run(self) -> NoReturn:
        """Until SIGTERM (exit code 0), or until something that cannot be mended from inside (1). Ends the process."""
        run_process(self._name, self._settings, self._main)

    async def _main(self) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        context = self._context()
        server = self._server(context)
        running: list[asyncio.Task[Any]] = []
        stopping = asyncio.create_task(stop.wait())
        loop, guard = self._loop(context), self._guard(context)
        try:
            starting = asyncio.create_task(self._start(context, server, loop, running))
            await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
            else:
                starting.result()
                guard.start()
                log.info("started", port=server.port)
                done, _ = await asyncio.wait([stopping, *running], return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                if stopping not in done:
                    raise RuntimeError("a part of the service ended by itself")
            log.info("stops")
        finally:
            guard.stop()
            await loop.stop()
            for task in running:
                task.cancel()
            await asyncio.wait([*running, asyncio.ensure_future(server.stop())], timeout=_GOODBYE_SECONDS)
            context.store.close()

    async def _start(self, context: Context, server: Server, loop: EventLoop, running: list[asyncio.Task[Any]]) -> None:
        """State first, then calls, then the loop. Ready once the loop delivers and nothing was missed in between."""
        await _catch_up(context.engine)
        await server.start()
        ready = asyncio.Event()
        tasks = [
            loop.run(context.engine.deliver, ready.set),
            context.engine.failed(),
            send_for_ever(context.engine, context.publisher),
            _say_ready(ready, context, server),
            *(make(context).run(context.engine, context.store) for make in self._workers),
            *(task(context) for task in self._background),
        ]
        running += [asyncio.ensure_future(task) for task in tasks]

    def _context(self) -> Context:
        settings = self._settings
        store = Store(settings.sql_url)
        reader = KafkaReader(settings.kafka_bootstrap)
        assert self._handler is not None, "a service listens to something"
        known = topics()
        engine = Engine(
            self._name,
            store,
            self._handler,
            reader,
            topics=self._topics,
            owned=[name for name in self._topics if known[name].owner == self._name],
            ephemeral=[name for name in self._topics if known[name].ephemeral],
            replayed=self._replays,
        )
        return Context(settings, store, engine, KafkaPublisher(settings.kafka_bootstrap), reader)

    def _server(self, context: Context) -> Server:
        def register(server: grpc.aio.Server) -> None:
            for _, add in self._servicers:
                add(server, context)

        return Server(self._settings.host, self._settings.port, [name for name, _ in self._servicers], register)

    def _loop(self, context: Context) -> EventLoop:
        settings = self._settings
        if settings.loop == "kafka":
            ephemeral = {name for name in self._topics if topics()[name].ephemeral}
            positions = context.engine.positions
            return KafkaLoop(
                settings.kafka_bootstrap, self._topics, lambda place: None if place.topic in ephemeral else positions.get(place, 0)
            )
        from services.chassis.loop.faust_loop import FaustLoop

        return FaustLoop(settings.kafka_bootstrap, f"trainyard-{self._name}", self._topics, folder=settings.home / "faust")

    def _guard(self, context: Context) -> ProgressGuard:
        asyncio_loop = asyncio.get_running_loop()

        def fetch() -> None:
            asyncio.run_coroutine_threadsafe(context.engine.fetch_missing(), asyncio_loop)

        return ProgressGuard(
            KafkaReader(self._settings.kafka_bootstrap),
            context.engine.durable_topics,
            lambda: context.engine.positions,
            fetch,
            progress=Progress(fetch_after=_FETCH_SECONDS, exit_after=self._settings.stall_seconds),
            every=min(1.0, self._settings.stall_seconds / 4),
        )


async def _catch_up(engine: Engine) -> None:
    """A broker that starts later, or topics that are made later, are waited for."""
    told = False
    while True:
        try:
            count = await engine.catch_up()
            log.info("caught up", records=count)
            return
        except Unavailable as error:
            if not told:
                log.warning("waits for Kafka", reason=str(error))
            told = True
            await asyncio.sleep(0.3)


async def _say_ready(ready: asyncio.Event, context: Context, server: Server) -> None:
    """Whenever the loop has (again) begun: what came between the last read and its first record is fetched, then ready is said."""
    while True:
        await ready.wait()
        ready.clear()
        try:
            await context.engine.fetch_missing()
        except Unavailable:
            ready.set()
            await asyncio.sleep(0.5)
            continue
        await server.say(ready=True)


async def send_for_ever(engine: Engine, publisher: Publisher) -> None:
    """The outbox, emptied in order. A row is forgotten only after the broker has it; a crash in between sends the same id again."""
    while True:
        records = engine.unsent()
        if not records:
            await engine.wait_for_unsent(5.0)
            continue
        try:
            await asyncio.to_thread(publisher.publish, records)
        except Unavailable as error:
            log.warning("the outbox waits", records=len(records), reason=str(error))
            await asyncio.sleep(0.5)
            continue
        engine.sent()
        await engine.wake()


class _only_one:
    """Two processes of one service would each write half of its state: the second ends with a reason."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise RuntimeError(f"another process of this service holds {self._path}") from error

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
