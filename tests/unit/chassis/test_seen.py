"""Which events are remembered as taken, and for how long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from services.chassis.records import NewRecord, Place
from services.chassis.seen import Seen, digest_of
from services.chassis.store import Store


def _mark(store: Store, *event_ids: str) -> None:
    with store.transaction() as transaction:
        for event_id in event_ids:
            transaction.mark_seen(event_id)


def _remembered(store: Store, *event_ids: str) -> list[str]:
    with store.transaction() as transaction:
        return [it for it in event_ids if transaction.was_seen(it)]


def test_as_many_as_were_asked_for_are_remembered_and_older_ones_forgotten() -> None:
    seen = Seen(most=64)

    for number in range(200):
        seen.add(number + 1, [digest_of(str(number))])
        seen.drop()

    kept = [number for number in range(200) if digest_of(str(number)) in seen]
    assert kept == list(range(kept[0], 200))
    assert 64 <= len(kept) <= 68


def test_the_newest_are_remembered_even_if_one_transaction_took_more_than_the_bound() -> None:
    seen = Seen(most=4)

    seen.add(1, [digest_of(f"first-{number}") for number in range(10)])
    seen.add(2, [digest_of(f"second-{number}") for number in range(10)])

    assert seen.drop() == 1
    assert seen.last == 2
    assert digest_of("first-9") not in seen
    assert digest_of("second-0") in seen


@pytest.mark.parametrize("event_id", ["", "a", "a" * 200, "ü", "\udcff"])
def test_whatever_an_event_is_called_its_digest_has_one_length(event_id: str) -> None:
    assert len(digest_of(event_id)) == len(digest_of("another"))


def test_a_new_process_remembers_what_the_last_one_took(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    first = Store(url)
    _mark(first, "a", "b")
    _mark(first, "c")
    first.close()

    again = Store(url)
    _mark(again, "d")

    assert _remembered(again, "a", "b", "c", "d", "e") == ["a", "b", "c", "d"]
    assert _remembered(Store(url), "d") == ["d"]


def test_the_database_keeps_no_more_than_is_remembered(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    store = Store(url, remembered=32)
    for number in range(300):
        _mark(store, str(number))

    with sa.create_engine(url).connect() as connection:
        rows = connection.execute(sa.text("SELECT count(*) FROM seen")).scalar()

    assert rows is not None and 32 <= rows <= 35
    assert _remembered(Store(url, remembered=32), "0", "299") == ["299"]


def test_what_a_transaction_marked_that_failed_was_not_seen(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'a.db'}")
    with pytest.raises(ValueError, match="half way"):
        with store.transaction() as transaction:
            transaction.mark_seen("a")
            raise ValueError("half way")

    assert _remembered(store, "a") == []


def test_a_database_that_kept_every_id_for_ever_is_taken_over(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("CREATE TABLE seen_events (event_id VARCHAR NOT NULL PRIMARY KEY)"))
        connection.execute(sa.text("INSERT INTO seen_events VALUES ('old'), ('older')"))

    Store(url).close()
    store = Store(url)
    _mark(store, "new")

    assert _remembered(store, "old", "older", "new", "never") == ["old", "older", "new"]
    assert not sa.inspect(sa.create_engine(url)).has_table("seen_events")


def _make_old(url: str, *event_ids: str) -> None:
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("CREATE TABLE seen_events (event_id VARCHAR NOT NULL PRIMARY KEY)"))
        for event_id in event_ids:
            connection.execute(sa.text("INSERT INTO seen_events VALUES (:id)"), {"id": event_id})


def test_a_database_that_an_older_version_went_on_with_is_taken_over_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    store = Store(url)
    _mark(store, "first")
    _mark(store, "second")
    store.close()
    _make_old(url, "old", "second")

    again = Store(url)
    _mark(again, "new")

    assert _remembered(Store(url), "first", "second", "old", "new") == ["first", "second", "old", "new"]


def test_of_an_older_versions_events_the_newest_are_taken_over_in_rows_of_bounded_size(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    _make_old(url, *map(str, range(10_000, 0, -1)))

    store = Store(url, remembered=9_000)

    with sa.create_engine(url).connect() as connection:
        sizes = connection.execute(sa.text("SELECT length(digests) FROM seen ORDER BY id")).scalars().all()
    assert sum(sizes) == 9_000 * 16
    assert max(sizes) <= 4_096 * 16
    assert _remembered(store, "1", "9000", "9001", "10000") == ["1", "9000"]


def _own(store: Store, event_id: str) -> None:
    with store.transaction() as transaction:
        transaction.mark_seen(event_id)
        transaction.send([NewRecord("jobs", b"k", event_id.encode())])


def _take(store: Store, numbers: range) -> None:
    for number in numbers:
        with store.transaction() as transaction:
            transaction.mark_seen(f"other-{number}")
            transaction.advance(Place("jobs", 0), number + 1)


def test_an_own_event_is_remembered_until_it_was_sent_and_has_come_back() -> None:
    store = Store("sqlite://", remembered=16)
    _own(store, "own")

    _take(store, range(100))
    unsent = _remembered(store, "own")
    store.sent(store.unsent(10), {Place("jobs", 0): 250})
    _take(store, range(100, 250))
    sent = _remembered(store, "own")
    _take(store, range(250, 400))

    assert (unsent, sent, _remembered(store, "own")) == (["own"], ["own"], [])


def test_a_new_process_remembers_what_its_predecessor_had_yet_to_send(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    _own(Store(url, remembered=16), "own")

    again = Store(url, remembered=16)
    _take(again, range(100))

    assert _remembered(again, "own") == ["own"]


def test_a_new_process_remembers_what_its_predecessor_has_sent_until_it_has_read_all_there_was() -> None:
    store = Store("sqlite://", remembered=16)
    _mark(store, "own")
    store.returns({Place("jobs", 0): 100})

    _take(store, range(100))
    before = _remembered(store, "own")
    _take(store, range(100, 200))

    assert (before, _remembered(store, "own")) == (["own"], [])


def test_a_database_that_fails_after_a_commit_leaves_the_memory_no_step_behind() -> None:
    store = Store("sqlite://", remembered=16)
    broken: list[str] = []

    def fail(*given: Any) -> None:
        if given[2].startswith("DELETE FROM seen"):
            broken.append(given[2])
            raise OSError("disk I/O error")

    sa.event.listen(store._engine, "before_cursor_execute", fail)
    committed = []
    for number in range(40):
        try:
            _own(store, str(number))
            store.sent(store.unsent(10))
            committed.append(number)
        except OSError:
            break
    sa.event.remove(store._engine, "before_cursor_execute", fail)
    _own(store, "next")

    assert broken
    assert _remembered(store, str(committed[-1]), str(committed[-1] + 1), "next") == [str(committed[-1]), "next"]
    assert [row.record.value for row in store.unsent(10)] == [b"next"]
