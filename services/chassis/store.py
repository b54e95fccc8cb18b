"""What a service knows, in SQL: documents, how far each partition was read, which events were seen, and what is yet to be sent.

All of one input goes into one transaction, so a crash leaves either nothing of it or everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from services.chassis.records import NewRecord, Place

_schema = sa.MetaData()
_positions = sa.Table(
    "positions",
    _schema,
    sa.Column("topic", sa.String, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("next_offset", sa.BigInteger, nullable=False),
)
_seen = sa.Table("seen_events", _schema, sa.Column("event_id", sa.String, primary_key=True))
_outbox = sa.Table(
    "outbox",
    _schema,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("topic", sa.String, nullable=False),
    sa.Column("key", sa.LargeBinary, nullable=False),
    sa.Column("value", sa.LargeBinary, nullable=False),
    sa.Column("headers", sa.JSON, nullable=False),
    sqlite_autoincrement=True,
)
_documents = sa.Table(
    "documents",
    _schema,
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),
)


@dataclass(frozen=True)
class Unsent:
    """A row of the outbox."""

    id: int
    record: NewRecord


class Documents:
    """Bytes by kind and key, inside one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def get(self, kind: str, key: str) -> bytes | None:
        found = self._connection.execute(
            sa.select(_documents.c.content).where(_documents.c.kind == kind, _documents.c.key == key)
        ).scalar_one_or_none()
        return None if found is None else bytes(found)

    def put(self, kind: str, key: str, content: bytes) -> None:
        _upsert(self._connection, _documents, {"kind": kind, "key": key}, {"content": content})

    def remove(self, kind: str, key: str) -> None:
        self._connection.execute(sa.delete(_documents).where(_documents.c.kind == kind, _documents.c.key == key))

    def all(self, kind: str) -> Iterator[tuple[str, bytes]]:
        """(key, content), by key."""
        rows = self._connection.execute(
            sa.select(_documents.c.key, _documents.c.content).where(_documents.c.kind == kind).order_by(_documents.c.key)
        )
        # All at once, so that they may be changed while they are walked through.
        return iter([(str(key), bytes(content)) for key, content in rows])

    def newest(self, kind: str, limit: int) -> list[tuple[str, bytes]]:
        """(key, content) of the last keys, in falling order."""
        rows = self._connection.execute(
            sa.select(_documents.c.key, _documents.c.content)
            .where(_documents.c.kind == kind)
            .order_by(_documents.c.key.desc())
            .limit(limit)
        )
        return [(str(key), bytes(content)) for key, content in rows]


class Transaction:
    """One input's effects."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self.documents = Documents(connection)

    def was_seen(self, event_id: str) -> bool:
        return self._connection.execute(sa.select(_seen.c.event_id).where(_seen.c.event_id == event_id)).first() is not None

    def mark_seen(self, event_id: str) -> None:
        insert = _insert(self._connection, _seen).values(event_id=event_id).on_conflict_do_nothing()
        self._connection.execute(insert)

    def advance(self, place: Place, next_offset: int) -> None:
        key = {"topic": place.topic, "partition": place.partition}
        _upsert(self._connection, _positions, key, {"next_offset": next_offset})

    def send(self, records: Sequence[NewRecord]) -> None:
        """Puts them into the outbox, to leave in this order after the commit."""
        rows = [
            {
                "topic": record.topic,
                "key": record.key or b"",
                "value": record.value or b"",
                "headers": [[name, (value or b"").decode("latin-1")] for name, value in record.headers],
            }
            for record in records
        ]
        if rows:
            self._connection.execute(sa.insert(_outbox), rows)


class Store:
    """Raises sqlalchemy.exc.SQLAlchemyError where the database fails; that is never a message's fault."""

    def __init__(self, url: str) -> None:
        if url.startswith("sqlite:///") and ":memory:" not in url:
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        in_memory = url in ("sqlite://", "sqlite:///:memory:")
        # One connection is the whole database then, and replay reaches it from a thread of its own.
        one = {"poolclass": sa.pool.StaticPool, "connect_args": {"check_same_thread": False}}
        self._engine = sa.create_engine(url, **(one if in_memory else {}))
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _tune_sqlite)
        _schema.create_all(self._engine)

    def positions(self) -> Mapping[Place, int]:
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_positions)).all()
        return {Place(row.topic, row.partition): int(row.next_offset) for row in rows}

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._engine.begin() as connection:
            yield Transaction(connection)

    @contextmanager
    def reading(self) -> Iterator[Documents]:
        with self._engine.connect() as connection:
            yield Documents(connection)

    def clear(self) -> None:
        """As new."""
        with self._engine.begin() as connection:
            for table in (_positions, _seen, _outbox, _documents):
                connection.execute(sa.delete(table))

    def unsent(self, limit: int) -> list[Unsent]:
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_outbox).order_by(_outbox.c.id).limit(limit)).all()
        return [
            Unsent(
                row.id,
                NewRecord(
                    row.topic, bytes(row.key), bytes(row.value), tuple((name, value.encode("latin-1")) for name, value in row.headers)
                ),
            )
            for row in rows
        ]

    def sent(self, rows: Sequence[Unsent]) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.delete(_outbox).where(_outbox.c.id.in_([row.id for row in rows])))

    def close(self) -> None:
        self._engine.dispose()


def _tune_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    # A power cut may undo the last transactions, positions included; the log still has their inputs.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000", "temp_store=MEMORY"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def _upsert(connection: sa.Connection, table: sa.Table, key: dict[str, Any], values: dict[str, Any]) -> None:
    insert = _insert(connection, table).values(**key, **values)
    connection.execute(insert.on_conflict_do_update(index_elements=list(key), set_=values))
