"""Documents are frozen dataclasses as readable JSON; versions of them differ by a deploy."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis import codec
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet, Failure
from trainyard.job.v1.job_pb2 import RUN_STATUS_RUNNING, Run


class Phase(Enum):
    WAITING = "waiting"
    DONE = "done"


@dataclass(frozen=True)
class Part:
    name: str
    ranks: tuple[int, ...] = ()


@dataclass(frozen=True)
class State:
    id: str
    phase: Phase = Phase.WAITING
    since: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    parts: tuple[Part, ...] = ()
    by_name: dict[str, Part] = field(default_factory=dict)
    outputs: ArtifactSet = field(default_factory=ArtifactSet)
    failure: Failure | None = None
    note: str | None = None
    blob: bytes = b""
    share: float = 0.0


@dataclass(frozen=True)
class Older:
    id: str
    gone: int = 7


@dataclass(frozen=True)
class Newer:
    id: str
    added: tuple[str, ...] = ("default",)


A_STATE = State(
    id="r1",
    phase=Phase.DONE,
    since=datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC),
    parts=(Part("a", (0, 1)), Part("b")),
    by_name={"ü/🚂": Part("c", (-1,))},
    outputs=ArtifactSet(files=[Artifact(path="outputs/model", size_bytes=2**63, sha256="0" * 64)]),
    failure=Failure(code="UserError", message="no", exit_code=0),
    note="",
    blob=bytes(range(256)),
    share=1 / 3,
)


@pytest.mark.parametrize("state", [A_STATE, State(id="")])
def test_what_is_stored_is_what_is_read(state: State) -> None:
    assert codec.loads(codec.dumps(state), State) == state


def test_a_field_of_a_message_that_is_set_to_its_zero_stays_set() -> None:
    again = codec.loads(codec.dumps(A_STATE), State)

    assert again.failure is not None
    assert again.failure.HasField("exit_code") and not again.failure.HasField("rank")


def test_the_same_state_is_always_the_same_bytes() -> None:
    one, other = (Run(run_id="r", status=RUN_STATUS_RUNNING) for _ in range(2))
    for number in range(50):
        one.spec.tags[str(number)] = "x"
        other.spec.tags[str(49 - number)] = "x"

    assert codec.dumps(one) == codec.dumps(other)


def test_documents_can_be_read_by_people() -> None:
    content = json.loads(codec.dumps(A_STATE))

    assert content["phase"] == "done"
    assert content["since"].startswith("2026-02-03T04:05:06")
    assert "ü/🚂" in codec.dumps(A_STATE).decode()


def test_a_field_that_an_older_version_did_not_write_takes_its_default() -> None:
    assert codec.loads(codec.dumps(Older("r1")), Newer) == Newer("r1", ("default",))


def test_a_field_that_this_version_does_not_know_is_dropped() -> None:
    assert codec.loads(codec.dumps(Newer("r1", ("x",))), Older) == Older("r1", 7)


def test_a_field_of_a_message_that_this_version_does_not_know_is_kept() -> None:
    newer = Failure.FromString(Failure(code="UserError").SerializeToString() + bytes([0xBA, 0x06, 0x01, 0x78]))

    again = codec.loads(codec.dumps(State("r1", failure=newer)), State)

    assert again.failure is not None
    assert again.failure.SerializeToString() == newer.SerializeToString()


def test_a_message_alone_is_a_document_too() -> None:
    run = Run(run_id="r1", status=RUN_STATUS_RUNNING)

    assert codec.loads(codec.dumps(run), Run) == run


@given(st.text(), st.floats(allow_nan=False, allow_infinity=False), st.datetimes(timezones=st.just(UTC)), st.lists(st.integers()))
def test_any_values_come_back(text: str, number: float, when: datetime, ranks: list[int]) -> None:
    state = State(text, since=when, share=number, note=text, parts=(Part(text, tuple(ranks)),), by_name={text: Part(text)})

    assert codec.loads(codec.dumps(state), State) == state


def test_times_keep_their_moment_whatever_their_zone() -> None:
    east = datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(microseconds=1)

    assert codec.loads(codec.dumps(State("r1", since=east)), State).since == east
