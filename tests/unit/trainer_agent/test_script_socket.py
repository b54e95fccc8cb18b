"""What a rank's script sends over its socket: metrics to batches, requests to answers, and nothing that a hostile one can break."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.records import NewRecord
from services.trainer_agent.archive import MetricsFile
from services.trainer_agent.metrics import Metrics
from services.trainer_agent.reporter import Cause
from services.trainer_agent.script_socket import Frames, ScriptSocket
from services.trainer_agent.telemetry import Attempt, LogStream
from trainyard._points import as_point
from trainyard._values import value_of
from trainyard.history.v1.archive_pb2 import MetricArchive
from trainyard.job.v1.telemetry_pb2 import LogChunk, MetricBatch


class Kept:
    """A reporter that only keeps."""

    def __init__(self) -> None:
        self.records: list[NewRecord] = []
        self.behind = 0
        self.flushed = 0

    def send(self, record: NewRecord) -> None:
        self.records.append(record)

    async def flush(self) -> None:
        self.flushed += 1

    def batches(self) -> list[Any]:
        return [MetricBatch.FromString(record.value or b"") for record in self.records if record.topic == "trainyard.metrics"]

    def points(self) -> list[Any]:
        return [point for batch in self.batches() for point in batch.points]

    def lines(self) -> list[str]:
        chunks = [LogChunk.FromString(record.value or b"") for record in self.records if record.topic == "trainyard.logs"]
        return [line for chunk in chunks for line in chunk.lines]


class Answers:
    """Knows one child, and answers with what it was asked."""

    def owns(self, run_id: str) -> bool:
        return run_id == "child"

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"ok": request}


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def metrics(tmp_path: Path, kept: Kept) -> Iterator[Metrics]:
    attempt = Attempt("run", 1, "test", Cause())
    stream = LogStream(attempt, 0, "azureml-logs/70_driver_log.txt", tmp_path / "driver.txt", kept)  # type: ignore[arg-type]
    archive = MetricsFile(tmp_path / "metrics")
    yield Metrics(attempt, 0, kept, stream, archive)  # type: ignore[arg-type]
    archive.close()
    stream.close()


def a_row(value: Any = 0.5, name: Any = "acc", kind: Any = "scalar", at: Any = 1.0, step: Any = None, description: Any = "") -> list[Any]:
    return [name, kind, value, at, step, description]


def a_metric(**fields: Any) -> dict[str, Any]:
    return {"name": "acc", "kind": "scalar", "value": 0.5, "at": 1.0, **fields}


# -- points


@pytest.mark.parametrize("value", [0.5, 7, -3, True, False, None, "good", 2**53 + 1, 10**300, math.inf, -math.inf])
def test_a_scalar_comes_back_as_it_was(value: Any) -> None:
    back = value_of(as_point(json.loads(json.dumps(a_metric(value=value)))))

    assert back == value
    assert isinstance(back, bool) == isinstance(value, bool)


def test_not_a_number_comes_back_as_it_was() -> None:
    assert math.isnan(value_of(as_point(json.loads(json.dumps(a_metric(value=math.nan))))))
    assert math.isnan(value_of(as_point(a_metric(kind="list", value=[math.nan])))[0])


def test_each_kind_of_value_has_its_place() -> None:
    assert as_point(a_metric()).number == 0.5
    assert as_point(a_metric(value="good")).text == "good"
    assert json.loads(as_point(a_metric(kind="list", value=[1, 2])).json) == [1, 2]
    assert as_point(a_metric(kind="image", value="aml://x")).text == "aml://x"
    assert as_point(a_metric(step=0)).HasField("step")


@pytest.mark.parametrize(
    "change",
    [
        {"name": " acc"}, {"name": ""}, {"name": 5}, {"name": ["acc"]}, {"kind": "video"}, {"kind": []}, {"value": {"x": 1}}, {"value": [1]},
        {"kind": "list", "value": 1}, {"kind": "row", "value": [1]}, {"kind": "image", "value": 1}, {"at": "late"}, {"at": 1e300},
        {"at": None}, {"step": "x"}, {"step": 2**70}, {"kind": "list", "value": ["x" * 3000] * 200}, {"value": "\ud800"},
    ],
)  # fmt: skip
def test_what_is_no_metric_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError, OverflowError)):
        as_point(a_metric(**change))


def test_a_bad_metric_is_a_line_in_the_log_and_the_next_one_is_taken(kept: Kept, metrics: Metrics) -> None:
    metrics.take(["no row", {"name": "x"}, [1, 2], None, a_row()])

    assert [point.name for point in kept.points()] == ["acc"]
    assert sum("was not recorded" in line for line in kept.lines()) == 4


def test_complaints_end_after_a_hundred(kept: Kept, metrics: Metrics) -> None:
    metrics.take([None] * 1000)

    assert len(kept.lines()) == 100
    assert "no more of these" in kept.lines()[-1]


def test_what_is_sent_is_archived_as_it_was_sent(kept: Kept, metrics: Metrics) -> None:
    metrics.take([a_row(1.0)])
    metrics.take([a_row(2.0)], "child")

    assert metrics._archive.close()

    archived = MetricArchive.FromString(metrics._archive.path.read_bytes()).batches
    sent = [record for record in kept.records if record.topic == "trainyard.metrics"]
    assert [(one.event_id.encode(), one.value) for one in archived] == [(dict(record.headers)["ce_id"], record.value) for record in sent]
    assert [MetricBatch.FromString(one.value).run_id for one in archived] == ["run", "child"]


def test_what_a_stray_child_logs_after_the_archive_is_closed_is_sent_all_the_same(kept: Kept, metrics: Metrics) -> None:
    metrics.take([a_row(1.0)])
    metrics._archive.close()

    metrics.take([a_row(2.0)])

    assert [point.number for point in kept.points()] == [1.0, 2.0]
    assert len(MetricArchive.FromString(metrics._archive.path.read_bytes()).batches) == 1


def test_a_disk_that_takes_no_archive_costs_no_metric(kept: Kept, metrics: Metrics) -> None:
    metrics._archive.path.mkdir()

    metrics.take([a_row(1.0)])
    metrics.take([a_row(2.0)])

    assert [point.number for point in kept.points()] == [1.0, 2.0]
    assert not metrics._archive.close()
    assert "not archived" in metrics._archive.trouble


def test_of_two_kinds_under_one_name_the_second_is_left_out_whichever_rank_logs_it(kept: Kept, metrics: Metrics) -> None:
    other = Metrics(metrics._attempt, 1, kept, metrics._log, metrics._archive)  # type: ignore[arg-type]
    metrics.take([a_row()])

    other.take([a_row([1], kind="list"), a_row(2.0)])
    metrics.take([a_row([1], kind="list")], "child")

    assert [(batch.run_id, batch.rank, [point.kind for point in batch.points]) for batch in kept.batches()] == [
        ("run", 0, ["scalar"]), ("run", 1, ["scalar"]), ("child", 0, ["list"]),
    ]  # fmt: skip
    assert sum("left out" in line for line in kept.lines()) == 1


def test_batches_fit_a_message(kept: Kept, metrics: Metrics) -> None:
    metrics.take([a_row(["x" * 3000] * 100, kind="list", name=f"m{number}") for number in range(10)])

    assert len(kept.points()) == 10
    assert all(len(record.value or b"") < 1_000_000 for record in kept.records)


# -- the socket


async def _talk(path: Path, *lines: bytes, answers: int = 0) -> list[Any]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"".join(line + b"\n" for line in lines))
    await writer.drain()
    found = [json.loads(await reader.readline()) for _ in range(answers)]
    writer.close()
    return found


def _said(*rows: Any, **more: Any) -> bytes:
    return json.dumps({"metrics": rows, **more}).encode()


async def test_metrics_come_over_a_socket_and_are_read_to_the_end(tmp_path: Path, kept: Kept, metrics: Metrics) -> None:
    ears = ScriptSocket(metrics, Answers())
    await ears.listen(tmp_path / "s")

    await _talk(tmp_path / "s", *(_said(a_row(float(number))) for number in range(1000)))
    await ears.close()

    assert [point.number for point in kept.points()] == [float(number) for number in range(1000)]


async def test_a_request_is_answered_after_what_was_logged_before_it(tmp_path: Path, kept: Kept, metrics: Metrics) -> None:
    ears = ScriptSocket(metrics, Answers())
    await ears.listen(tmp_path / "s")

    sync, view = await _talk(tmp_path / "s", _said(a_row()), b'{"ask": "sync"}', b'{"ask": "view"}', answers=2)
    seen = len(kept.points())
    (flush,) = await _talk(tmp_path / "s", b'{"ask": "flush", "seconds": 5}', answers=1)
    await ears.close()

    assert (sync, view, flush, seen, kept.flushed) == ({"ok": True}, {"ok": {"ask": "view"}}, {"ok": True}, 1, 1)


@pytest.mark.security
@pytest.mark.parametrize("seconds", ["NaN", "-Infinity", "-1", "1" + "0" * 400, '"x"', "[]", "{}", "null"])
async def test_a_flush_with_a_time_that_is_none_is_answered_and_leaves_the_loops_timers_in_order(
    tmp_path: Path, kept: Kept, metrics: Metrics, monkeypatch: pytest.MonkeyPatch, seconds: str
) -> None:
    asked: list[float | None] = []
    real = asyncio.timeout

    def timeout(delay: float | None) -> asyncio.Timeout:
        asked.append(delay)
        return real(delay)

    monkeypatch.setattr(asyncio, "timeout", timeout)
    ears = ScriptSocket(metrics, Answers())
    await ears.listen(tmp_path / "s")

    flush, sync = await _talk(tmp_path / "s", f'{{"ask": "flush", "seconds": {seconds}}}'.encode(), b'{"ask": "sync"}', answers=2)
    await ears.close()

    assert set(flush) == {"ok"} and sync == {"ok": True}
    assert all(delay is not None and 0 <= delay <= 600 for delay in asked)


async def test_a_script_speaks_for_itself_and_its_children_only(tmp_path: Path, kept: Kept, metrics: Metrics) -> None:
    ears = ScriptSocket(metrics, Answers())
    await ears.listen(tmp_path / "s")

    await _talk(tmp_path / "s", _said(a_row(), run="child"), _said(a_row(), run="somebody"), _said(a_row(), run=["x"]), _said(a_row()))
    await ears.close()

    assert [(batch.run_id, batch.epoch) for batch in kept.batches()] == [("child", 0), ("run", 1)]
    assert sum("no child of this script" in line for line in kept.lines()) == 2


async def test_garbage_is_told_and_the_next_line_is_taken(tmp_path: Path, kept: Kept, metrics: Metrics) -> None:
    ears = ScriptSocket(metrics, Answers())
    await ears.listen(tmp_path / "s")

    garbage = (b"\xff\xfe", b"[1]", b"[" * 100_000, b'{"metrics": 7}', b"x" * (3 << 20), b'{"ask": []}')
    await _talk(tmp_path / "s", *garbage, _said(a_row()), answers=1)
    await ears.close()

    assert [point.name for point in kept.points()] == ["acc"]
    assert len(kept.lines()) == 5


async def test_a_script_that_is_faster_than_the_log_waits(tmp_path: Path, kept: Kept, metrics: Metrics) -> None:
    ears = ScriptSocket(metrics, Answers())
    await ears.listen(tmp_path / "s")
    kept.behind = 1_000_000

    await _talk(tmp_path / "s", _said(a_row()), b'{"ask": "sync"}', answers=1)
    await _talk(tmp_path / "s", b'{"ask": "sync"}', answers=1)
    await ears.close()

    assert kept.flushed >= 1


@given(st.lists(st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b"")), max_size=10), st.integers(1, 9))
def test_frames_do_not_depend_on_how_the_bytes_come(lines: list[bytes], step: int) -> None:
    raw = b"".join(line + b"\n" for line in lines)
    frames = Frames(20)

    found = [line for start in range(0, len(raw), step) for line in frames.feed(raw[start : start + step])]

    assert found == [line for line in lines if 0 < len(line) <= 20]
    assert frames.lost == sum(len(line) > 20 for line in lines)


async def test_a_script_that_removes_its_socket_does_not_hold_up_the_end(tmp_path: Path, kept: Kept, metrics: Metrics) -> None:
    ears = ScriptSocket(metrics, Answers())
    await ears.listen(tmp_path / "s")
    (tmp_path / "s").unlink()

    await asyncio.wait_for(ears.close(), 30)

    assert kept.points() == []


async def test_a_socket_of_another_listener_does_not_hold_up_the_end(tmp_path: Path, kept: Kept, metrics: Metrics) -> None:
    ears = ScriptSocket(metrics, Answers())
    await ears.listen(tmp_path / "s")
    (tmp_path / "s").unlink()
    other = await asyncio.start_unix_server(lambda _reader, writer: writer.close(), str(tmp_path / "s"))

    await asyncio.wait_for(ears.close(patience=0.01), 30)
    other.close()

    assert kept.points() == []
