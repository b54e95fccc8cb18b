from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from services.chassis.causal_order import in_causal_order
from services.chassis.records import Record

ME = "trainyard/me"


def a_record(name: str, at: int, topic: str = "t", offset: int = 0, cause: str = "", sequence: int = 0, source: str = ME) -> Record:
    headers = {"ce_id": name, "ce_source": source, "ce_causationid": cause, "ce_sequence": f"{sequence:020d}" if sequence else ""}
    return Record(topic, 0, offset, at, b"k", b"", tuple((key, value.encode()) for key, value in headers.items() if value))


def told(*records: Record, window_ms: int = 60_000) -> list[str]:
    ordered = in_causal_order(sorted(records, key=lambda record: record.timestamp), ME, window_ms)
    return [dict(record.headers).get("ce_id", b"?").decode() for record in ordered]


def test_without_claims_the_brokers_time_counts() -> None:
    assert told(a_record("a", 1), a_record("b", 2, "u"), a_record("c", 3, offset=1)) == ["a", "b", "c"]


def test_two_events_of_one_batch_are_told_as_they_were_emitted() -> None:
    offer, queued = a_record("offer", 10, "leases", sequence=2), a_record("queued", 12, "jobs", sequence=1)

    assert told(offer, queued) == ["queued", "offer"]


def test_an_event_waits_for_its_cause_and_its_partition_waits_with_it() -> None:
    report, later = a_record("report", 11, "tasks", cause="offer", source="agent"), a_record("later", 12, "tasks", 1, source="agent")
    offer, queued = a_record("offer", 10, "leases", sequence=2), a_record("queued", 5000, "jobs", sequence=1)

    assert told(offer, report, later, queued) == ["queued", "offer", "report", "later"]


def test_a_sequence_of_another_teller_counts_for_nothing() -> None:
    assert told(a_record("a", 1, sequence=2, source="other"), a_record("b", 2, "u", sequence=1)) == ["a", "b"]


def test_a_cause_that_is_not_in_the_log_holds_nobody_up() -> None:
    assert told(a_record("a", 1, cause="gone"), a_record("b", 2, "u")) == ["a", "b"]


def test_causes_in_a_circle_hold_nobody_up_for_ever() -> None:
    records = [a_record("a", 1, "x", cause="b"), a_record("b", 2, "y", cause="a"), a_record("c", 3, "z", cause="c")]

    assert sorted(told(*records)) == ["a", "b", "c"]


def test_an_event_that_was_sent_twice_satisfies_those_that_follow_with_its_first_copy() -> None:
    first, effect, again = a_record("cause", 1, "x"), a_record("effect", 2, "y", cause="cause"), a_record("cause", 3, "x", 1)

    assert told(first, effect, again) == ["cause", "effect", "cause"]


def test_what_lies_beyond_the_window_is_not_waited_for() -> None:
    early, late = a_record("early", 0, "x", cause="late"), a_record("late", 500_000, "y")
    between = [a_record(str(n), n * 10_000, "z", n) for n in range(1, 40)]

    assert told(early, late, *between)[0] == "early"


def test_records_without_headers_are_given_too() -> None:
    bare = Record("t", 0, 0, 1, None, None)

    assert list(in_causal_order([bare, bare], ME)) == [bare, bare]


@given(st.integers(0, 2**32), st.integers(1, 40), st.booleans())
def test_any_log_is_given_whole_by_partition_and_after_its_causes(seed: int, count: int, forged: bool) -> None:
    dice = random.Random(seed)
    offsets = dict.fromkeys("xyz", 0)
    clock, records = 0, []
    for number in range(count):
        topic = dice.choice("xyz")
        clock += dice.randrange(100)
        causes = count if forged else number
        cause = str(dice.randrange(causes)) if causes and dice.random() < 0.5 else ""
        own = dice.random() < 0.6
        sequence = dice.randrange(1, 1000) if forged else number + 1
        records.append(a_record(str(number), clock, topic, offsets[topic], cause, sequence if own else 0, ME if own else "other"))
        offsets[topic] += 1

    ordered = list(in_causal_order(records, ME))

    assert sorted((record.topic, record.offset) for record in ordered) == sorted((record.topic, record.offset) for record in records)
    for topic in "xyz":
        assert [record.offset for record in ordered if record.topic == topic] == sorted(
            record.offset for record in ordered if record.topic == topic
        )
    if not forged:
        assert ordered == records


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_topics_that_the_broker_took_late_change_nothing_about_causes_and_own_order(seed: int, count: int) -> None:
    dice = random.Random(seed)
    delay = {topic: dice.randrange(5000) for topic in "xyz"}
    offsets = dict.fromkeys("xyz", 0)
    records = []
    for number in range(count):
        topic = dice.choice("xyz")
        cause = str(dice.randrange(number)) if number and dice.random() < 0.7 else ""
        records.append(a_record(str(number), 10 * number + delay[topic], topic, offsets[topic], cause, number + 1))
        offsets[topic] += 1

    names = told(*records)

    assert names == [str(number) for number in range(count)]
