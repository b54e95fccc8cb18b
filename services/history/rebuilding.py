"""A new database from the log, beside the one that answers, and swapped in when it knows as much. A crash leaves the old one.

What the log no longer has comes from the old database, and metrics that it has not either from what agents have archived.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
import structlog

from services.chassis.loop.kafka_feed import KafkaFeed
from services.chassis.records import Place, Unavailable
from services.history import tables
from services.history.applying import TOPICS, Applier, check_log, in_sequence
from services.history.archives import restore
from services.history.databases import Database, Databases
from services.history.projecting import apply, apply_with_care, fold_all
from services.history.reading import LOGS, METRICS, Batch
from trainyard._objects import Objects
from trainyard.job.v1 import telemetry_pb2 as telemetry

log = structlog.get_logger()
_BATCH = 20_000
_POLL_MS = 500
_SILENT_POLLS = 60


class AlreadyRebuilding(Exception):
    """One at a time."""


@dataclass(frozen=True)
class Step:
    """Records applied so far, of those that lay in the log when it began."""

    events: int
    of: int
    done: bool = False


class Rebuilder:
    """Works on a thread of the caller's; one rebuild at a time."""

    def __init__(self, bootstrap: str, databases: Databases, applier: Applier, objects: Objects) -> None:
        self._bootstrap = bootstrap
        self._databases = databases
        self._applier = applier
        self._objects = objects
        self._running = threading.Lock()

    @property
    def going_on(self) -> bool:
        return self._running.locked()

    def run(self, tell: Callable[[Step], None]) -> None:
        """Raises AlreadyRebuilding, Unavailable and what the database raises; the old database then stays as it is."""
        if not self._running.acquire(blocking=False):
            raise AlreadyRebuilding
        try:
            made = self._databases.begin()
            try:
                done = self._fill(made, tell)
                made = self._databases.settle(made)
                self._take_its_place(made)
            except BaseException:
                # What fails after the swap must not take the current database with it.
                if self._applier.database is not made:
                    made.retire()
                raise
            log.info("rebuilt", records=done.events, generation=made.generation)
            tell(Step(done.events, done.of, done=True))
        finally:
            self._running.release()

    def _fill(self, made: Database, tell: Callable[[Step], None]) -> Step:
        feed = KafkaFeed(self._bootstrap, most=_BATCH)
        try:
            places = feed.places(TOPICS)
            ends, begins = feed.ends(places), feed.begins(places)
            at = dict(begins)
            of = sum(ends.values())
            count = self._carry_over(made, {place: begin for place, begin in begins.items() if begin})
            tell(Step(count, of))
            feed.assign(at)
            for raws in _up_to(feed, at, ends):
                apply_with_care(made, raws, fold=False)
                count += len(raws)
                tell(Step(count, max(of, count)))
            if any(begin for place, begin in begins.items() if place.topic == METRICS):
                count += restore(made, self._objects)
            with made.writing() as connection:
                fold_all(connection)
            return Step(count, max(of, count))
        finally:
            feed.close()

    def _carry_over(self, made: Database, begins: Mapping[Place, int]) -> int:
        """What the log no longer has and the old database still does: topics with short retention lose their oldest records."""
        count = 0
        with self._applier.reading() as old:
            for raws in _gone(old, begins):
                apply_with_care(made, raws, fold=False)
                count += len(raws)
            refused = [row._asdict() for place, begin in begins.items() for row in old.execute(_refused_before(place, begin))]
        with made.writing() as connection:
            if refused:
                connection.execute(tables.insert_once(connection.dialect.name, tables.refused), refused)
            apply(connection, Batch(positions=dict(begins)))
        return count

    def _take_its_place(self, made: Database) -> None:
        """The last records come while the live side stands still, so that the new database knows at least as much."""
        feed = KafkaFeed(self._bootstrap, most=_BATCH)
        try:
            places = feed.places(TOPICS)
            begins = feed.begins(places)
            known = made.positions()
            at = {place: max(known.get(place, 0), begins[place]) for place in places}
            feed.assign(at)
            for raws in _up_to(feed, at, feed.ends(places)):
                apply_with_care(made, raws)
            with self._applier.holding_still() as replace:
                ends = feed.ends(places)
                check_log(made.positions(), ends)
                for raws in _up_to(feed, at, ends):
                    apply_with_care(made, raws)
                positions = made.positions()
                self._databases.swap(made)
                replace(made, positions)
        finally:
            feed.close()


def _up_to(feed: KafkaFeed, at: dict[Place, int], ends: Mapping[Place, int]) -> Iterator[list[Any]]:
    """What lies before the ends, and whatever comes with it. Raises Unavailable where the log falls silent."""
    silent = 0
    while any(at.get(place, 0) < end for place, end in ends.items()):
        raws = in_sequence(feed.poll(_POLL_MS), at)
        silent = 0 if raws else silent + 1
        if silent > _SILENT_POLLS:
            raise Unavailable("Kafka gives nothing, although there is more")
        if raws:
            yield raws


def _refused_before(place: Place, begin: int) -> sa.Select[Any]:
    table = tables.refused
    return sa.select(table).where(table.c.topic == place.topic, table.c["partition"] == place.partition, table.c["offset"] < begin)


def _gone(old: sa.Connection, begins: Mapping[Place, int]) -> Iterator[list[Any]]:
    """Rows as the records that they once were, oldest first in each partition."""
    kinds = ((METRICS, tables.metrics, telemetry.MetricBatch), (LOGS, tables.chunks, telemetry.LogChunk))
    for place, begin in sorted(begins.items()):
        for topic, table, kind in kinds:
            if place.topic != topic:
                continue
            lost = sa.select(table).where(table.c["partition"] == place.partition, table.c["offset"] < begin)
            rows = old.execute(lost.order_by(table.c["offset"]).execution_options(yield_per=5000))
            for some in rows.partitions(5000):
                yield [_record(topic, row, kind.DESCRIPTOR.full_name) for row in some]


def _record(topic: str, row: Any, kind: str) -> Any:
    headers = [("ce_type", kind.encode()), ("ce_id", (getattr(row, "event_id", "") or "kept").encode())]
    return SimpleNamespace(
        topic=topic,
        partition=row.partition,
        offset=row.offset,
        timestamp=row.at,
        key=row.run_id.encode(),
        value=bytes(row.value),
        headers=headers,
    )
