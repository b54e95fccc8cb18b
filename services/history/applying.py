"""The live side: reads the log from where the database stands, applies it batch by batch, and tells who waits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
import structlog

from services.chassis.engine import LogReplaced
from services.chassis.loop.kafka_feed import KafkaFeed
from services.chassis.records import Place, Unavailable
from services.chassis.topics import topics
from services.history.databases import Database, Databases
from services.history.projecting import apply, apply_with_care
from services.history.reading import Batch

log = structlog.get_logger()
TOPICS = tuple(topic.name for topic in topics().values() if not topic.ephemeral)
_KEPT_FOR_EVER = frozenset(topic.name for topic in topics().values() if topic.retention_ms < 0)
_POLL_MS = 500
_RETRY_SECONDS = 0.5


class Applied:
    """What has been applied, and a place to wait for more. Read from any thread; waited for on the loop it was made on."""

    def __init__(self, positions: Mapping[Place, int]) -> None:
        self.positions: dict[Place, int] = dict(positions)
        self.loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def advance(self, positions: Mapping[Place, int]) -> None:
        """From any thread. Never goes back: a new database may only know more."""
        for place, offset in positions.items():
            self.positions[place] = max(offset, self.positions.get(place, 0))
        self.loop.call_soon_threadsafe(self._wake)

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """True as soon as it holds, looked at after every batch; False when the time is up."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _wake(self) -> None:
        waited, self._changed = self._changed, asyncio.Event()
        waited.set()


class LogHole(RuntimeError):
    """A record between two that were read is missing from a topic that is kept for ever."""


class Applier(threading.Thread):
    """The only writer of the current database."""

    def __init__(self, bootstrap: str, databases: Databases, applied: Applied, database: Database) -> None:
        super().__init__(name="applier", daemon=True)
        self._kafka = bootstrap
        self._databases = databases
        self._applied = applied
        self._database = database
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def database(self) -> Database:
        """The current one. Ask for it anew with each look."""
        return self._database

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """The current database; one that is retired between the question and the look is asked for anew."""
        while True:
            database = self._database
            with database.reading() as connection:
                if database is self._database:
                    yield connection
                    return

    @contextmanager
    def holding_still(self) -> Iterator[Callable[[Database, Mapping[Place, int]], None]]:
        """Nothing is applied inside; what it gives puts another database in the current one's place."""
        with self._lock:
            yield self._replace

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        told = False
        while not self._stopped.is_set():
            try:
                self._follow()
            except Unavailable as error:
                if not told:
                    log.warning("waits for Kafka", reason=str(error))
                told = True
                time.sleep(_RETRY_SECONDS)
            except Exception as error:
                log.exception("the applier failed")
                self._applied.loop.call_soon_threadsafe(_fail, self.failed, error)
                return

    def _follow(self) -> None:
        feed = KafkaFeed(self._kafka)
        try:
            places = feed.places(TOPICS)
            check_log(self._database.positions(), feed.ends(places))
            begins = feed.begins(places)
            while not self._stopped.is_set():
                database = self._database
                known = database.positions()
                at = {place: max(known.get(place, 0), begins[place]) for place in places}
                gone = {place: offset for place, offset in at.items() if offset > known.get(place, 0)}
                if gone:
                    # Nobody will bring these records any more: they must not be waited for.
                    with database.writing() as connection:
                        apply(connection, Batch(positions=gone))
                feed.assign(at)
                self._applied.advance(at)
                self._feed(feed, database, at)
        finally:
            feed.close()

    def _feed(self, feed: KafkaFeed, database: Database, at: dict[Place, int]) -> None:
        """Until another database has taken the place of this one."""
        while not self._stopped.is_set():
            groups = feed.poll(_POLL_MS)
            # Whoever wants it to hold still gets the lock while it polls.
            with self._lock:
                if database is not self._database:
                    return
                if raws := in_sequence(groups, at):
                    apply_with_care(database, raws)
                    self._applied.advance(at)

    def _replace(self, database: Database, positions: Mapping[Place, int]) -> None:
        old, self._database = self._database, database
        self._applied.advance(positions)
        try:
            old.retire()
        except (OSError, sa.exc.SQLAlchemyError) as error:
            log.warning("the old database stays until the next start", reason=str(error))


def _fail(failed: asyncio.Future[None], error: Exception) -> None:
    if not failed.done():
        failed.set_exception(error)


def check_log(positions: Mapping[Place, int], ends: Mapping[Place, int]) -> None:
    """Raises LogReplaced where more was applied than the log ever had."""
    for place, end in ends.items():
        if end < positions.get(place, 0):
            raise LogReplaced(
                f"{place.topic}/{place.partition} ends at {end}, and {positions[place]} records of it were applied: the log was replaced "
                f"or cut. If this log is the right one, remove the database of history: it is filled anew."
            )


def in_sequence(groups: Sequence[Sequence[Any]], at: dict[Place, int]) -> list[Any]:
    """The records that come next, without those that were there; `at` moves on. Raises LogHole."""
    raws: list[Any] = []
    for group in groups:
        first, last = group[0], group[-1]
        place = Place(first.topic, first.partition)
        wanted = at.get(place, 0)
        if first.offset != wanted or last.offset - first.offset + 1 != len(group):
            group = _without_holes(group, place, wanted)
        if group:
            raws += group
            at[place] = group[-1].offset + 1
    return raws


def _without_holes(group: Sequence[Any], place: Place, wanted: int) -> list[Any]:
    found = []
    for raw in group:
        offset: int = raw.offset
        if offset < wanted:
            continue
        if offset > wanted:
            if place.topic in _KEPT_FOR_EVER:
                raise LogHole(f"{place.topic}/{place.partition} gave {offset} where {wanted} was due")
            log.warning("old records are gone from the log", topic=place.topic, partition=place.partition, count=offset - wanted)
        found.append(raw)
        wanted = offset + 1
    return found
