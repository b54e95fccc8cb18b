"""A dead letter keeps what was refused, and always fits its topic."""

from __future__ import annotations

from datetime import UTC, datetime

from services.chassis import dead_letters
from services.chassis.dead_letters import as_letter
from services.chassis.records import NewRecord, Record
from services.chassis.topics import MAX_MESSAGE_BYTES
from tests.unit.chassis.small_service import letters
from trainyard.event.v1.dead_letter_pb2 import DeadLetter

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def a_record(key: bytes | None = b"r1", value: bytes | None = b"value", headers: tuple[tuple[str, bytes | None], ...] = ()) -> Record:
    return Record("trainyard.jobs", 3, 42, 1000, key, value, headers)


def the_letter(record: NewRecord) -> DeadLetter:
    (letter,) = letters([record])
    return letter


def test_it_tells_what_was_refused_by_whom_why_and_when() -> None:
    sent = as_letter(a_record(headers=(("ce_id", b"1"), ("ce_id", b"2"))), "scheduler", "no good", "stack", NOW)

    letter = the_letter(sent)
    assert (sent.topic, sent.key) == (dead_letters.TOPIC, b"r1")
    assert (letter.topic, letter.partition, letter.offset) == ("trainyard.jobs", 3, 42)
    assert (letter.key, letter.value) == (b"r1", b"value")
    assert [(header.name, header.value) for header in letter.headers] == [("ce_id", b"1"), ("ce_id", b"2")]
    assert (letter.service, letter.error, letter.stack) == ("scheduler", "no good", "stack")
    assert letter.refused_at.ToDatetime(UTC) == NOW


def test_its_id_depends_on_the_place_and_the_service_alone() -> None:
    def id_of(sent: NewRecord) -> bytes:
        return dict(sent.headers)["ce_id"]

    one = as_letter(a_record(), "scheduler", "no good", "stack", NOW)
    again = as_letter(a_record(), "scheduler", "other words", "", datetime(2027, 1, 1, tzinfo=UTC))
    other = as_letter(a_record(), "registry", "no good", "stack", NOW)

    assert id_of(one) == id_of(again) != id_of(other)


def test_bytes_that_are_no_text_are_kept_as_they_came() -> None:
    sent = as_letter(a_record(key=b"\xff\xfe", value=b"\x00\xff", headers=(("n", b"\xff"), ("none", None))), "s", "e", "", NOW)

    letter = the_letter(sent)
    assert (letter.key, letter.value) == (b"\xff\xfe", b"\x00\xff")
    assert [header.value for header in letter.headers] == [b"\xff", b""]


def test_a_record_without_key_or_value_has_a_letter_too() -> None:
    letter = the_letter(as_letter(a_record(key=None, value=None), "s", "e", "", NOW))

    assert (letter.key, letter.value) == (b"", b"")


def test_whatever_is_huge_is_cut_so_that_the_topic_takes_the_letter() -> None:
    headers = tuple((f"h{number}", b"x" * 30_000) for number in range(100))
    huge = a_record(b"\xff" * (1 << 20), b"v" * (1 << 20), headers)

    sent = as_letter(huge, "s", "e" * 100_000, "s" * 1_000_000, NOW)

    size = len(sent.key or b"") + len(sent.value or b"") + sum(len(name) + len(value) for name, value in sent.headers)
    assert size < MAX_MESSAGE_BYTES
    letter = the_letter(sent)
    assert letter.value == b"v" * (512 << 10)
    assert len(letter.headers) == 2


def test_a_reason_with_lone_surrogates_is_told_without_them() -> None:
    letter = the_letter(as_letter(a_record(), "s", "no file \udcff", "stack \ud800", NOW))

    assert letter.error == "no file ?"
    assert letter.stack == "stack ?"
