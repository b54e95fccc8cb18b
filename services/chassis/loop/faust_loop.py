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

        async def consume(stream: Any) -> None:
            async for event in stream.events():
                raw = event.message
                record = Record(
                    raw.topic,
                    raw.partition,
                    raw.offset,
                    round((raw.timestamp or 0) * 1000),
                    raw.key,
                    raw.value,
                    tuple(raw.headers or ()),
                )
                try:
                    await deliver(record)
                except BaseException as error:
                    # faust acknowledges whatever the iteration was left with; one reference more keeps it from doing so.
                    raw.incref()
                    if isinstance(error, asyncio.CancelledError):
                        raise
                    # Never let faust see the error either: it would restart the agent after this record.
                    self._error = error
                    self._stopped.set()
                    await asyncio.Event().wait()

        app.agent(topic, concurrency=1, name="deliver")(consume)

        async def assigned(sender: Any, *_: Any, **__: Any) -> None:
            ready()

        app.on_partitions_assigned.connect(assigned)
        app.finalize()
        await app.start()
        try:
            while not self._stopped.is_set():
                waits = [asyncio.ensure_future(self._stopped.wait()), asyncio.ensure_future(app.wait_until_stopped())]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for wait in waits:
                    wait.cancel()
                if not self._stopped.is_set():
                    raise RuntimeError(f"faust stopped by itself: {app.crash_reason}")
        finally:
            await app.stop()
        if self._error is not None:
            raise self._error

    async def stop(self) -> None:
        self._stopped.set()
