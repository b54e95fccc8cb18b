"""What a service knows, in SQL: documents, how far each partition was read, which events were seen, and what is yet to be sent.

All of one input goes into one transaction, so a crash leaves either nothing of it or everything. Several inputs may share one: what
they write is gathered and written once, because a statement costs more than what it does.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from services.chassis import seen
from services.chassis.records import NewRecord, Place
from services.chassis.seen import Seen, digest_of, parts

Content = bytes | Callable[[], bytes]

_schema = sa.MetaData()
_positions = sa.Table(
    "positions",
    _schema,
    sa.Column("topic", sa.String, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("next_offset", sa.BigInteger, nullable=False),
)
# One row a transaction: ids are random, and a table by id would be written all over with each of them.
_seen = sa.Table(
    "seen",
    _schema,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("digests", sa.LargeBinary, nullable=False),
)
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
_OLD_SEEN = "seen_events"
"""Of databases that were made when every id was kept for ever, in a row of its own."""
# Rows of the outbox that are kept in memory until they are sent; while a log is away it may grow far beyond that.
_KEPT = 1_000
# Digests in a row, of what is taken over from such a table.
_TAKEN_OVER = 4_096


@dataclass(frozen=True)
class _Statements:
    """As the driver takes them: what SQLAlchemy does for a statement costs more than most of them do."""

    get: str = "SELECT content FROM documents WHERE kind = ? AND key = ?"
    put: str = (
        "INSERT INTO documents (kind, key, content) VALUES (?, ?, ?) ON CONFLICT (kind, key) DO UPDATE SET content = excluded.content"
    )
    remove: str = "DELETE FROM documents WHERE kind = ? AND key = ?"
    all: str = "SELECT key, content FROM documents WHERE kind = ? ORDER BY key"
    newest: str = "SELECT key, content FROM documents WHERE kind = ? ORDER BY key DESC LIMIT ?"
    advance: str = (
        "INSERT INTO positions (topic, partition, next_offset) VALUES (?, ?, ?) "
        "ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset"
    )
    mark: str = "INSERT INTO seen (id, digests) VALUES (?, ?)"
    forget: str = "DELETE FROM seen WHERE id <= ?"
    send: str = "INSERT INTO outbox (id, topic, key, value, headers) VALUES (?, ?, ?, ?, ?)"
    sent: str = "DELETE FROM outbox WHERE id <= ?"

    @classmethod
    def of(cls, dialect: str) -> _Statements:
        plain = cls()
        return plain if dialect == "sqlite" else cls(**{name: text.replace("?", "%s") for name, text in vars(plain).items()})


@dataclass(frozen=True)
class Unsent:
    """A row of the outbox."""

    id: int
    record: NewRecord


class Documents:
    """Bytes by kind and key, inside one transaction. What is put is written by `flush`, and read back before that."""

    def __init__(self, connection: sa.Connection, statements: _Statements) -> None:
        self._execute = connection.exec_driver_sql
        self._statements = statements
        self._changed: dict[tuple[str, str], Content | None] = {}
        """None: removed."""

    def get(self, kind: str, key: str) -> bytes | None:
        if (kind, key) in self._changed:
            content = self._changed[kind, key]
            if content is not None and not isinstance(content, bytes):
                content = self._changed[kind, key] = content()
            return content
        found = self._execute(self._statements.get, (kind, key)).scalar_one_or_none()
        return None if found is None else bytes(found)

    def put(self, kind: str, key: str, content: Content) -> None:
        """A function is called when the content is wanted: what several inputs in a row change is made into bytes once."""
        self._changed[kind, key] = content

    def remove(self, kind: str, key: str) -> None:
        self._changed[kind, key] = None

    def all(self, kind: str) -> Iterator[tuple[str, bytes]]:
        """(key, content), by key."""
        self.flush()
        rows = self._execute(self._statements.all, (kind,))
        # All at once, so that they may be changed while they are walked through.
        return iter([(str(key), bytes(content)) for key, content in rows])

    def newest(self, kind: str, limit: int) -> list[tuple[str, bytes]]:
        """(key, content) of the last keys, in falling order."""
        self.flush()
        rows = self._execute(self._statements.newest, (kind, limit))
        return [(str(key), bytes(content)) for key, content in rows]

    def flush(self) -> None:
        put = [(kind, key, it if isinstance(it, bytes) else it()) for (kind, key), it in self._changed.items() if it is not None]
        removed = [place for place, it in self._changed.items() if it is None]
        if put:
            self._execute(self._statements.put, put)
        if removed:
            self._execute(self._statements.remove, removed)
        self._changed.clear()


class Transaction:
    """The effects of one input, or of several in a row."""

    def __init__(self, connection: sa.Connection, statements: _Statements, seen: Seen, outbox_last: int, forget: int) -> None:
        self._execute = connection.exec_driver_sql
        self._statements = statements
        self.documents = Documents(connection, statements)
        self._seen = seen
        self._outbox_last = outbox_last
        self._forget = forget
        self.positions: dict[Place, int] = {}
        self.marked: dict[bytes, None] = {}
        """Digests of the events that take effect with it."""
        self.unsent: list[Unsent] = []
        """What is to leave after it."""

    def was_seen(self, event_id: str) -> bool:
        digest = digest_of(event_id)
        return digest in self._seen or digest in self.marked

    def mark_seen(self, event_id: str) -> None:
        digest = digest_of(event_id)
        if digest not in self._seen:
            self.marked[digest] = None

    def advance(self, place: Place, next_offset: int) -> None:
        self.positions[place] = next_offset

    def send(self, records: Sequence[NewRecord]) -> None:
        """Puts them into the outbox, to leave in this order after the commit."""
        first = self._outbox_last + len(self.unsent) + 1
        self.unsent += [Unsent(number, record) for number, record in enumerate(records, first)]

    def flush(self) -> None:
        """Writes what was gathered; the commit is the caller's."""
        self.documents.flush()
        if self.marked:
            self._execute(self._statements.mark, (self._seen.last + 1, b"".join(self.marked)))
        if self._forget:
            self._execute(self._statements.forget, (self._forget,))
        if self.positions:
            self._execute(self._statements.advance, [(*place, at) for place, at in self.positions.items()])
        if self.unsent:
            self._execute(self._statements.send, [_as_row(it) for it in self.unsent])


class Store:
    """Raises sqlalchemy.exc.SQLAlchemyError where the database fails; that is never a message's fault.

    Nobody else writes to its database: what it has written it also keeps in memory, and reads when it starts.
    """

    def __init__(self, url: str, remembered: int = seen.MOST) -> None:
        """`remembered`: of how many events at least it knows that they took effect."""
        if url.startswith("sqlite:///") and ":memory:" not in url:
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        in_memory = url in ("sqlite://", "sqlite:///:memory:")
        # One connection is the whole database then, and replay reaches it from a thread of its own.
        one = {"poolclass": sa.pool.StaticPool, "connect_args": {"check_same_thread": False}}
        self._engine = sa.create_engine(url, **(one if in_memory else {}))
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", tune_sqlite)
        _schema.create_all(self._engine)
        self._statements = _Statements.of(self._engine.dialect.name)
        self._seen = Seen(remembered)
        self._unsent: deque[Unsent] = deque()
        """The first rows of the outbox."""
        self._outbox_last = self._sent_through = 0
        self._next: dict[Place, int] = {}
        """Positions."""
        self._leaving: deque[tuple[int, int]] = deque()
        """(id in the outbox, row of what was seen) of each transaction of which something was not sent yet."""
        self._returning: deque[tuple[int, Mapping[Place, int]]] = deque()
        """Of what was sent: the row of its oldest, and the last offsets that were not read when it was."""
        self._forget = 0
        """Rows of what was seen that the next transaction deletes, up to this one."""
        self._read(remembered)

    def _read(self, remembered: int) -> None:
        with self._engine.begin() as connection:
            if sa.inspect(connection).has_table(_OLD_SEEN):
                _take_over(connection, self._statements, remembered)
            for row in connection.execute(sa.select(_seen).order_by(_seen.c.id)):
                self._seen.add(row.id, parts(bytes(row.digests)))
            first, last = connection.execute(sa.select(sa.func.min(_outbox.c.id), sa.func.max(_outbox.c.id))).one()
        self._outbox_last = last or 0
        self._sent_through = (first or 1) - 1
        self._next = dict(self.positions())
        if last:
            self._leaving.append((last, 0))

    def positions(self) -> Mapping[Place, int]:
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_positions)).all()
        return {Place(row.topic, row.partition): int(row.next_offset) for row in rows}

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._engine.begin() as connection:
            transaction = Transaction(connection, self._statements, self._seen, self._outbox_last, self._forget)
            yield transaction
            transaction.flush()
        self._remember(transaction)

    def _remember(self, done: Transaction) -> None:
        """What was committed. Nothing here asks the database: what failed now would leave the memory behind it."""
        self._forget = 0
        self._next |= done.positions
        if done.unsent:
            if self._has_all_unsent() and len(self._unsent) < _KEPT:
                self._unsent += done.unsent
            self._outbox_last = done.unsent[-1].id
        if done.marked:
            self._seen.add(self._seen.last + 1, done.marked)
            if done.unsent:
                self._leaving.append((self._outbox_last, self._seen.last))
            self._forget = self._seen.drop(self._held())

    def _held(self) -> int | None:
        """The first row with an event of this service's own that has not come back by the log, as far as can be told."""
        while self._returning and all(self._next.get(place, 0) > offset for place, offset in self._returning[0][1].items()):
            self._returning.popleft()
        if self._returning:
            return self._returning[0][0]
        return self._leaving[0][1] if self._leaving else None

    def returns(self, ends: Mapping[Place, int]) -> None:
        """What an earlier process has sent may lie before these ends: until all is read, nothing is forgotten."""
        self._returning.appendleft((0, {place: end - 1 for place, end in ends.items()}))

    def _has_all_unsent(self) -> bool:
        """In memory."""
        return (self._unsent[-1].id if self._unsent else self._sent_through) == self._outbox_last

    @contextmanager
    def reading(self) -> Iterator[Documents]:
        with self._engine.connect() as connection:
            yield Documents(connection, self._statements)

    def clear(self) -> None:
        """As new."""
        with self._engine.begin() as connection:
            for table in (_positions, _seen, _outbox, _documents):
                connection.execute(sa.delete(table))
        self._seen.clear()
        self._next.clear()
        self._leaving.clear()
        self._returning.clear()
        self._forget = 0
        self._unsent.clear()
        self._outbox_last = self._sent_through = 0

    def unsent(self, limit: int) -> list[Unsent]:
        """The first of them; fewer than there are and than asked for, perhaps, but none only where there is none."""
        if not self._unsent and self.newest_unsent():
            with self._engine.connect() as connection:
                first = sa.select(_outbox).where(_outbox.c.id > self._sent_through).order_by(_outbox.c.id).limit(limit)
                self._unsent += [_of_row(row) for row in connection.execute(first)]
        return list(islice(self._unsent, limit))

    def newest_unsent(self) -> int:
        """Id of the outbox's last row; 0 where it is empty."""
        return self._outbox_last if self._sent_through < self._outbox_last else 0

    def sent(self, rows: Sequence[Unsent], at: Mapping[Place, int] | None = None) -> None:
        """Forgets these and all before them: the outbox is sent in the order of its ids.

        `at` are the last offsets at which they lie, in partitions that are read.
        """
        if not rows:
            return
        with self._engine.begin() as connection:
            connection.exec_driver_sql(self._statements.sent, (rows[-1].id,))
        self._sent_through = rows[-1].id
        if self._leaving and at:
            self._returning.append((self._leaving[0][1], at))
        while self._leaving and self._leaving[0][0] <= self._sent_through:
            self._leaving.popleft()
        while self._unsent and self._unsent[0].id <= self._sent_through:
            self._unsent.popleft()

    def close(self) -> None:
        self._engine.dispose()


def _as_row(it: Unsent) -> tuple[int, str, bytes, bytes, str]:
    record = it.record
    headers = json.dumps([(name, (value or b"").decode("latin-1")) for name, value in record.headers])
    return it.id, record.topic, record.key or b"", record.value or b"", headers


def _of_row(row: Any) -> Unsent:
    headers = tuple((name, value.encode("latin-1")) for name, value in row.headers)
    return Unsent(row.id, NewRecord(row.topic, bytes(row.key), bytes(row.value), headers))


def _take_over(connection: sa.Connection, statements: _Statements, most: int) -> None:
    """The newest of what a database of before knows, as if it had been some transactions.

    After rows that are there: an older version may have run once more in between.
    """
    place = "rowid" if connection.dialect.name == "sqlite" else "ctid"
    ids = connection.exec_driver_sql(f"SELECT event_id FROM {_OLD_SEEN} ORDER BY {place} DESC LIMIT {most:d}").scalars()
    digests = [digest_of(event_id) for event_id in ids][::-1]
    last = connection.execute(sa.select(sa.func.max(_seen.c.id))).scalar() or 0
    for row, start in enumerate(range(0, len(digests), _TAKEN_OVER), last + 1):
        connection.exec_driver_sql(statements.mark, (row, b"".join(digests[start : start + _TAKEN_OVER])))
    connection.exec_driver_sql(f"DROP TABLE {_OLD_SEEN}")


def tune_sqlite(connection: Any, _: object) -> None:
    """For SQLAlchemy's event `connect`."""
    cursor = connection.cursor()
    # A power cut may undo the last transactions, positions included; the log still has their inputs.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000", "temp_store=MEMORY"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
