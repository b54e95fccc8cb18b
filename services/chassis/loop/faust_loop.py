"""Kafka by faust: the default loop, with the settings under which it was measured to behave best.

Why each one: docs/adr/0001-faust-is-the-loop-not-the-guarantee.md.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from contextlib import aclosing, nullcontext
from pathlib import Path
from typing import Any

import faust
from faust.transport.drivers import aiokafka as driver

from services.chassis.records import Deliver, Record

# Records that may wait for the service; beyond that faust waits.
_AHEAD = 500
# Of the loop, in which nothing more has come.
_TURNS = 5
# faust's own is 1500. Its client asks for one answer at a time, and not for partitions of which something lies here unread: these
# would wait so long whenever the others are silent.
_FETCH_WAIT_MS = 50


class _ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS  # faust hands on no option for it
        return consumer


class _Consumer(driver.Consumer):  # type: ignore[misc]
    """Puts what it reads straight into a queue. faust's own way, four tasks for each record and then its streams and agents, costs as
    much as all that is done with a record here, and what is put into them is nothing but passed on."""

    waiting: asyncio.Queue[Any]

    def _new_consumer_thread(self) -> Any:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _drain_messages(self, fetcher: Any) -> None:
        while not (self.should_stop or fetcher.should_stop):
            async with aclosing(self.getmany(timeout=1.0)) as found:
                async for place, message in found:
                    if not await self._hand_over(place, message):
                        break
            await asyncio.sleep(0)

    async def _hand_over(self, place: Any, message: Any) -> bool:
        """False where it must wait for the end of a rebalance: then it comes again."""
        before = self._read_offset[place]
        if before is not None and message.offset < before:
            return True
        if before and message.offset - before > 1:
            # faust's own bookkeeping of a gap makes a number of each offset that is missing: millions, where retention went by.
            # It must be told all the same, or it would wait for them before it commits anything more.
            self._committed_offset[place] = message.offset
        if self.waiting.full():
            put = self.waiting.put(message)
            if put not in (await self.wait_first(put, self.suspend_flow.wait())).done:
                return False
        else:
            self.waiting.put_nowait(message)
        self._read_offset[place] = message.offset
        return True

    def verify_event_path(self, now: float, tp: Any) -> None:
        """It would look at the streams that nothing goes through. The progress guard looks at what counts."""


class _Transport(driver.Transport):  # type: ignore[misc]
    def __init__(self, app: Any, waiting: asyncio.Queue[Any]) -> None:
        super().__init__(app.conf.broker_consumer, app)
        self._waiting = waiting

    def create_consumer(self, callback: Any, **options: Any) -> Any:
        consumer = _Consumer(self, callback=callback, loop=self.loop, **options)
        consumer.waiting = self._waiting
        return consumer


class FaustLoop:
    """One worker, a static member id, raw bytes; no streams and agents, and the web server stays off."""

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
            # What a dying broker has taken and never answers, a commit or a fetch, holds up all that follows for so long; 90 s by default.
            broker_request_timeout=20.0,
            broker_session_timeout=10.0,
            broker_heartbeat_interval=2.0,
            broker_commit_interval=1.0,
            stream_wait_empty=False,
            loop=asyncio.get_running_loop(),
            autodiscover=False,
        )
        self._app = app
        waiting: asyncio.Queue[Any] = asyncio.Queue(_AHEAD)
        app.transport = _Transport(app, waiting)
        app.topics.add(app.topic(*self._topics, key_type=bytes, value_type=bytes, allow_empty=True))

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
                messages = [await waiting.get()]
                await _while_it_grows(waiting)
                while not waiting.empty():
                    messages.append(waiting.get_nowait())
                await deliver(*map(_as_record, messages))
                for message in messages:
                    self._app.consumer.ack(message)
        except Exception as error:
            # Nothing of these is acknowledged: whoever is started next gets them again.
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
