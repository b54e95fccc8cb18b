"""A batch of records into the tables, positions included, in one transaction."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from google.protobuf.timestamp_pb2 import Timestamp

from services.history import tables
from services.history.databases import Database
from services.history.domain.moment import Fact, Moment, Spot
from services.history.domain.run import Story, tell
from services.history.reading import METRICS, Batch, Row, clean, take, within
from trainyard._cloudevents import message_class
from trainyard._times import FIRST_SECOND, LAST_SECOND
from trainyard.job.v1.job_pb2 import Run

_FOLDED_AT_ONCE = 500
# PostgreSQL's word for a key that its index has no room for.
_PROGRAM_LIMIT_EXCEEDED = "54000"


def apply(connection: sa.Connection, batch: Batch, *, fold: bool = True) -> None:
    """Runs that the batch touches are told anew, unless `fold` is False: then `fold_all` must follow before anyone looks."""
    dialect = connection.dialect.name
    for table, rows in ((tables.facts, batch.facts), (tables.metrics, batch.metrics), (tables.chunks, batch.chunks)):
        _write(connection, _once(dialect, table), rows)
    _write(connection, _once(dialect, tables.refused), batch.refused)
    names = [
        {"run_id": run_id, "epoch": epoch, "name": name, **spot._asdict(), "topic": METRICS}
        for (run_id, epoch, name), spot in batch.names.items()
    ]
    _write(connection, _first(dialect, tables.metric_names), names)
    ranked = [
        {"run_id": run_id, "epoch": epoch, "name": name, "rank": rank, **spot._asdict(), "topic": METRICS}
        for (run_id, epoch, name, rank), spot in batch.ranked_names.items()
    ]
    _write(connection, _first(dialect, tables.metric_ranks), ranked)
    _write(connection, _first(dialect, tables.ranks), batch.ranks)
    _write(connection, _first(dialect, tables.checkpoints), batch.checkpoints)
    for table, rows in ((tables.pool_facts, batch.pools), (tables.model_facts, batch.models), (tables.endpoint_facts, batch.endpoints)):
        _write(connection, _once(dialect, table), rows)
    _write(connection, _first(dialect, tables.nodes), [{**node._asdict(), **spot._asdict()} for node, spot in batch.nodes])
    _write(connection, _first(dialect, tables.edges), [{**edge._asdict(), **spot._asdict()} for edge, spot in batch.edges])
    if fold:
        _fold(connection, sorted({row["run_id"] for row in batch.facts}))
    moved = [{"topic": place.topic, "partition": place.partition, "next_offset": offset} for place, offset in batch.positions.items()]
    _write(connection, _over(dialect, tables.positions), moved)


def apply_with_care(database: Database, raws: Sequence[Any], *, fold: bool = True) -> Batch:
    """Records of a Kafka client, applied in one transaction. One that the database refuses is refused alone, whatever came with it."""
    batch = Batch()
    take(batch, raws)
    try:
        with database.writing() as connection:
            apply(connection, batch, fold=fold)
        return batch
    except (sa.exc.DBAPIError, OverflowError, ValueError) as error:
        if not _is_of_a_record(error):
            raise
        if len(raws) == 1:
            return _refuse(database, batch, raws[0], type(error).__name__)
    whole = Batch()
    for half in (raws[: len(raws) // 2], raws[len(raws) // 2 :]):
        done = apply_with_care(database, half, fold=fold)
        whole.positions.update(done.positions)
        whole.records += done.records
    return whole


def _is_of_a_record(error: Exception) -> bool:
    """The database stands, and a value is none that it takes. Anything else may pass, or must be seen."""
    if not isinstance(error, sa.exc.DBAPIError):
        return True
    too_large = getattr(error.orig, "sqlstate", "") == _PROGRAM_LIMIT_EXCEEDED
    return isinstance(error, sa.exc.DataError) or too_large


def _refuse(database: Database, batch: Batch, raw: Any, what: str) -> Batch:
    refusal = Batch(positions=batch.positions, records=1)
    why = f"the database does not take it: {what}"
    refusal.refused.append({"topic": raw.topic, "partition": raw.partition, "offset": raw.offset, "at": raw.timestamp, "why": why})
    with database.writing() as connection:
        apply(connection, refusal)
    return refusal


def fold_all(connection: sa.Connection) -> None:
    """Tells every run from its facts."""
    dialect = connection.dialect.name
    rows = connection.execute(_all_facts)
    groups = ((run_id, [_fact(row) for row in group]) for run_id, group in itertools.groupby(rows, key=lambda row: row.run_id))
    stories = (story for _, facts in groups if (story := tell(facts)) is not None)
    while some := list(itertools.islice(stories, _FOLDED_AT_ONCE)):
        _write_stories(connection, dialect, some)


def story_of(connection: sa.Connection, run_id: str, moment: Moment | None = None) -> Story | None:
    """The run at the moment, or as it is now."""
    return tell(facts_of(connection, run_id, moment))


def facts_of(connection: sa.Connection, run_id: str, moment: Moment | None = None) -> Iterator[Fact]:
    for row in connection.execute(_facts_of_runs, {"ids": [run_id]}).all():
        if moment is None or moment.includes(Spot(row.at, row.topic, row.partition, row.offset)):
            yield _fact(row)


_facts_of_runs = sa.select(tables.facts).where(tables.facts.c.run_id.in_(sa.bindparam("ids", expanding=True)))
_all_facts = sa.select(tables.facts).order_by(tables.facts.c.run_id).execution_options(yield_per=5000)


def facts_by_name(connection: sa.Connection, table: sa.Table, name: str, moment: Moment | None = None) -> Iterator[Fact]:
    """Of a pool, or under pools.POLICY of the policy; of a model; of an endpoint."""
    for row in connection.execute(sa.select(table).where(table.c.name == name)).all():
        if moment is None or moment.includes(Spot(row.at, row.topic, row.partition, row.offset)):
            yield _fact(row)


def _fact(row: Any) -> Fact:
    message = message_class(row.type).FromString(bytes(row.value))
    return Fact(Spot(row.at, row.topic, row.partition, row.offset), row.event_id, message)


def _fold(connection: sa.Connection, run_ids: Collection[str]) -> None:
    dialect = connection.dialect.name
    for some in _batched(run_ids):
        by_run: dict[str, list[Fact]] = {}
        for row in connection.execute(_facts_of_runs, {"ids": some}):
            by_run.setdefault(row.run_id, []).append(_fact(row))
        _write_stories(connection, dialect, [story for facts in by_run.values() if (story := tell(facts)) is not None])


def _batched(items: Iterable[str]) -> Iterator[list[str]]:
    walk = iter(items)
    while some := list(itertools.islice(walk, _FOLDED_AT_ONCE)):
        yield some


def _write_stories(connection: sa.Connection, dialect: str, stories: Sequence[Story]) -> None:
    if not stories:
        return
    connection.execute(_forget_labels, {"ids": [story.run.run_id for story in stories]})
    _write(connection, _over(dialect, tables.runs), [_row(story) for story in stories])
    labels = [
        {"run_id": story.run.run_id, "kind": kind, "name": clean(name), "value": clean(value)}
        for story in stories
        for kind, found in (("tag", story.run.tags), ("property", story.run.properties))
        for name, value in sorted(found.items())
    ]
    _write(connection, _over(dialect, tables.labels), labels)


_forget_labels = sa.delete(tables.labels).where(tables.labels.c.run_id.in_(sa.bindparam("ids", expanding=True)))


def _row(story: Story) -> Row:
    run = story.run
    return {
        "run_id": run.run_id,
        "experiment": clean(run.experiment),
        "number": within(run.number),
        "parent_run_id": clean(run.parent_run_id),
        "display_name": clean(run.display_name),
        "status": run.status,
        "queued_at": milliseconds(run.queued_at),
        "first_at": story.first_at,
        "last_at": story.last_at,
        "message": in_short(run).SerializeToString(deterministic=True),
    }


def in_short(run: Run) -> Run:
    """As lists show it: without spec, outputs and members."""
    short = Run()
    short.CopyFrom(run)
    short.ClearField("spec")
    short.ClearField("outputs")
    short.ClearField("members")
    return short


def milliseconds(stamp: Timestamp) -> int:
    return max(FIRST_SECOND * 1000, min(LAST_SECOND * 1000, stamp.seconds * 1000 + stamp.nanos // 1_000_000))


def _write(connection: sa.Connection, statement: Any, rows: Sequence[Row]) -> None:
    if rows:
        connection.execute(statement, rows)


# Built once: making a statement costs SQLAlchemy more than running it.
_once = cache(tables.insert_once)
_first = cache(tables.earliest)
_over = cache(tables.upsert)
