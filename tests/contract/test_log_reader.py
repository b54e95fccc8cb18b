"""Direct reads of the log: ends and ranges, side by side, and a log that is away says so."""

from __future__ import annotations

import threading

import pytest

from services.chassis.records import NewRecord, Place, Unavailable, in_time_order
from tests.contract.conftest import PARTITIONS, Away, Log

pytestmark = pytest.mark.contract


def publish(log: Log, count: int, key: bytes = b"key") -> Place:
    """Records 0, 1, 2 ... of one key; returns the partition they lie in."""
    placed = log.publisher.publish([NewRecord(log.topic, key, str(number).encode()) for number in range(count)])
    return placed[0][0]


def values(log: Log, place: Place, start: int, end: int) -> list[bytes | None]:
    return [record.value for record in log.reader.read(place, start, end)]


def test_the_ends_of_empty_topics_are_zero(log: Log) -> None:
    ends = log.reader.ends([log.topic, log.other_topic])

    assert ends == {Place(topic, number): 0 for topic in (log.topic, log.other_topic) for number in range(PARTITIONS)}


def test_no_topics_have_no_ends(log: Log) -> None:
    assert log.reader.ends([]) == {}


def test_an_end_is_the_offset_that_the_next_record_gets(log: Log) -> None:
    place = publish(log, 3)

    ends = log.reader.ends([log.topic])
    ((_, offset),) = log.publisher.publish([NewRecord(log.topic, b"key", b"next")])

    assert ends[place] == offset == 3


def test_what_came_after_the_first_question_is_in_the_next_answer(log: Log) -> None:
    place = publish(log, 1)
    log.reader.ends([log.topic])

    publish(log, 4)

    assert log.reader.ends([log.topic])[place] == 5


@pytest.mark.parametrize(("start", "end"), [(0, 10), (0, 1), (3, 7), (9, 10), (5, 5), (7, 3)])
def test_a_range_is_read_in_order_without_its_end(start: int, end: int, log: Log) -> None:
    place = publish(log, 10)

    assert values(log, place, start, end) == [str(number).encode() for number in range(start, end)]


def test_offsets_topics_and_timestamps_are_those_of_the_log(log: Log) -> None:
    place = publish(log, 5)

    records = list(log.reader.read(place, 0, 5))

    assert [(record.place, record.offset) for record in records] == [(place, number) for number in range(5)]
    times = [record.timestamp for record in records]
    assert times == sorted(times) and times[0] > 0


def test_an_empty_partition_gives_nothing(log: Log) -> None:
    assert values(log, Place(log.topic, 0), 0, 0) == []


def test_a_range_longer_than_one_answer_of_the_log_is_read_whole(log: Log) -> None:
    count = 3000
    place = publish(log, count)

    assert values(log, place, 0, count) == [str(number).encode() for number in range(count)]


def test_a_record_as_large_as_a_message_may_be_is_read(log: Log) -> None:
    large = bytes(1 << 20)[: (1 << 20) - 1000]
    ((place, offset),) = log.publisher.publish([NewRecord(log.topic, b"key", large)])

    assert values(log, place, offset, offset + 1) == [large]


def test_reads_go_on_side_by_side(log: Log) -> None:
    one = publish(log, 5)
    other = publish(log, 5, key=_key_of_another_partition(log, one))
    first, second = log.reader.read(one, 0, 5), log.reader.read(other, 0, 5)

    taken = [next(first).value, next(second).value, next(first).value, log.reader.ends([log.topic])[one], next(second).value]

    assert taken == [b"0", b"0", b"1", 5, b"1"]


def test_several_threads_may_ask_at_once(log: Log) -> None:
    place = publish(log, 50)
    found: list[object] = []

    def ask() -> None:
        found.append((log.reader.ends([log.topic])[place], len(list(log.reader.read(place, 0, 50)))))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert found == [(50, 50)] * 4


def test_a_read_that_is_given_up_leaves_the_reader_usable(log: Log) -> None:
    place = publish(log, 10)
    reading = log.reader.read(place, 0, 10)
    next(reading)

    del reading

    assert len(values(log, place, 0, 10)) == 10


def test_several_partitions_are_merged_by_the_time_of_the_log(log: Log) -> None:
    sent = [
        NewRecord(topic, f"key-{number}".encode(), str(number).encode()) for number in range(20) for topic in (log.topic, log.other_topic)
    ]
    for record in sent:
        log.publisher.publish([record])

    ends = log.reader.ends([log.topic, log.other_topic])
    merged = list(in_time_order(log.reader, {place: (0, end) for place, end in ends.items()}))

    assert len(merged) == 40
    assert [record.timestamp for record in merged] == sorted(record.timestamp for record in merged)


def test_a_log_that_is_away_is_unavailable(away: Away) -> None:
    with pytest.raises(Unavailable):
        away.reader.ends(["t"])
    with pytest.raises(Unavailable):
        list(away.reader.read(Place("t", 0), 0, 1))


def test_attempts_to_reach_a_log_that_is_away_leave_no_threads_behind(away: Away) -> None:
    before = threading.active_count()

    for _ in range(3):
        with pytest.raises(Unavailable):
            away.reader.ends(["t"])

    assert threading.active_count() == before


@pytest.mark.component
def test_a_topic_that_nobody_has_made_yet_is_unavailable(kafka_log: Log) -> None:
    with pytest.raises(Unavailable, match="has no topic not-made"):
        kafka_log.reader.ends(["not-made"])


def _key_of_another_partition(log: Log, place: Place) -> bytes:
    keys = (f"other-{number}".encode() for number in range(100))
    return next(key for key in keys if log.publisher.publish([NewRecord(log.other_topic, key, b"")])[0][0].partition != place.partition)
