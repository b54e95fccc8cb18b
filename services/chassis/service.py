"""One service as a process: settings, store, engine, loop, outbox, guard, gRPC and workers, started and stopped in order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, NoReturn, TypeVar

import grpc
import structlog

from services.chassis import logs
from services.chassis.context import Context
from services.chassis.engine import Engine
from services.chassis.grpc_server import Server
from services.chassis.guard import Progress, ProgressGuard
from services.chassis.handler import Handler
from services.chassis.loop.kafka_client import KafkaLoop, KafkaPublisher, KafkaReader
from services.chassis.records import EventLoop, LogReader, Publisher, Unavailable
from services.chassis.settings import Settings
from services.chassis.single import OnlyOne
from services.chassis.store import Store
from services.chassis.topics import check_partitions, topics
from services.chassis.worker import Worker

log = structlog.get_logger()
T = TypeVar("T")
# A partition that waits and stands still for so long is read directly.
_FETCH_SECONDS = 2.0
_GOODBYE_SECONDS = 3.0
# Clients of the log work in threads of their own, and want the interpreter several times for each request. Python's own 5 ms for each,
# while the handlers are busy, would leave these without work before the next records are there.
_SWITCH_SECONDS = 0.0005


Register = Callable[[grpc.aio.Server, Context], None]
Background = Callable[[Context], Awaitable[None]]


def run_process(name: str, settings: Settings, main: Callable[[], Coroutine[Any, Any, None]]) -> NoReturn:
    """`main` as the only process of that name in its home. Ends the process: with 0 when main returns, with 1 when it raises."""
    logs.set_up(name, as_json=settings.log_json)
    sys.setswitchinterval(_SWITCH_SECONDS)
    code = 1
    try:
        with OnlyOne(settings.home / "db" / f"{name}.lock"):
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
        self._goodbyes: list[Callable[[], Awaitable[None]]] = []

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

    def leaves(self, goodbye: Callable[[], Awaitable[None]]) -> Service:
        """Called when it is told to stop, however far it has come: also while it waits for Kafka still."""
        self._goodbyes.append(goodbye)
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
            goodbyes = [asyncio.ensure_future(it()) for it in self._goodbyes if stop.is_set()]
            await asyncio.wait([*running, *goodbyes, asyncio.ensure_future(server.stop())], timeout=_GOODBYE_SECONDS)
            context.store.close()

    async def _start(self, context: Context, server: Server, loop: EventLoop, running: list[asyncio.Task[Any]]) -> None:
        """State first, then calls, then the loop. Ready once the loop delivers and nothing was missed in between."""
        await _when_there(partial(_check_topics, context.reader, [*context.engine.durable_topics, *self._replays]))
        # What is read may be long, and its answers wait for nothing.
        running.append(asyncio.ensure_future(_send_once_filled(context.engine, context.publisher)))
        await _catch_up(context.engine)
        await server.start()
        ready = asyncio.Event()
        tasks = [
            loop.run(context.engine.deliver, ready.set),
            context.engine.failed(),
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
        return Context(settings, store, engine, KafkaPublisher(settings.kafka_bootstrap), reader, KafkaPublisher(settings.kafka_bootstrap))

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
    count = await _when_there(engine.catch_up)
    log.info("caught up", records=count)


async def _check_topics(reader: LogReader, names: Sequence[str]) -> None:
    """Raises WrongPartitions, and Unavailable."""
    ends = await asyncio.to_thread(reader.ends, names)
    check_partitions(Counter(place.topic for place in ends))


async def _when_there(action: Callable[[], Awaitable[T]]) -> T:
    """A broker that starts later, or topics that are made later, are waited for."""
    told = False
    while True:
        try:
            return await action()
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


async def _send_once_filled(engine: Engine, publisher: Publisher) -> None:
    """Not before: what a replay that was broken off has answered is made anew by the next."""
    await engine.filled.wait()
    await send_for_ever(engine, publisher)


async def send_for_ever(engine: Engine, publisher: Publisher) -> None:
    """The outbox, emptied in order. A row is forgotten only after the broker has it; a crash in between sends the same id again."""
    while True:
        records = engine.unsent()
        if not records:
            await engine.wait_for_unsent(5.0)
            continue
        try:
            places = await asyncio.to_thread(publisher.publish, records)
        except Unavailable as error:
            log.warning("the outbox waits", records=len(records), reason=str(error))
            await asyncio.sleep(0.5)
            continue
        engine.sent(places)
        await engine.wake()
