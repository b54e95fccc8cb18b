from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.records import NewRecord, Unavailable
from services.trainer_agent.reporter import Cause, Reporter
from services.trainer_agent.telemetry import Attempt, Lines, LogStream, Metrics, as_point
from trainyard.job.v1.telemetry_pb2 import LogChunk, MetricBatch

ATTEMPT = Attempt("run", 1, "test", Cause())


class Kept:
    """A reporter that only keeps."""

    def __init__(self) -> None:
        self.records: list[NewRecord] = []

    def send(self, record: NewRecord) -> None:
        self.records.append(record)

    def chunks(self) -> list[Any]:
        return [LogChunk.FromString(record.value or b"") for record in self.records if record.topic == "trainyard.logs"]

    def points(self) -> list[Any]:
        batches = [MetricBatch.FromString(record.value or b"") for record in self.records if record.topic == "trainyard.metrics"]
        return [point for batch in batches for point in batch.points]


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def stream(tmp_path: Path, kept: Kept) -> Iterator[LogStream]:
    made = LogStream(ATTEMPT, 0, "azureml-logs/70_driver_log.txt", tmp_path / "logs" / "driver.txt", kept)  # type: ignore[arg-type]
    yield made
    made.close()


# -- lines


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"one\ntwo\n"], ["one", "two"]),
        ([b"on", b"e\ntw", b"o"], ["one", "two"]),
        ([b"windows\r\nline\r", b"\n"], ["windows", "line"]),
        ([b"10%\r20%\r", b"100%\n"], ["10%", "20%", "100%"]),
        ([b"\n\nx"], ["", "", "x"]),
        ([b"\xff\xfe\n"], ["\ufffd\ufffd"]),
        ([], []),
    ],
)
def test_bytes_become_lines(pieces: list[bytes], lines: list[str]) -> None:
    splitter = Lines()

    found = [line for piece in pieces for line in splitter.feed(piece)] + splitter.finish()

    assert found == lines


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1, max_size=20), max_size=20),
    st.integers(1, 7),
)
def test_lines_do_not_depend_on_how_the_bytes_come(lines: list[str], step: int) -> None:
    raw = "".join(f"{line}\n" for line in lines).encode()
    splitter = Lines()

    found = [line for start in range(0, len(raw), step) for line in splitter.feed(raw[start : start + step])] + splitter.finish()

    assert found == lines


def test_a_line_that_never_ends_is_cut() -> None:
    splitter = Lines()

    found = splitter.feed(b"x" * 100_000) + splitter.finish()

    assert "".join(found) == "x" * 100_000
    assert max(len(line) for line in found) <= 32 << 10


# -- logs


def test_chunks_carry_the_number_of_their_first_line_and_the_file_has_all(tmp_path: Path, kept: Kept, stream: LogStream) -> None:

    stream.write(["a", "b"])
    stream.write(["c"])
    stream.close()

    assert [(chunk.first_line, list(chunk.lines), chunk.last) for chunk in kept.chunks()] == [
        (0, ["a", "b"], False),
        (2, ["c"], False),
        (3, [], True),
    ]
    assert (tmp_path / "logs" / "driver.txt").read_text() == "a\nb\nc\n"


def test_a_flood_is_sent_in_chunks_that_fit_a_message(kept: Kept, stream: LogStream) -> None:
    stream.write(["x" * 50_000] * 30)
    stream.write(["\N{SNOWMAN}" * 1_000] * 1_000)

    assert sum(len(chunk.lines) for chunk in kept.chunks()) == 1030
    assert all(len(record.value or b"") < 300 << 10 for record in kept.records)
    assert max(len(line) for chunk in kept.chunks() for line in chunk.lines) == 32 << 10


def test_the_last_twenty_lines_are_remembered(stream: LogStream) -> None:
    stream.write([str(number) for number in range(30)])

    assert list(stream.last_lines) == [str(number) for number in range(10, 30)]


# -- metrics


def a_metric(**fields: Any) -> dict[str, Any]:
    return {"name": "acc", "kind": "scalar", "value": 0.5, "at": 1.0, **fields}


def test_each_kind_of_value_has_its_place() -> None:
    assert as_point(a_metric()).number == 0.5
    assert as_point(a_metric(value="good")).text == "good"
    assert json.loads(as_point(a_metric(kind="list", value=[1, 2])).json) == [1, 2]
    assert json.loads(as_point(a_metric(value=None)).json) is None
    assert as_point(a_metric(value=True)).number == 1.0


@pytest.mark.parametrize(
    "change", [{"name": " acc"}, {"name": ""}, {"name": 5}, {"kind": "video"}, {"value": {"x": 1}}, {"at": "late"}, {"at": 1e300}]
)
def test_what_is_no_metric_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError, OverflowError)):
        as_point(a_metric(**change))


def test_a_bad_metric_is_a_line_in_the_log_and_the_next_one_is_taken(kept: Kept, stream: LogStream) -> None:
    metrics = Metrics(ATTEMPT, 0, kept, stream)  # type: ignore[arg-type]

    metrics.take(["no json", json.dumps({"name": "x"}), json.dumps(a_metric())])

    assert [point.name for point in kept.points()] == ["acc"]
    assert [line for chunk in kept.chunks() for line in chunk.lines if "was not recorded" in line] != []


def test_what_is_nested_without_end_is_no_metric(kept: Kept, stream: LogStream) -> None:
    metrics = Metrics(ATTEMPT, 0, kept, stream)  # type: ignore[arg-type]

    metrics.take(["[" * 100_000, json.dumps({"name": "loss", "kind": "scalar", "value": 1, "at": 1})])

    assert [point.name for point in kept.points()] == ["loss"]
    assert "was not recorded" in stream.last_lines[-1]


async def test_a_metric_of_many_values_comes_in_one_piece(tmp_path: Path, kept: Kept, stream: LogStream) -> None:
    metrics = Metrics(ATTEMPT, 0, kept, stream)  # type: ignore[arg-type]
    await metrics.listen(tmp_path / "s")
    values = [0.123456789] * 20_000

    _, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
    writer.write(json.dumps({"name": "roc", "kind": "list", "value": values, "at": 1}).encode() + b"\n")
    await writer.drain()
    writer.close()
    await metrics.close()

    assert [json.loads(point.json) for point in kept.points()] == [values]


async def test_metrics_come_over_a_socket_and_are_read_to_the_end(tmp_path: Path, kept: Kept, stream: LogStream) -> None:
    metrics = Metrics(ATTEMPT, 0, kept, stream)  # type: ignore[arg-type]
    path = tmp_path / "s"
    await metrics.listen(path)

    _, writer = await asyncio.open_unix_connection(str(path))
    for number in range(1000):
        writer.write(json.dumps(a_metric(value=float(number))).encode() + b"\n")
    await writer.drain()
    writer.close()
    await metrics.close()

    assert [point.number for point in kept.points()] == [float(number) for number in range(1000)]


# -- reports


class Flaky:
    """A publisher that is away for a while."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.published: list[NewRecord] = []

    def publish(self, records: Any) -> list[Any]:
        if self.failures:
            self.failures -= 1
            raise Unavailable("away")
        self.published += records
        return []

    def close(self) -> None:
        """Nothing is open."""


async def test_reports_wait_for_a_broker_that_is_away_and_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.trainer_agent.reporter._RETRY_SECONDS", 0.0)
    publisher = Flaky(failures=3)
    reporter = Reporter(publisher)
    task = asyncio.create_task(reporter.run())

    for number in range(5):
        reporter.send(NewRecord("t", b"k", str(number).encode()))
    await asyncio.wait_for(reporter.flush(), 5)
    task.cancel()

    assert [record.value for record in publisher.published] == [b"0", b"1", b"2", b"3", b"4"]


async def test_beyond_its_limit_the_oldest_are_let_go_and_counted() -> None:
    lost: list[int] = []
    publisher = Flaky(0)
    reporter = Reporter(publisher, limit=250_000, dropped=lost.append)

    for number in range(5):
        reporter.send(NewRecord("t", b"k", str(number).encode() * 100_000))
    task = asyncio.create_task(reporter.run())
    await asyncio.wait_for(reporter.flush(), 5)
    task.cancel()

    assert sum(lost) == 3
    assert [(record.value or b"")[:1] for record in publisher.published] == [b"3", b"4"]


async def test_what_no_topic_takes_holds_up_nothing() -> None:
    lost: list[int] = []
    publisher = Flaky(0)
    reporter = Reporter(publisher, dropped=lost.append)
    task = asyncio.create_task(reporter.run())

    reporter.send(NewRecord("t", b"k", bytes((1 << 20) + 1)))
    reporter.send(NewRecord("t", b"k", b"next"))
    await asyncio.wait_for(reporter.flush(), 5)
    task.cancel()

    assert [record.value for record in publisher.published] == [b"next"]
    assert lost == [1]


async def test_a_script_that_removes_its_socket_does_not_hold_up_the_end(tmp_path: Path, kept: Kept, stream: LogStream) -> None:
    metrics = Metrics(ATTEMPT, 0, kept, stream)  # type: ignore[arg-type]
    await metrics.listen(tmp_path / "s")
    (tmp_path / "s").unlink()

    await asyncio.wait_for(metrics.close(), 30)

    assert kept.points() == []


async def test_a_socket_of_another_listener_does_not_hold_up_the_end(tmp_path: Path, kept: Kept, stream: LogStream) -> None:
    metrics = Metrics(ATTEMPT, 0, kept, stream)  # type: ignore[arg-type]
    await metrics.listen(tmp_path / "s")
    (tmp_path / "s").unlink()
    other = await asyncio.start_unix_server(lambda _reader, writer: writer.close(), str(tmp_path / "s"))

    await asyncio.wait_for(metrics.close(patience=0.01), 30)
    other.close()

    assert kept.points() == []
