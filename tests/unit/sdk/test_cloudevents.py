"""CloudEvents in Kafka's binary mode: what is written is what is read, and what is no event is told apart in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard._cloudevents import Outgoing, Received, Undecodable, UnknownType, decode, derived_id
from trainyard.job.v1.job_pb2 import CancelRun, RunQueued

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
QUEUED = "trainyard.job.v1.RunQueued"


def an_outgoing(**fields: Any) -> Outgoing:
    message = CancelRun(run_id="r1", reason="enough")
    return Outgoing(**{"topic": "jobs", "key": "r1", "message": message, "event_id": "1", "source": "me", "time": NOW, **fields})


def received(event: Outgoing) -> Received:
    return decode(event.topic, 3, 42, event.key.encode(), event.value(), event.headers())


def decoded(headers: dict[str, bytes | None] | None = None, value: bytes | None = b"", key: bytes | None = b"r1") -> Received:
    fields: dict[str, bytes | None] = {"ce_id": b"1", "ce_type": QUEUED.encode(), **(headers or {})}
    return decode("jobs", 0, 0, key, value, [(name, value) for name, value in fields.items() if name])


# -- there and back


def test_what_is_written_is_what_is_read() -> None:
    sent = an_outgoing(causation_id="cause", correlation_id="run", traceparent="00-1-2-01")

    got = received(sent)

    assert got == Received("jobs", 3, 42, "r1", "1", "trainyard.job.v1.CancelRun", "me", NOW, sent.message, "cause", "run", "00-1-2-01")


def test_the_headers_are_those_of_the_binding() -> None:
    headers = dict(an_outgoing(causation_id="cause").headers())

    assert headers == {
        "ce_specversion": b"1.0",
        "ce_id": b"1",
        "ce_source": b"me",
        "ce_type": b"trainyard.job.v1.CancelRun",
        "ce_time": b"2026-01-02T03:04:05.678901+00:00",
        "ce_subject": b"r1",
        "ce_causationid": b"cause",
        "content-type": b"application/protobuf",
    }


def test_times_travel_in_utc() -> None:
    east = NOW.astimezone(timezone(timedelta(hours=14)))

    assert received(an_outgoing(time=east)).time == NOW
    assert dict(an_outgoing(time=east).headers())["ce_time"].endswith(b"+00:00")


def test_the_same_message_is_always_the_same_bytes() -> None:
    one, other = RunQueued(), RunQueued()
    for number in range(50):
        one.spec.tags[str(number)] = "x"
        other.spec.tags[str(49 - number)] = "x"

    assert an_outgoing(message=one).value() == an_outgoing(message=other).value()


@given(st.text(max_size=50), st.text(max_size=50), st.datetimes(timezones=st.just(UTC)))
def test_any_key_and_text_come_back(key: str, reason: str, when: datetime) -> None:
    sent = an_outgoing(key=key, message=CancelRun(run_id=key, reason=reason), time=when)

    got = received(sent)

    assert (got.key, got.message, got.time) == (key, sent.message, when)


def test_only_id_and_type_are_needed() -> None:
    got = decode("jobs", 0, 0, None, b"", [("ce_id", b"1"), ("ce_type", QUEUED.encode())])

    assert got == Received("jobs", 0, 0, "", "1", QUEUED, "", datetime.fromtimestamp(0, UTC), RunQueued())


def test_names_of_headers_have_no_case() -> None:
    got = decode("jobs", 0, 0, b"r1", b"", [("CE_Id", b"1"), ("Ce_Type", QUEUED.encode())])

    assert got.event_id == "1"


def test_of_a_header_that_comes_twice_the_first_counts() -> None:
    got = decode("jobs", 0, 0, b"r1", b"", [("ce_id", b"1"), ("ce_id", b"2"), ("ce_type", QUEUED.encode())])

    assert got.event_id == "1"


def test_headers_of_others_are_left_alone() -> None:
    assert decoded({"x-something": b"value", "empty": None}).event_id == "1"


def test_fields_that_a_newer_version_has_added_are_kept() -> None:
    newer = RunQueued(run_id="r1").SerializeToString() + bytes([0xBA, 0x06, 0x01, 0x78])

    got = decoded(value=newer)

    assert got.message.SerializeToString() == newer


# -- what is no event


@pytest.mark.parametrize(
    ("headers", "value", "key", "told"),
    [
        ({}, None, b"r1", "the record has no value"),
        ({}, b"", b"\xff", "not UTF-8"),
        ({"ce_source": b"\xff"}, b"", b"r1", "not UTF-8"),
        ({"ce_type": b""}, b"", b"r1", "the header ce_type is missing"),
        ({"ce_id": b""}, b"", b"r1", "the header ce_id is missing"),
        ({"ce_id": None}, b"", b"r1", "the header ce_id is missing"),
        ({"ce_type": b"google.protobuf.Struct"}, b"", b"r1", "'google.protobuf.Struct' is none of Trainyard's"),
        ({"ce_id": b"x" * 201}, b"", b"r1", "ce_id is longer than 200 characters"),
        ({"ce_id": b"a\x00b"}, b"", b"r1", "cannot be printed"),
        ({"traceparent": b"x" * 201}, b"", b"r1", "traceparent is longer than 200 characters"),
        ({"ce_correlationid": b"x" * 1025}, b"", b"r1", "ce_correlationid is longer than 1024 characters"),
        ({}, b"", b"x" * 1025, "the key is longer than 1024 characters"),
        ({"content-type": b"application/json"}, b"", b"r1", "content-type is 'application/json'"),
        ({}, b"\xff\xff\xff", b"r1", f"the value is no {QUEUED}"),
        ({}, RunQueued(run_id="r1").SerializeToString()[:-1], b"r1", f"the value is no {QUEUED}"),
        ({}, b"\x0a\x01\xff", b"r1", f"the value is no {QUEUED}"),
        ({"ce_time": b"yesterday"}, b"", b"r1", "ce_time 'yesterday' is no RFC 3339 time"),
        ({"ce_time": b"0001-01-01T00:00:00+14:00"}, b"", b"r1", "is no RFC 3339 time"),
        ({"ce_time": b"9999-12-31T23:59:59-14:00"}, b"", b"r1", "is no RFC 3339 time"),
    ],
)
def test_what_is_no_event_is_told_apart_in_words(headers: dict[str, bytes | None], value: bytes | None, key: bytes, told: str) -> None:
    with pytest.raises(Undecodable, match=told):
        decoded(headers, value, key)


def test_a_record_without_headers_is_no_event() -> None:
    with pytest.raises(Undecodable, match="ce_type is missing"):
        decode("jobs", 0, 0, b"r1", b"", None)


def test_parameters_of_the_content_type_change_nothing() -> None:
    assert decoded({"content-type": b"application/protobuf; proto=x"}).event_id == "1"


@pytest.mark.parametrize(
    "name",
    [
        "trainyard.job.v9.RunTeleported",
        "trainyard.",
        "trainyard.job.v1",
        "trainyard.job.v1.JobService",
        "trainyard.job.v1.RunStatus",
        "trainyard.\x00",
        "trainyard.ü",
    ],
)
def test_a_type_that_this_version_does_not_have_is_told_apart_from_nonsense(name: str) -> None:
    with pytest.raises(UnknownType):
        decoded({"ce_type": name.encode()})


@given(st.binary(max_size=200), st.lists(st.tuples(st.text(max_size=20), st.none() | st.binary(max_size=50)), max_size=5))
def test_no_bytes_whatever_raise_anything_else(value: bytes, headers: list[tuple[str, bytes | None]]) -> None:
    for own in ([], [("ce_id", b"1"), ("ce_type", QUEUED.encode())]):
        try:
            decode("jobs", 0, 0, value[:10], value, [*headers, *own])
        except (Undecodable, UnknownType):
            pass


# -- derived ids


def test_derived_ids_never_change() -> None:
    """They are in every log that exists: another value would double the events that follow from old ones."""
    assert derived_id("3f1b2c4d-0000-4000-8000-000000000001", QUEUED, 0) == "2e84b1ba-eb4f-57ce-852e-a83cfc85b68a"


def test_derived_ids_differ_by_cause_type_and_ordinal() -> None:
    ids = {derived_id(cause, kind, ordinal) for cause in ("a", "b") for kind in ("x", "y") for ordinal in (0, 1)}

    assert len(ids) == 8
