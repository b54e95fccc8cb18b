"""A service's store in PostgreSQL: the statements are SQLite's as well, and written for both."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from services.chassis.records import NewRecord, Place
from services.chassis.store import Store

pytestmark = pytest.mark.component


@pytest.fixture
def url(postgres_url: str) -> str:
    """An empty database."""
    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text("DROP DATABASE IF EXISTS chassis"))
        connection.execute(sa.text("CREATE DATABASE chassis"))
    engine.dispose()
    return postgres_url.replace("/postgres", "/chassis")


def test_what_is_stored_is_there_for_the_next_process(url: str) -> None:
    records = [NewRecord("jobs", b"\xff\x00", bytes(range(256)), (("name", b"\xfe"), ("name", "ü".encode()))), NewRecord("tasks", b"", b"")]
    store = Store(url)
    with store.transaction() as transaction:
        transaction.documents.put("run", "a", b"1")
        transaction.documents.put("run", "b", lambda: b"\x00\xff")
        transaction.advance(Place("jobs", 3), 2**40)
        transaction.mark_seen("event")
        transaction.send(records)
    with store.transaction() as transaction:
        transaction.documents.put("run", "a", b"2")
        transaction.documents.remove("run", "c")
        transaction.advance(Place("jobs", 3), 2**40 + 1)
        transaction.mark_seen("another")
        transaction.send([NewRecord("jobs", b"k", b"3")])
    store.sent(store.unsent(1))
    store.close()

    again = Store(url)
    with again.transaction() as transaction:
        assert [transaction.was_seen(it) for it in ("event", "another", "a third")] == [True, True, False]
        assert list(transaction.documents.all("run")) == [("a", b"2"), ("b", b"\x00\xff")]
        assert transaction.documents.newest("run", 1) == [("b", b"\x00\xff")]
        assert transaction.documents.get("run", "c") is None
    assert again.positions() == {Place("jobs", 3): 2**40 + 1}
    assert [row.record for row in again.unsent(10)] == [records[1], NewRecord("jobs", b"k", b"3")]
    again.close()


def test_a_database_that_kept_every_id_for_ever_is_taken_over(url: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE seen_events (event_id VARCHAR NOT NULL PRIMARY KEY)"))
        connection.execute(sa.text("INSERT INTO seen_events VALUES ('old')"))
    engine.dispose()

    store = Store(url)

    with store.transaction() as transaction:
        assert [transaction.was_seen(it) for it in ("old", "new")] == [True, False]
    store.close()
