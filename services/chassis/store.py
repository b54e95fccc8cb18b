"""What a service knows, in SQL: documents, how far each partition was read, which events were seen, and what is yet to be sent.

All of one input goes into one transaction, so a crash leaves either nothing of it or everything. Several inputs may share one: what
they write is gathered and written once, because a statement costs more than what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from services.chassis.records import NewRecord, Place

Content = bytes | Callable[[], bytes]

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

# Built once: making a statement costs SQLAlchemy more than running it. The dialect's own upserts are built per store.
_key: dict[str, sa.BindParameter[str]] = {"kind": sa.bindparam("of_kind"), "key": sa.bindparam("of_key")}
_get_document = sa.select(_documents.c.content).where(_documents.c.kind == _key["kind"], _documents.c.key == _key["key"])
_remove_document = sa.delete(_documents).where(_documents.c.kind == _key["kind"], _documents.c.key == _key["key"])
_all_documents = sa.select(_documents.c.key, _documents.c.content).where(_documents.c.kind == _key["kind"]).order_by(_documents.c.key)
_newest_documents = (
    sa.select(_documents.c.key, _documents.c.content)
    .where(_documents.c.kind == _key["kind"])
    .order_by(_documents.c.key.desc())
    .limit(sa.bindparam("most"))
)
_are_seen = sa.select(_seen.c.event_id).where(_seen.c.event_id.in_(sa.bindparam("ids", expanding=True)))
_add_to_outbox = sa.insert(_outbox)
_first_unsent = sa.select(_outbox).order_by(_outbox.c.id).limit(sa.bindparam("most"))
_newest_unsent = sa.select(sa.func.max(_outbox.c.id))
_forget_sent = sa.delete(_outbox).where(_outbox.c.id <= sa.bindparam("last"))


@dataclass(frozen=True)
class _Upserts:
    """Insert, or change what is there, in the words of one dialect."""

    document: Any
    position: Any
    seen: Any

    @classmethod
    def of(cls, dialect: str) -> _Upserts:
        insert = (postgresql if dialect == "postgresql" else sqlite).insert

        def upsert(table: sa.Table, *changed: str) -> Any:
            made = insert(table)
            keys = [column.name for column in table.primary_key]
            if not changed:
                return made.on_conflict_do_nothing(index_elements=keys)
            return made.on_conflict_do_update(index_elements=keys, set_={name: made.excluded[name] for name in changed})

        return cls(upsert(_documents, "content"), upsert(_positions, "next_offset"), upsert(_seen))


@dataclass(frozen=True)
class Unsent:
    """A row of the outbox."""

    id: int
    record: NewRecord


class Documents:
    """Bytes by kind and key, inside one transaction. What is put is written by `flush`, and read back before that."""

    def __init__(self, connection: sa.Connection, upserts: _Upserts) -> None:
        self._connection = connection
        self._upserts = upserts
        self._changed: dict[tuple[str, str], Content | None] = {}
        """None: removed."""

    def get(self, kind: str, key: str) -> bytes | None:
        if (kind, key) in self._changed:
            content = self._changed[kind, key]
            if content is not None and not isinstance(content, bytes):
                content = self._changed[kind, key] = content()
            return content
        found = self._connection.execute(_get_document, {"of_kind": kind, "of_key": key}).scalar_one_or_none()
        return None if found is None else bytes(found)

    def put(self, kind: str, key: str, content: Content) -> None:
        """A function is called when the content is wanted: what several inputs in a row change is made into bytes once."""
        self._changed[kind, key] = content

    def remove(self, kind: str, key: str) -> None:
        self._changed[kind, key] = None

    def all(self, kind: str) -> Iterator[tuple[str, bytes]]:
        """(key, content), by key."""
        self.flush()
        rows = self._connection.execute(_all_documents, {"of_kind": kind})
        # All at once, so that they may be changed while they are walked through.
        return iter([(str(key), bytes(content)) for key, content in rows])

    def newest(self, kind: str, limit: int) -> list[tuple[str, bytes]]:
        """(key, content) of the last keys, in falling order."""
        self.flush()
        rows = self._connection.execute(_newest_documents, {"of_kind": kind, "most": limit})
        return [(str(key), bytes(content)) for key, content in rows]

    def flush(self) -> None:
        put = [
            {"kind": kind, "key": key, "content": it if isinstance(it, bytes) else it()}
            for (kind, key), it in self._changed.items()
            if it is not None
        ]
        removed = [{"of_kind": kind, "of_key": key} for (kind, key), it in self._changed.items() if it is None]
        if put:
            self._connection.execute(self._upserts.document, put)
        if removed:
            self._connection.execute(_remove_document, removed)
        self._changed.clear()


class Transaction:
    """The effects of one input, or of several in a row."""

    def __init__(self, connection: sa.Connection, upserts: _Upserts) -> None:
        self._connection = connection
        self._upserts = upserts
        self.documents = Documents(connection, upserts)
        self._seen: dict[str, bool] = {}
        self._new: list[str] = []
        self._positions: dict[Place, int] = {}
        self._outbox: list[dict[str, Any]] = []

    def look_up(self, event_ids: Sequence[str]) -> None:
        """Finds out at once which of them were seen."""
        unknown = [it for it in event_ids if it not in self._seen]
        if unknown:
            found = set(self._connection.execute(_are_seen, {"ids": unknown}).scalars())
            self._seen |= {it: it in found for it in unknown}

    def was_seen(self, event_id: str) -> bool:
        self.look_up([event_id])
        return self._seen[event_id]

    def mark_seen(self, event_id: str) -> None:
        if not self._seen.get(event_id):
            self._new.append(event_id)
        self._seen[event_id] = True

    def advance(self, place: Place, next_offset: int) -> None:
        self._positions[place] = next_offset

    def send(self, records: Sequence[NewRecord]) -> None:
        """Puts them into the outbox, to leave in this order after the commit."""
        self._outbox += [
            {
                "topic": record.topic,
                "key": record.key or b"",
                "value": record.value or b"",
                "headers": [[name, (value or b"").decode("latin-1")] for name, value in record.headers],
            }
            for record in records
        ]

    def flush(self) -> None:
        """Writes what was gathered; the commit is the caller's."""
        self.documents.flush()
        execute = self._connection.execute
        if self._new:
            execute(self._upserts.seen, [{"event_id": it} for it in self._new])
        if self._positions:
            rows = [{"topic": place.topic, "partition": place.partition, "next_offset": at} for place, at in self._positions.items()]
            execute(self._upserts.position, rows)
        if self._outbox:
            execute(_add_to_outbox, self._outbox)
        self._new, self._positions, self._outbox = [], {}, []


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
            sa.event.listen(self._engine, "connect", tune_sqlite)
        _schema.create_all(self._engine)
        self._upserts = _Upserts.of(self._engine.dialect.name)

    def positions(self) -> Mapping[Place, int]:
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_positions)).all()
        return {Place(row.topic, row.partition): int(row.next_offset) for row in rows}

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._engine.begin() as connection:
            transaction = Transaction(connection, self._upserts)
            yield transaction
            transaction.flush()

    @contextmanager
    def reading(self) -> Iterator[Documents]:
        with self._engine.connect() as connection:
            yield Documents(connection, self._upserts)

    def clear(self) -> None:
        """As new."""
        with self._engine.begin() as connection:
            for table in (_positions, _seen, _outbox, _documents):
                connection.execute(sa.delete(table))

    def unsent(self, limit: int) -> list[Unsent]:
        with self._engine.connect() as connection:
            rows = connection.execute(_first_unsent, {"most": limit}).all()
        return [
            Unsent(
                row.id,
                NewRecord(
                    row.topic, bytes(row.key), bytes(row.value), tuple((name, value.encode("latin-1")) for name, value in row.headers)
                ),
            )
            for row in rows
        ]

    def newest_unsent(self) -> int:
        """Id of the outbox's last row; 0 where it is empty."""
        with self._engine.connect() as connection:
            return int(connection.execute(_newest_unsent).scalar() or 0)

    def sent(self, rows: Sequence[Unsent]) -> None:
        """Forgets these and all before them: the outbox is sent in the order of its ids."""
        if rows:
            with self._engine.begin() as connection:
                connection.execute(_forget_sent, {"last": rows[-1].id})

    def close(self) -> None:
        self._engine.dispose()


def tune_sqlite(connection: Any, _: object) -> None:
    """For SQLAlchemy's event `connect`."""
    cursor = connection.cursor()
    # A power cut may undo the last transactions, positions included; the log still has their inputs.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000", "temp_store=MEMORY"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
