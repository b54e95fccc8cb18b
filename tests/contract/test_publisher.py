"""Acknowledged writes: where records come to lie, in which order, and that nothing of them is changed."""

from __future__ import annotations

import threading

import pytest

from services.chassis.records import NewRecord, Place, Unavailable
from tests.contract.conftest import PARTITIONS, Away, Log
from trainyard._kafka import partition_of

pytestmark = pytest.mark.contract


def test_a_key_lies_where_every_client_looks_for_it(log: Log) -> None:
    keys = [f"run-{number}" for number in range(60)] + ["ü", " ", "a" * 300]

    placed = log.publisher.publish([NewRecord(log.topic, key.encode(), b"") for key in keys])

    assert [place for place, _ in placed] == [Place(log.topic, partition_of(key, PARTITIONS)) for key in keys]
    assert len({place for place, _ in placed}) == PARTITIONS


def test_records_of_a_key_lie_in_the_order_of_publishing(log: Log) -> None:
    for first in range(0, 90, 30):
        log.publisher.publish([NewRecord(log.topic, b"key", str(number).encode()) for number in range(first, first + 30)])

    place = Place(log.topic, partition_of("key", PARTITIONS))
    assert [record.value for record in log.reader.read(place, 0, 90)] == [str(number).encode() for number in range(90)]


def test_it_is_told_where_each_record_lies(log: Log) -> None:
    sent = [NewRecord(log.topic, f"key-{number % 5}".encode(), str(number).encode()) for number in range(20)]

    placed = log.publisher.publish(sent)

    for record, (place, offset) in zip(sent, placed, strict=True):
        (stored,) = log.reader.read(place, offset, offset + 1)
        assert (stored.key, stored.value) == (record.key, record.value)


def test_headers_come_back_as_they_were_repeated_names_included(log: Log) -> None:
    headers = (("ce_id", b"1"), ("ce_id", b"2"), ("ü", "ü".encode()), ("bytes", bytes(range(256))), ("empty", b""))

    ((place, offset),) = log.publisher.publish([NewRecord(log.topic, b"key", b"value", headers)])

    (stored,) = log.reader.read(place, offset, offset + 1)
    assert stored.headers == headers


@pytest.mark.parametrize(("key", "value"), [(b"key", None), (b"", b""), (b"\xff\x00", b"\x00\xff"), (None, b"value")])
def test_keys_and_values_come_back_as_they_were(key: bytes | None, value: bytes | None, log: Log) -> None:
    ((place, offset),) = log.publisher.publish([NewRecord(log.topic, key, value)])

    (stored,) = log.reader.read(place, offset, offset + 1)
    assert (stored.key, stored.value) == (key, value)


def test_nothing_to_publish_is_published(log: Log) -> None:
    assert log.publisher.publish([]) == []
    assert set(log.reader.ends([log.topic]).values()) == {0}


def test_several_topics_are_published_to_at_once(log: Log) -> None:
    placed = log.publisher.publish([NewRecord(topic, b"key", b"") for topic in (log.topic, log.other_topic, log.topic)])

    partition = partition_of("key", PARTITIONS)
    assert placed == [(Place(log.topic, partition), 0), (Place(log.other_topic, partition), 0), (Place(log.topic, partition), 1)]


def test_what_is_told_as_published_can_be_read_at_once(log: Log) -> None:
    for number in range(20):
        ((place, offset),) = log.publisher.publish([NewRecord(log.topic, b"key", str(number).encode())])

        assert log.reader.ends([log.topic])[place] == offset + 1


def test_several_threads_may_publish_at_once(log: Log) -> None:
    placed: list[tuple[Place, int]] = []

    def publish(number: int) -> None:
        placed.extend(log.publisher.publish([NewRecord(log.topic, str(number).encode(), b"") for _ in range(25)]))

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(set(placed)) == 100
    assert sum(log.reader.ends([log.topic]).values()) == 100


def test_a_log_that_is_away_is_unavailable(away: Away) -> None:
    with pytest.raises(Unavailable):
        away.publisher.publish([NewRecord("t", b"key", b"")])


def test_a_publisher_that_was_closed_can_be_closed_again(log: Log) -> None:
    log.publisher.publish([NewRecord(log.topic, b"key", b"")])

    log.publisher.close()
    log.publisher.close()
