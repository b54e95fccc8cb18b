import json
from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from trainyard._cloudevents import Received
from trainyard._kafka import Raw
from trainyard._tail import as_object, as_text
from trainyard.cluster.v1.cluster_pb2 import AgentRegistered, CreatePool, TaskPhase
from trainyard.job.v1.job_pb2 import CancelRun

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def told(message: Message, key: str = "pool") -> Raw:
    event = Received("t", 0, 0, key, "id", message.DESCRIPTOR.full_name, "somebody", NOW, message)
    return Raw("t", 0, 0, NOW, key.encode(), b"", event)


def test_a_value_that_json_has_no_form_for_is_told_as_text_and_ends_nothing() -> None:
    record = told(CreatePool(name="pool", idle_before_scaledown=Duration(seconds=10**13)))

    shown = as_object(record)

    assert json.loads(json.dumps(shown))["data"] is None
    assert "10000000000000" in shown["text"]
    assert "not valid" in shown["unreadable"]


def test_an_event_is_told_by_its_fields() -> None:
    shown = as_object(told(CancelRun(run_id="r", reason="late")))

    assert shown["data"] == {"run_id": "r", "reason": "late"}
    assert shown["time"] == NOW.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_a_terminal_is_shown_control_sequences_and_never_given_them() -> None:
    line = as_text(told(TaskPhase(phase="\x1b[2Jx", detail="a\rb"), key="k\x07"))

    assert line.isprintable()
    assert "\\x1b[2Jx" in line


def test_a_key_of_any_length_leaves_the_line_readable() -> None:
    assert len(as_text(told(CancelRun(run_id="r"), key="x" * 100_000))) < 400


def test_an_incarnation_is_told_by_as_much_of_it_as_an_id() -> None:
    line = as_text(told(AgentRegistered(agent_id="agent-0", incarnation="0123456789abcdef" * 2), key="agent-0"))

    assert "incarnation=01234567 " in f"{line} "
