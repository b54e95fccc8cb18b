import io
import re
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from trainyard import _watch
from trainyard._experiment import new_run_id
from trainyard._progress import Printer
from trainyard._show import Story
from trainyard._watch import DRIVER_LOG, Line, LineOrder, log_lines
from trainyard.job.v1 import job_pb2
from trainyard.job.v1.telemetry_pb2 import LogChunk


def a_chunk(first: int, *lines: str, epoch: int = 1) -> LogChunk:
    return LogChunk(run_id="r", epoch=epoch, log=DRIVER_LOG, first_line=first, lines=lines)


def given(*chunks: LogChunk) -> list[str]:
    order = LineOrder()
    return [line.text for chunk in chunks for line in order.take(chunk)]


def test_lines_that_come_twice_are_shown_once() -> None:
    assert given(a_chunk(0, "a", "b"), a_chunk(0, "a", "b"), a_chunk(1, "b", "c")) == ["a", "b", "c"]


def test_a_lost_line_does_not_stop_the_rest() -> None:
    assert given(a_chunk(0, "a"), a_chunk(5, "f")) == ["a", "f"]


def test_a_lost_attempt_is_silent_once_the_next_one_speaks() -> None:
    assert given(a_chunk(0, "a"), a_chunk(0, "again", epoch=2), a_chunk(1, "late", epoch=1)) == ["a", "again"]


def test_a_run_id_is_experiment_seconds_and_eight_hex_digits() -> None:
    assert re.fullmatch(r"tf-mnist_1560782640_[0-9a-f]{8}", new_run_id("tf-mnist", 1560782640.9))


def test_the_story_of_a_run_in_plain_lines() -> None:
    out = io.StringIO()
    story = Story("r_1", "trainyard run show r_1", Printer(out))

    story.state(job_pb2.Run(run_id="r_1", status=job_pb2.RUN_STATUS_QUEUED, why="waits for a node"))
    story.state(job_pb2.Run(run_id="r_1", status=job_pb2.RUN_STATUS_QUEUED, why="waits for a node"))
    story.output(Line(DRIVER_LOG, 1, 0, "[bold]not markup[/bold]"))
    story.summary(job_pb2.Run(run_id="r_1", status=job_pb2.RUN_STATUS_COMPLETED))

    text = out.getvalue()
    assert text.startswith(
        "RunId: r_1\nWeb View: trainyard run show r_1\n[Queued]: waits for a node\n\nStreaming azureml-logs/70_driver_log.txt\n"
    )
    assert text.count("[Queued]") == 1
    assert "[bold]not markup[/bold]\n" in text
    assert text.endswith("Execution Summary\n=================\nRunId: r_1\nStatus: Completed\n")


def test_a_place_in_the_queue_is_told_whenever_it_is_another() -> None:
    out = io.StringIO()
    story = Story("r_1", "url", Printer(out))

    for position in (3, 3, 2):
        story.state(job_pb2.Run(run_id="r_1", status=job_pb2.RUN_STATUS_QUEUED, why="2 of 4 nodes are free", position=position))
    story.state(job_pb2.Run(run_id="r_1", status=job_pb2.RUN_STATUS_RUNNING, why="runs"))

    assert out.getvalue().splitlines()[2:] == [
        "[Queued, position 3]: 2 of 4 nodes are free",
        "[Queued, position 2]: 2 of 4 nodes are free",
        "[Running]: runs",
    ]


def test_of_several_ranks_the_preferred_ones_output_is_streamed() -> None:
    chunks = [LogChunk(run_id="r", epoch=1, rank=rank, log=f"azureml-logs/70_driver_log_{rank}.txt", lines=["x"]) for rank in (1, 0, 2)]
    batch = [SimpleNamespace(event=SimpleNamespace(message=chunk)) for chunk in chunks]
    events: Any = SimpleNamespace(read=lambda *_, **__: [batch])

    found = list(log_lines(events, "r", datetime.now(UTC), lambda: False))

    assert [(line.log, line.rank) for line in found] == [("azureml-logs/70_driver_log_0.txt", 0)]


def test_who_follows_a_run_sees_its_script_and_its_preparation_and_not_what_nodes_say_of_their_own_work(monkeypatch: Any) -> None:
    logs = [
        "55_azureml-execution-a.txt",
        "20_image_build_log.txt",
        "65_job_prep-a.txt",
        "65_job_prep-b.txt",
        "70_driver_log.txt",
        "75_job_post-a.txt",
    ]
    monkeypatch.setattr(_watch, "states", lambda *_: iter(()))
    monkeypatch.setattr(_watch, "log_lines", lambda *_: (Line(f"azureml-logs/{log}", 1, 0, log) for log in logs))

    shown = [line.text for line in _watch.follow(SimpleNamespace(_events=None), "run", datetime.now(UTC), logs=True)]  # type: ignore[arg-type]

    assert shown == ["20_image_build_log.txt", "65_job_prep-a.txt", "70_driver_log.txt"]
