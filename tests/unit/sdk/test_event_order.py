import random
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from trainyard._kafka import Raw, in_causal_order, partition_of

START = datetime(2026, 1, 1, tzinfo=UTC)


def a_record(name: str, second: float, cause: str = "", topic: str = "t", partition: int = 0, offset: int = 0) -> Raw:
    event = SimpleNamespace(event_id=name, causation_id=cause)
    return Raw(topic, partition, offset, START + timedelta(seconds=second), b"k", b"", event)  # type: ignore[arg-type]


def names(records: list[Raw]) -> list[str]:
    return [record.event.event_id for record in records if record.event is not None]


def test_events_of_several_topics_are_told_in_time_order() -> None:
    records = [a_record("b", 2, topic="jobs"), a_record("a", 1, topic="tasks"), a_record("c", 3, topic="models")]

    assert names(in_causal_order(records)) == ["a", "b", "c"]


def test_a_clock_that_runs_behind_does_not_put_an_effect_before_its_cause() -> None:
    records = [a_record("effect", 1.0, cause="cause", topic="tasks"), a_record("cause", 1.2, topic="jobs")]

    assert names(in_causal_order(records)) == ["cause", "effect"]


def test_a_partition_is_told_as_it_lies() -> None:
    records = [a_record("second", 1, offset=1), a_record("first", 5, offset=0)]

    assert names(in_causal_order(records)) == ["first", "second"]


def test_a_circle_of_causes_loses_nothing() -> None:
    records = [a_record("a", 1, cause="b", topic="x"), a_record("b", 2, cause="a", topic="y"), a_record("c", 3, cause="c", topic="z")]

    assert sorted(names(in_causal_order(records))) == ["a", "b", "c"]


@given(st.integers(0, 2**32), st.integers(1, 30))
def test_any_events_come_out_once_each_and_after_their_causes(seed: int, count: int) -> None:
    dice = random.Random(seed)
    records = []
    for number in range(count):
        cause = str(dice.randrange(number)) if number and dice.random() < 0.7 else ""
        records.append(a_record(str(number), dice.uniform(0, 5), cause, topic=f"t{dice.randrange(3)}", offset=number))
    shuffled = dice.sample(records, count)

    told = names(in_causal_order(shuffled))

    assert sorted(told, key=int) == [str(number) for number in range(count)]
    place = {name: index for index, name in enumerate(told)}
    assert all(
        place[record.event.causation_id] < place[record.event.event_id] for record in records if record.event and record.event.causation_id
    )


def test_a_key_has_the_partition_that_kafkas_java_client_gives_it() -> None:
    # From Kafka's own test of murmur2: "21" -> -973932308, "foobar" -> -790332482
    assert partition_of("21", 64) == (-973932308 & 0x7FFFFFFF) % 64
    assert partition_of("foobar", 8) == (-790332482 & 0x7FFFFFFF) % 8
