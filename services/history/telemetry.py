"""Metrics and log lines out of the tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from services.history.domain.moment import Moment
from services.history.reading import LOGS, METRICS, clean
from services.history.tables import chunks, metric_ranks, metrics, up_to
from trainyard.job.v1.telemetry_pb2 import LogChunk, MetricBatch


@dataclass(frozen=True)
class At:
    """A point of a run: the batch's place and the number within."""

    partition: int = -1
    offset: int = -1
    index: int = -1


def newest_epoch(connection: sa.Connection, run_id: str, moment: Moment | None) -> int:
    """Of the attempts that logged a metric; 0: none did."""
    query = sa.select(sa.func.max(metrics.c.epoch)).where(metrics.c.run_id == run_id, up_to(metrics, moment, METRICS))
    return int(connection.execute(query).scalar() or 0)


Preferred = Mapping[tuple[int, str], int]
"""(epoch, name of a metric) -> the rank whose points are given."""


def preferred_ranks(connection: sa.Connection, run_id: str, moment: Moment | None) -> Preferred:
    """Rank 0, or of a name that it never logged in the attempt the lowest that did: a distributed script logs the same name in every rank."""
    query = (
        sa.select(metric_ranks.c.epoch, metric_ranks.c.name, sa.func.min(metric_ranks.c["rank"]).label("lowest"))
        .where(metric_ranks.c.run_id == run_id, up_to(metric_ranks, moment))
        .group_by(metric_ranks.c.epoch, metric_ranks.c.name)
    )
    return {(row.epoch, row.name): row.lowest for row in connection.execute(query)}


@dataclass(frozen=True)
class Part:
    """Those points of a batch that are wanted; `numbers` are theirs within the batch as it lies in the log."""

    partition: int
    offset: int
    batch: MetricBatch
    numbers: Sequence[int]

    def first(self, count: int) -> MetricBatch:
        batch = self.batch
        return MetricBatch(run_id=batch.run_id, epoch=batch.epoch, rank=batch.rank, points=batch.points[:count])


def parts(
    connection: sa.Connection,
    run_id: str,
    moment: Moment | None,
    epoch: int | None,
    ranks: Collection[int],
    name: str,
    after: At,
    preferred: Preferred | None = None,
) -> Iterator[Part]:
    """As they lie in the log, what comes after a point; a batch that was sent twice counts once. `epoch` None: of every attempt.

    `preferred`: of a name that stands there only that rank's points.
    """
    wanted = [metrics.c.run_id == run_id, up_to(metrics, moment, METRICS)]
    if epoch is not None:
        wanted.append(metrics.c.epoch == epoch)
    if ranks:
        wanted.append(metrics.c["rank"].in_(sorted(set(ranks))))
    place = sa.tuple_(metrics.c["partition"], metrics.c["offset"])
    start = sa.tuple_(sa.literal(after.partition), sa.literal(after.offset))
    # What earlier pages gave is not read again, but for what tells a batch that was sent twice.
    seen = set(connection.execute(sa.select(metrics.c.event_id).where(*wanted, place < start)).scalars())
    query = sa.select(metrics).where(*wanted, place >= start).order_by(metrics.c["partition"], metrics.c["offset"])
    for row in connection.execute(query.execution_options(yield_per=100)):
        if row.event_id in seen:
            continue
        seen.add(row.event_id)
        batch = MetricBatch.FromString(bytes(row.value))
        first = after.index + 1 if (row.partition, row.offset) == (after.partition, after.offset) else 0
        numbers: Sequence[int] = range(first, len(batch.points))
        if preferred is not None:
            numbers = [it for it in numbers if preferred.get((row.epoch, clean(batch.points[it].name)), row.rank) == row.rank]
        if name:
            numbers = [number for number in numbers if batch.points[number].name == name]
        if len(numbers) < len(batch.points):
            points = [batch.points[number] for number in numbers]
            batch = MetricBatch(run_id=batch.run_id, epoch=batch.epoch, rank=batch.rank, points=points)
        if numbers:
            yield Part(row.partition, row.offset, batch, numbers)


@dataclass(frozen=True)
class LogOf:
    """A log of a rank in an attempt, as it was at the moment."""

    run_id: str
    log: str
    rank: int
    epoch: int
    moment: Moment | None = None


def newest_log_epoch(connection: sa.Connection, of: LogOf) -> int:
    """Whatever attempt `of` names; 0: nothing was written to it."""
    query = sa.select(sa.func.max(chunks.c.epoch)).where(*_of_any_epoch(of))
    return int(connection.execute(query).scalar() or 0)


def first_line(connection: sa.Connection, of: LogOf) -> int | None:
    """The lowest line that history holds; None: it holds none."""
    found = connection.execute(
        sa.select(sa.func.min(chunks.c.first_line)).where(*_of(of), chunks.c.next_line > chunks.c.first_line)
    ).scalar()
    return None if found is None else int(found)


def exists(connection: sa.Connection, of: LogOf) -> bool:
    return connection.execute(sa.select(chunks.c.epoch).where(*_of(of)).limit(1)).first() is not None


def has_ended(connection: sa.Connection, of: LogOf) -> bool:
    return connection.execute(sa.select(chunks.c.epoch).where(*_of(of), chunks.c.last == 1).limit(1)).first() is not None


def lines(connection: sa.Connection, of: LogOf, start: int) -> Iterator[tuple[int, str]]:
    """(number, text) from the line on, each once, in order."""
    query = sa.select(chunks.c.value).where(*_of(of), chunks.c.next_line > start)
    rows = connection.execute(
        query.order_by(chunks.c.first_line, chunks.c["partition"], chunks.c["offset"]).execution_options(yield_per=200)
    )
    wanted = start
    for row in rows:
        chunk = LogChunk.FromString(bytes(row.value))
        for number, text in enumerate(chunk.lines, start=chunk.first_line):
            if number >= wanted:
                wanted = number + 1
                yield number, text


def _of(of: LogOf) -> tuple[sa.ColumnElement[Any], ...]:
    return (*_of_any_epoch(of), chunks.c.epoch == of.epoch)


def _of_any_epoch(of: LogOf) -> tuple[sa.ColumnElement[Any], ...]:
    return (chunks.c.run_id == of.run_id, chunks.c.log == of.log, chunks.c["rank"] == of.rank, up_to(chunks, of.moment, LOGS))
