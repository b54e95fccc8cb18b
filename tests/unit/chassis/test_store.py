"""Documents, positions and the outbox in SQL."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from services.chassis.records import NewRecord, Place
from services.chassis.store import Store


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store("sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path / 'new folder' / 'a.db'}")


def test_documents_are_kept_by_kind_and_key(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.documents.put("run", "b", b"2")
        transaction.documents.put("run", "a", b"1")
        transaction.documents.put("pool", "a", b"3")
        transaction.documents.put("run", "b", b"4")

    with store.reading() as documents:
        assert documents.get("run", "b") == b"4"
        assert documents.get("run", "c") is None
        assert list(documents.all("run")) == [("a", b"1"), ("b", b"4")]


def test_documents_may_be_changed_while_they_are_walked_through(store: Store) -> None:
    with store.transaction() as transaction:
        for number in range(300):
            transaction.documents.put("run", f"{number:03}", b"old")

    with store.transaction() as transaction:
        for key, _ in transaction.documents.all("run"):
            transaction.documents.remove("run", key)
            transaction.documents.put("run", f"x{key}", b"new")

    with store.reading() as documents:
        assert [key for key, _ in documents.all("run")] == [f"x{number:03}" for number in range(300)]


def test_a_document_that_is_not_there_can_be_removed(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.documents.remove("run", "a")

    with store.reading() as documents:
        assert list(documents.all("run")) == []


def test_content_by_a_function_is_made_once_when_it_is_wanted(store: Store) -> None:
    asked: list[str] = []

    def content(word: str) -> Callable[[], bytes]:
        return lambda: (asked.append(word), word.encode())[1]

    with store.transaction() as transaction:
        for word in ("first", "second", "third"):
            transaction.documents.put("run", "r1", content(word))
        read = [transaction.documents.get("run", "r1") for _ in range(2)]
        transaction.documents.put("run", "r2", content("other"))

    with store.reading() as documents:
        assert dict(documents.all("run")) == {"r1": b"third", "r2": b"other"}
    assert read == [b"third", b"third"]
    assert asked == ["third", "other"]


def test_nothing_of_a_transaction_that_raises_is_kept(store: Store) -> None:
    with pytest.raises(ValueError, match="half way"):
        with store.transaction() as transaction:
            transaction.documents.put("run", "a", b"1")
            transaction.advance(Place("jobs", 0), 5)
            transaction.mark_seen("event")
            transaction.send([NewRecord("jobs", b"k", b"v")])
            raise ValueError("half way")

    with store.transaction() as transaction:
        assert not transaction.was_seen("event")
        assert transaction.documents.get("run", "a") is None
    assert store.positions() == {}
    assert store.unsent(10) == []


def test_positions_are_the_last_ones_stored(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.advance(Place("jobs", 0), 5)
        transaction.advance(Place("jobs", 1), 2**40)
        transaction.advance(Place("jobs", 0), 6)

    assert store.positions() == {Place("jobs", 0): 6, Place("jobs", 1): 2**40}


def test_an_event_that_is_marked_twice_is_seen(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.mark_seen("event")
        transaction.mark_seen("event")

        assert transaction.was_seen("event")
        assert not transaction.was_seen("another")


def test_the_outbox_gives_back_records_as_they_were_put_in(store: Store) -> None:
    records = [
        NewRecord("jobs", b"\xff\x00", bytes(range(256)), (("name", b"\xfe"), ("name", "ü".encode()), ("empty", b""))),
        NewRecord("tasks", b"", b""),
    ]
    with store.transaction() as transaction:
        transaction.send(records)

    assert [row.record for row in store.unsent(10)] == records


def test_only_what_was_sent_leaves_the_outbox(store: Store) -> None:
    records = [NewRecord("jobs", b"k", str(number).encode()) for number in range(5)]
    with store.transaction() as transaction:
        transaction.send(records)

    store.sent(store.unsent(2))

    assert [row.record for row in store.unsent(10)] == records[2:]


def test_the_order_of_the_outbox_outlives_an_emptying(store: Store) -> None:
    for number in range(3):
        with store.transaction() as transaction:
            transaction.send([NewRecord("jobs", b"k", str(number).encode())])
        if number == 0:
            store.sent(store.unsent(10))

    assert [row.record.value for row in store.unsent(10)] == [b"1", b"2"]


def test_an_outbox_longer_than_what_is_kept_in_memory_is_given_back_whole_and_in_order(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.chassis.store._KEPT", 3)
    records = [NewRecord("jobs", b"k", str(number).encode()) for number in range(20)]
    for start in range(0, 20, 2):
        with store.transaction() as transaction:
            transaction.send(records[start : start + 2])

    given: list[NewRecord] = []
    while rows := store.unsent(3):
        given += [row.record for row in rows]
        store.sent(rows)
        if len(given) == 3:
            with store.transaction() as transaction:
                transaction.send([NewRecord("jobs", b"k", b"late")])

    assert [record.value for record in given] == [record.value for record in records] + [b"late"]
    assert store.newest_unsent() == 0


def test_what_a_failed_transaction_was_to_send_is_not_sent_and_leaves_no_gap(store: Store) -> None:
    with pytest.raises(ValueError, match="half way"):
        with store.transaction() as transaction:
            transaction.send([NewRecord("jobs", b"k", b"never")])
            transaction.flush()
            raise ValueError("half way")

    with store.transaction() as transaction:
        transaction.send([NewRecord("jobs", b"k", b"1")])

    assert [row.record.value for row in store.unsent(10)] == [b"1"]
    assert store.newest_unsent() == store.unsent(10)[-1].id


def test_a_new_process_goes_on_with_the_outbox_where_the_last_one_was(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    first = Store(url)
    with first.transaction() as transaction:
        transaction.send([NewRecord("jobs", b"k", str(number).encode(), (("name", b"\xfe"),)) for number in range(5)])
    first.sent(first.unsent(2))
    left = first.unsent(10)
    first.close()

    again = Store(url)
    with again.transaction() as transaction:
        transaction.send([NewRecord("jobs", b"k", b"5")])

    assert again.unsent(10)[:3] == left
    assert [row.record.value for row in again.unsent(10)] == [b"2", b"3", b"4", b"5"]


def test_a_store_that_is_cleared_is_as_new(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.documents.put("run", "a", b"1")
        transaction.advance(Place("jobs", 0), 5)
        transaction.mark_seen("event")
        transaction.send([NewRecord("jobs", b"k", b"v")])

    store.clear()

    with store.transaction() as transaction:
        assert not transaction.was_seen("event")
        assert list(transaction.documents.all("run")) == []
    assert store.positions() == {}
    assert store.unsent(10) == []


def test_another_thread_may_use_it(store: Store) -> None:
    seen: list[object] = []
    with store.transaction() as transaction:
        transaction.advance(Place("jobs", 0), 5)

    thread = threading.Thread(target=lambda: seen.append(store.positions()))
    thread.start()
    thread.join(30)

    assert seen == [{Place("jobs", 0): 5}]


def test_a_file_outlives_its_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    first = Store(url)
    with first.transaction() as transaction:
        transaction.documents.put("run", "a", b"1")
    first.close()

    with Store(url).reading() as documents:
        assert documents.get("run", "a") == b"1"
