"""Kafka by faust: the default loop, with the settings under which it was measured to behave best.

Why each one: docs/adr/0001-faust-is-the-loop-not-the-guarantee.md.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import faust

from services.chassis.records import Deliver, Record

# Records that may wait for the service; beyond that faust waits.
_AHEAD = 500
# Of the loop, in which nothing more has come.
_TURNS = 5


class FaustLoop:
    """One worker, one agent, concurrency 1, a static member id, raw bytes; the web server stays off."""

    def __init__(self, bootstrap: str, app_id: str, topics: Sequence[str], member: str = "0", folder: Path | None = None) -> None:
        """`member` tells the workers of an app apart; one that comes under the name of another takes its place.

        `folder` is where faust makes folders for tables that it does not have; None: a temporary one.
        """
        self._member = member
        self._folder = folder
        self._bootstrap = bootstrap
        self._app_id = app_id
        self._topics = list(topics)
        self._app: Any = None
        self._stopped = asyncio.Event()
        self._error: BaseException | None = None

    async def run(self, deliver: Deliver, ready: Callable[[], None]) -> None:
        with tempfile.TemporaryDirectory() if self._folder is None else nullcontext(self._folder) as folder:
            await self._run(deliver, ready, str(folder))

    async def _run(self, deliver: Deliver, ready: Callable[[], None], folder: str) -> None:
        app = faust.App(
            self._app_id,
            broker=f"kafka://{self._bootstrap}",
            store="memory://",
            datadir=folder,
            key_serializer="raw",
            value_serializer="raw",
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            consumer_group_instance_id=f"{self._app_id}-{self._member}",
            consumer_auto_offset_reset="earliest",
            broker_session_timeout=10.0,
            broker_heartbeat_interval=2.0,
            broker_commit_interval=1.0,
            stream_wait_empty=False,
            loop=asyncio.get_running_loop(),
            autodiscover=False,
        )
        self._app = app
        topic = app.topic(*self._topics, key_type=bytes, value_type=bytes, allow_empty=True)

        waiting: asyncio.Queue[Any] = asyncio.Queue(_AHEAD)

        async def consume(stream: Any) -> None:
            async for event in stream.events():
                # faust acknowledges whatever the iteration was left with; one reference more keeps it from that until it was delivered.
                event.message.incref()
                await waiting.put(event)

        app.agent(topic, concurrency=1, name="deliver")(consume)

        async def assigned(sender: Any, *_: Any, **__: Any) -> None:
            ready()

        app.on_partitions_assigned.connect(assigned)
        app.finalize()
        await app.start()
        delivering = asyncio.create_task(self._deliver(waiting, deliver))
        try:
            while not self._stopped.is_set():
                waits = [asyncio.ensure_future(self._stopped.wait()), asyncio.ensure_future(app.wait_until_stopped())]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for wait in waits:
                    wait.cancel()
                if not self._stopped.is_set():
                    raise RuntimeError(f"faust stopped by itself: {app.crash_reason}")
        finally:
            delivering.cancel()
            await app.stop()
        if self._error is not None:
            raise self._error

    async def _deliver(self, waiting: asyncio.Queue[Any], deliver: Deliver) -> None:
        """All that has come at once, since handling many together costs less than one by one."""
        try:
            while True:
                events = [await waiting.get()]
                await _while_it_grows(waiting)
                while not waiting.empty():
                    events.append(waiting.get_nowait())
                await deliver(*(_as_record(event.message) for event in events))
                for event in events:
                    event.ack()
        except Exception as error:
            # Never let faust see it: it would restart the agent after this record.
            self._error = error
            self._stopped.set()

    async def stop(self) -> None:
        self._stopped.set()


async def _while_it_grows(waiting: asyncio.Queue[Any]) -> None:
    """faust hands over one event in a few turns of the loop; what it has fetched already is worth waiting for, and costs no time."""
    seen, turns = waiting.qsize(), 0
    while turns < _TURNS and not waiting.full():
        await asyncio.sleep(0)
        seen, turns = (waiting.qsize(), 0) if waiting.qsize() > seen else (seen, turns + 1)


def _as_record(raw: Any) -> Record:
    timestamp = round((raw.timestamp or 0) * 1000)
    return Record(raw.topic, raw.partition, raw.offset, timestamp, raw.key, raw.value, tuple(raw.headers or ()))
