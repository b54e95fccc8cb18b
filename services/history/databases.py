"""Where the tables lie: one generation is in use, the next may be filled beside it and takes its place in one atomic step.

SQLite: a generation is a file, and a small file names the current one. PostgreSQL: a generation is a schema, and a row names the
current one. Whatever is not current is left over from a rebuild that did not end, and is swept away at the next start.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from services.chassis.records import Place
from services.chassis.store import tune_sqlite
from services.history import tables


class Database:
    """One generation. Removed once it is retired and its last reader is done."""

    def __init__(self, generation: int, engine: sa.Engine, schema: str | None, remove: Any) -> None:
        self.generation = generation
        self._engine = engine.execution_options(schema_translate_map={None: schema}) if schema else engine
        self._remove = remove
        self._lock = threading.Lock()
        self._readers = 0
        self._retired = False
        with self._engine.begin() as connection:
            looks = sa.inspect(connection)
            new = [table for table in tables.schema.sorted_tables if not looks.has_table(table.name, schema=schema)]
            tables.schema.create_all(connection)
            if new:
                # An earlier version filled the others. The log is read again from its beginning: what is there stays as it is.
                connection.execute(sa.delete(tables.positions))

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        with self._lock:
            self._readers += 1
        try:
            with self._engine.connect() as connection:
                yield connection
        finally:
            with self._lock:
                self._readers -= 1
                last = self._retired and not self._readers
            if last:
                self._end()

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        with self._engine.begin() as connection:
            yield connection

    def positions(self) -> Mapping[Place, int]:
        with self.reading() as connection:
            return {Place(row.topic, row.partition): int(row.next_offset) for row in connection.execute(sa.select(tables.positions))}

    def retire(self) -> None:
        with self._lock:
            self._retired = True
            idle = not self._readers
        if idle:
            self._end()

    def close(self) -> None:
        self._engine.dispose()

    def _end(self) -> None:
        self.close()
        self._remove(self.generation)


class Databases(Protocol):
    """Raises sqlalchemy.exc.SQLAlchemyError where the database fails."""

    name: str
    """For people: without a password."""

    def sweep(self) -> None:
        """Removes what a rebuild that did not end has left. Only the process that writes may call it, before it begins."""
        ...

    def current(self) -> Database: ...

    def begin(self) -> Database:
        """A new, empty generation that nobody sees yet; written fast, and safe only after `settle`."""
        ...

    def settle(self, made: Database) -> Database:
        """The same, safely on the disk, ready for use."""
        ...

    def swap(self, made: Database) -> None:
        """From now on it is the current one, whatever happens. The old one still answers until it is retired."""
        ...


def open_databases(url: str) -> Databases:
    return SqliteDatabases(url) if url.startswith("sqlite:///") else PostgresDatabases(url)


# Of the files that make up one SQLite database.
_ENDINGS = ("", "-wal", "-shm", "-journal")


class SqliteDatabases:
    def __init__(self, url: str) -> None:
        self._base = Path(sa.make_url(url).database or "history.db")
        self._base.parent.mkdir(parents=True, exist_ok=True)
        self._pointer = self._base.with_name(f"{self._base.name}.current")
        self.name = url

    def sweep(self) -> None:
        now = self._generation()
        kept = {f"{self._file(now).name}{ending}" for ending in _ENDINGS}
        for path in [
            *self._base.parent.glob(f"{self._base.name}.g*"),
            *(self._base.with_name(f"{self._base.name}{it}") for it in _ENDINGS),
        ]:
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def current(self) -> Database:
        return self._open(self._generation(), tune_sqlite)

    def begin(self) -> Database:
        generation = self._generation() + 1
        self._remove(generation)
        return self._open(generation, _hurry)

    def settle(self, made: Database) -> Database:
        made.close()
        path = self._file(made.generation)
        _flush(path)
        _flush(path.parent)
        return self._open(made.generation, tune_sqlite)

    def swap(self, made: Database) -> None:
        beside = self._pointer.with_name(f"{self._pointer.name}.new")
        beside.write_text(str(made.generation))
        _flush(beside)
        beside.replace(self._pointer)
        _flush(self._pointer.parent)

    def _generation(self) -> int:
        return int(self._pointer.read_text()) if self._pointer.exists() else 0

    def _file(self, generation: int) -> Path:
        return self._base.with_name(f"{self._base.name}.g{generation}") if generation else self._base

    def _open(self, generation: int, tune: Any) -> Database:
        engine = sa.create_engine(f"sqlite:///{self._file(generation)}", connect_args={"timeout": 30})
        sa.event.listen(engine, "connect", tune)
        return Database(generation, engine, None, self._remove)

    def _remove(self, generation: int) -> None:
        path = self._file(generation)
        for ending in _ENDINGS:
            path.with_name(f"{path.name}{ending}").unlink(missing_ok=True)


class PostgresDatabases:
    _META = "trainyard_history"

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.name = parsed.render_as_string(hide_password=True)
        self._engine = sa.create_engine(parsed, pool_size=20, pool_pre_ping=True)
        with self._engine.begin() as connection:
            connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {self._META}"))
            connection.execute(
                sa.text(f"CREATE TABLE IF NOT EXISTS {self._META}.generation (only_one boolean PRIMARY KEY, number bigint NOT NULL)")
            )
            connection.execute(sa.text(f"INSERT INTO {self._META}.generation VALUES (true, 0) ON CONFLICT DO NOTHING"))

    def sweep(self) -> None:
        now = self._generation()
        for schema in self._schemas():
            if schema != self._schema(now):
                self._drop(schema)

    def current(self) -> Database:
        return self._open(self._generation())

    def begin(self) -> Database:
        generation = self._generation() + 1
        self._remove(generation)
        return self._open(generation)

    def settle(self, made: Database) -> Database:
        return made

    def swap(self, made: Database) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.text(f"UPDATE {self._META}.generation SET number = :number"), {"number": made.generation})

    def _generation(self) -> int:
        with self._engine.connect() as connection:
            return int(connection.execute(sa.text(f"SELECT number FROM {self._META}.generation")).scalar_one())

    def _schema(self, generation: int) -> str:
        return f"{self._META}_{generation}"

    def _schemas(self) -> list[str]:
        found = sa.inspect(self._engine).get_schema_names()
        return [name for name in found if name.startswith(f"{self._META}_") and name.rpartition("_")[2].isdigit()]

    def _open(self, generation: int) -> Database:
        with self._engine.begin() as connection:
            connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {self._schema(generation)}"))
        return Database(generation, self._engine, self._schema(generation), self._remove)

    def _remove(self, generation: int) -> None:
        self._drop(self._schema(generation))

    def _drop(self, schema: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.text(f"DROP SCHEMA IF EXISTS {schema} CASCADE"))


def _hurry(connection: Any, _: object) -> None:
    """A file that a crash throws away needs no journal on the disk."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=MEMORY", "synchronous=OFF", "temp_store=MEMORY", "cache_size=-200000", "locking_mode=EXCLUSIVE"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
