"""History: what happened, as views that can be asked, at any moment. It only listens."""

from __future__ import annotations

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import structlog

from services.chassis.grpc_server import Server
from services.chassis.guard import Progress, ProgressGuard
from services.chassis.loop.kafka_client import KafkaReader
from services.chassis.records import Unavailable
from services.chassis.service import run_process
from services.chassis.settings import Settings
from services.history.api import History, HistoryServicer
from services.history.applying import TOPICS, Applied, Applier
from services.history.databases import open_databases
from services.history.events import EventServicer
from services.history.following import Following
from services.history.rebuilding import Rebuilder
from services.history.waiting import Freshness
from trainyard._objects import MinioObjects
from trainyard.history.v1 import history_pb2_grpc

log = structlog.get_logger()
SERVICES = ("trainyard.history.v1.HistoryService", "trainyard.history.v1.EventService")
_LOOKS = 16
_GOODBYE_SECONDS = 3.0


def main() -> None:
    settings = Settings.load("history")
    run_process("history", settings, lambda: serve(settings))


async def serve(settings: Settings) -> None:
    """Until SIGTERM; raises what cannot be mended from inside."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    history = history_of(settings)
    server = Server(settings.host, settings.port, SERVICES, lambda server: _register(server, history, settings))
    guard = _guard(settings, history)
    history.applier.start()
    stopping, catching_up = asyncio.create_task(stop.wait()), asyncio.create_task(_say_ready(history, server))
    try:
        await server.start()
        failed = history.applier.failed
        parts: list[asyncio.Future[Any]] = [stopping, catching_up, failed]
        await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        if catching_up.done():
            catching_up.result()
            guard.start()
            await asyncio.wait([parts[0], failed], return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            failed.result()
        log.info("stops")
    finally:
        guard.stop()
        catching_up.cancel()
        history.applier.stop()
        await asyncio.wait([asyncio.ensure_future(server.stop())], timeout=_GOODBYE_SECONDS)


def history_of(settings: Settings) -> History:
    store = settings.object_store
    objects = MinioObjects(store.endpoint, store.access_key, store.secret_key.get_secret_value(), store.bucket)
    databases = open_databases(settings.sql_url)
    databases.sweep()
    database = databases.current()
    applied = Applied(database.positions())
    applier = Applier(settings.kafka_bootstrap, databases, applied, database)
    reader = KafkaReader(settings.kafka_bootstrap)
    freshness = Freshness(reader, applied)
    return History(
        applied=applied,
        applier=applier,
        databases=databases,
        reader=reader,
        freshness=freshness,
        rebuilder=Rebuilder(settings.kafka_bootstrap, databases, applier, objects),
        following=Following(applied, freshness, objects),
        looks=ThreadPoolExecutor(_LOOKS, "look"),
    )


def _register(server: grpc.aio.Server, history: History, settings: Settings) -> None:
    history_pb2_grpc.add_HistoryServiceServicer_to_server(HistoryServicer(history), server)
    history_pb2_grpc.add_EventServiceServicer_to_server(EventServicer(settings.kafka_bootstrap), server)


async def _say_ready(history: History, server: Server) -> None:
    """Once all that lay in the log at the start has been applied."""
    while True:
        try:
            ends = await history.freshness.ends()
            break
        except Unavailable:
            await asyncio.sleep(0.3)
    while not await history.applied.until(lambda: not history.freshness.behind(ends), 60.0):
        log.info("catches up", behind=sum(history.freshness.behind(ends).values()))
    log.info("started", port=server.port, records=sum(dict(history.applied.positions).values()))
    await server.say(ready=True)


def _guard(settings: Settings, history: History) -> ProgressGuard:
    """Ends the process where records wait and nothing is applied; there is nothing to fetch apart, since nothing but it reads."""
    return ProgressGuard(
        KafkaReader(settings.kafka_bootstrap),
        TOPICS,
        lambda: history.applied.positions,
        lambda: None,
        progress=Progress(fetch_after=settings.stall_seconds, exit_after=settings.stall_seconds),
        every=min(1.0, settings.stall_seconds / 4),
    )


if __name__ == "__main__":
    main()
