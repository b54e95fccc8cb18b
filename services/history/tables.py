"""The tables of history. Raw facts by run, and projections of them; every row is a function of the log and of nothing else."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from services.history.domain.moment import Moment, Spot

schema = sa.MetaData()
# Sorted by bytes everywhere, whatever language the database speaks.
_Text = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_Whole = sa.BigInteger


def _table(name: str, *columns: sa.Column[Any], **more: Any) -> sa.Table:
    return sa.Table(name, schema, *columns, sqlite_with_rowid=False, **more)


def _key(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, primary_key=True, autoincrement=False)


def _column(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _spot() -> tuple[sa.Column[Any], ...]:
    """Where and when the record lies that a row is of."""
    return _column("at", _Whole), _column("topic", _Text), _column("partition", _Whole), _column("offset", _Whole)


positions = _table("positions", _key("topic", _Text), _key("partition", _Whole), _column("next_offset", _Whole))
"""How far each partition was applied: written with the effect."""

refused = _table(
    "refused", _key("topic", _Text), _key("partition", _Whole), _key("offset", _Whole), _column("at", _Whole), _column("why", _Text)
)
"""Records that cannot be read, or are of a type that this version does not know."""

facts = _table(
    "run_facts",
    _key("run_id", _Text),
    _key("topic", _Text),
    _key("partition", _Whole),
    _key("offset", _Whole),
    _column("at", _Whole),
    _column("event_id", _Text),
    _column("type", _Text),
    _column("value", sa.LargeBinary),
)
"""What was said of a run, as it lies in the log: any view of it at any moment is told from these."""

metrics = _table(
    "metric_batches",
    _key("run_id", _Text),
    _key("partition", _Whole),
    _key("offset", _Whole),
    _column("at", _Whole),
    _column("event_id", _Text),
    _column("epoch", _Whole),
    _column("rank", _Whole),
    _column("value", sa.LargeBinary),
)
metric_names = _table(
    "metric_names",
    _key("run_id", _Text),
    _key("epoch", _Whole),
    _key("name", _Text),
    *_spot(),
)
"""The first record of each name."""

metric_ranks = _table(
    "metric_ranks",
    _key("run_id", _Text),
    _key("epoch", _Whole),
    _key("name", _Text),
    _key("rank", _Whole),
    *_spot(),
)
"""The first record of each name that a rank logged."""

ranks = _table(
    "rank_reports",
    _key("run_id", _Text),
    _key("epoch", _Whole),
    _key("rank", _Whole),
    _key("agent_id", _Text),
    _key("incarnation", _Text),
    _key("type", _Text),
    *_spot(),
    _column("value", sa.LargeBinary),
)
"""That a rank started, and that it ended, as its agent said first. No part of the facts: a gang has thousands, and no status hangs on them."""
checkpoints = _table(
    "checkpoints",
    _key("run_id", _Text),
    _key("epoch", _Whole),
    _key("agent_id", _Text),
    _key("incarnation", _Text),
    _key("number", _Whole),
    *_spot(),
    _column("files", _Whole),
    _column("bytes", _Whole),
)
"""What was saved while a run went on, without the lists of files: a long run saves thousands."""


def _facts_by_name(name: str) -> sa.Table:
    place = (_key("topic", _Text), _key("partition", _Whole), _key("offset", _Whole), _column("at", _Whole))
    return _table(name, _key("name", _Text), *place, _column("event_id", _Text), _column("type", _Text), _column("value", sa.LargeBinary))


pool_facts = _facts_by_name("pool_facts")
"""What was said of a pool, and under the name "policy" of how the queue is ordered."""
model_facts = _facts_by_name("model_facts")
"""What was said of a model, its versions and aliases."""
endpoint_facts = _facts_by_name("endpoint_facts")
"""What was said of an endpoint: which deployments answered when."""

chunks = _table(
    "log_chunks",
    _key("run_id", _Text),
    _key("log", _Text),
    _key("rank", _Whole),
    _key("epoch", _Whole),
    _key("first_line", _Whole),
    _key("partition", _Whole),
    _key("offset", _Whole),
    _column("at", _Whole),
    _column("next_line", _Whole),
    _column("last", _Whole),
    _column("value", sa.LargeBinary),
)

nodes = _table(
    "nodes",
    _key("id", _Text),
    _column("kind", _Text),
    _column("name", _Text),
    _column("version", _Whole),
    _column("label", _Text),
    *_spot(),
)
edges = _table(
    "edges",
    _key("source", _Text),
    _key("target", _Text),
    _key("how", _Text),
    *_spot(),
)
sa.Index("nodes_by_name", nodes.c.kind, nodes.c.name, nodes.c.version)
sa.Index("edges_by_target", edges.c.target)

runs = _table(
    "runs",
    _key("run_id", _Text),
    _column("experiment", _Text),
    _column("number", _Whole),
    _column("parent_run_id", _Text),
    _column("display_name", _Text),
    _column("status", _Whole),
    _column("queued_at", _Whole),
    _column("first_at", _Whole),
    _column("last_at", _Whole),
    _column("message", sa.LargeBinary),
)
"""Each run as it is now; `message` is its trainyard.job.v1.Run without spec, outputs and members."""
sa.Index("runs_by_age", runs.c.queued_at, runs.c.run_id)
sa.Index("runs_by_experiment", runs.c.experiment, runs.c.queued_at, runs.c.run_id)
sa.Index("runs_by_parent", runs.c.parent_run_id, runs.c.number)
labels = _table("run_labels", _key("run_id", _Text), _key("kind", _Text), _key("name", _Text), _column("value", _Text))
"""Tags (kind "tag") and properties (kind "property") of runs as they are now."""

_SPOT = ("at", "topic", "partition", "offset")


def insert(dialect: str, table: sa.Table) -> Any:
    return (postgresql if dialect == "postgresql" else sqlite).insert(table)


def insert_once(dialect: str, table: sa.Table) -> Any:
    """A row that is there stays."""
    return insert(dialect, table).on_conflict_do_nothing(index_elements=[column.name for column in table.primary_key])


def upsert(dialect: str, table: sa.Table) -> Any:
    """A row that is there takes the new values."""
    made = insert(dialect, table)
    keys = [column.name for column in table.primary_key]
    changed = {column.name: made.excluded[column.name] for column in table.columns if not column.primary_key}
    return made.on_conflict_do_update(index_elements=keys, set_=changed)


def earliest(dialect: str, table: sa.Table) -> Any:
    """Of the rows under one key the one of the earliest record stays, in whatever order they come."""
    made = insert(dialect, table)
    keys = [column.name for column in table.primary_key]
    changed = {column.name: made.excluded[column.name] for column in table.columns if not column.primary_key}
    earlier = sa.tuple_(*(made.excluded[name] for name in _SPOT)) < sa.tuple_(*(table.c[name] for name in _SPOT))
    return made.on_conflict_do_update(index_elements=keys, set_=changed, where=earlier)


def up_to(table: sa.Table, moment: Moment | None, topic: str = "") -> sa.ColumnElement[bool]:
    """Rows of records that count at the moment. `topic` for tables whose rows are all of one."""
    if moment is None:
        return sa.true()
    last: Spot | None = moment.last
    if last is None or (topic and topic != last.topic):
        return table.c["at"] <= moment.at
    same = table.c["partition"] == last.partition
    if not topic:
        same = sa.and_(table.c["topic"] == last.topic, same)
    return sa.or_(sa.and_(same, table.c["offset"] <= last.offset), sa.and_(sa.not_(same), table.c["at"] <= moment.at))
