from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.records import NewRecord, Unavailable
from services.trainer_agent.reporter import Cause, Reporter
from services.trainer_agent.telemetry import Attempt, Lines, LogStream
from trainyard.job.v1.telemetry_pb2 import LogChunk

ATTEMPT = Attempt("run", 1, "test", Cause())


class Kept:
    """A reporter that only keeps."""

    def __init__(self) -> None:
        self.records: list[NewRecord] = []

    def send(self, record: NewRecord) -> None:
        self.records.append(record)

    def chunks(self) -> list[Any]:
        return [LogChunk.FromString(record.value or b"") for record in self.records if record.topic == "trainyard.logs"]


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
