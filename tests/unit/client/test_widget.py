"""The widget's content: what it shows of a run, and that nothing hostile gets through."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.client.platform import Platform
from tests.unit.client.test_cli_runs import add_run
from trainyard import Experiment, Run
from trainyard._offline import OfflineRun
from trainyard._widget import RunDetails
from trainyard._widget_data import Snapshot, gather
from trainyard._widget_html import as_html, as_text, chart
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.history.v1 import history_pb2
from trainyard.job.v1 import job_pb2, telemetry_pb2

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>'\"&\x1b[2J\u202e</pre>"
finite = st.floats(allow_nan=False, allow_infinity=False)


def a_run(platform: Platform, **fields: Any) -> tuple[Run, Any]:
    view = add_run(platform, "exp_1", **{"status": job_pb2.RUN_STATUS_RUNNING, "spec": {}, **fields})
    return Run(Experiment(platform.workspace(), "exp"), "exp_1", _message=view.run), view


def logged(name: str, *values: float) -> list[telemetry_pb2.MetricPoint]:
    return [telemetry_pb2.MetricPoint(name=name, number=value) for value in values]


def test_an_offline_run_shows_what_it_keeps_whatever_platform_is_near(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(platform.config()))
    monkeypatch.setenv("TRAINYARD_CONFIG", str(tmp_path / "config.json"))
    monkeypatch.setenv("TRAINYARD_OFFLINE_DIR", str(tmp_path / "offline"))
    run = OfflineRun()
    run.log("loss", 0.5)

    found = gather(run)

    assert (found.status, found.metrics, found.trouble) == ("Running", {"loss": [(0.0, 0.5)]}, [])


class Seen(HTMLParser):
    """Tags, attributes and text, as a browser reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_run_is_shown_with_phases_metrics_log_children_and_failure(platform: Platform) -> None:
    run, view = a_run(platform, status=job_pb2.RUN_STATUS_FAILED, tags={"team": "vision"}, properties={"azureml.git.commit": "abc"})
    message = "boom\nThe end of azureml-logs/70_driver_log.txt:\n  ValueError: x"
    view.run.failure.CopyFrom(Failure(code="UserError", message=message, last_lines=["ValueError: x"], rank=0))
    view.transitions.add(status=job_pb2.RUN_STATUS_PREPARING, why="environment").at.FromSeconds(1)
    view.logs.add(log="azureml-logs/70_driver_log.txt", lines=2)
    view.child_run_ids.append("exp_1_1")
    add_run(platform, "exp_1_1", parent_run_id="exp_1")
    platform.metrics["exp_1"] = logged("loss", 2.0, 1.5, 1.0) + logged("nan", float("nan"))
    platform.log_lines["exp_1"] = ["epoch 1", "\x1b[32mepoch 2\x1b[0m"]

    page, text = RunDetails(run)._repr_html_(), repr(RunDetails(run))

    seen = Seen(page)
    for shown in (
        "exp_1",
        "Failed",
        "vision",
        "abc",
        "environment",
        "exp_1_1",
        "UserError: boom",
        "ValueError: x",
        "epoch 1\nepoch 2",
        "nan",
    ):
        assert shown in seen.text, shown
    assert {"svg", "polyline"} <= seen.tags
    assert "UserError: boom\n  | ValueError: x\n" in text and seen.text.count("ValueError: x") == 1
    assert "loss = 1" in text and "| epoch 2" in text
    assert RunDetails(run).get_widget_data()["metrics"]["loss"] == [2.0, 1.5, 1.0]


def test_nothing_that_a_run_says_becomes_markup(platform: Platform) -> None:
    run, view = a_run(
        platform, why=HOSTILE, tags={HOSTILE: HOSTILE}, properties={HOSTILE: HOSTILE}, warnings=[HOSTILE], status=job_pb2.RUN_STATUS_FAILED
    )
    view.run.failure.CopyFrom(Failure(code=HOSTILE, message=HOSTILE, last_lines=[HOSTILE]))
    view.transitions.add(status=job_pb2.RUN_STATUS_FAILED, why=HOSTILE)
    for number in range(2):
        view.logs.add(log=HOSTILE, rank=number, lines=1)
    platform.metrics["exp_1"] = [
        *logged(HOSTILE, 1.0, 2.0),
        telemetry_pb2.MetricPoint(name=f"t{HOSTILE}", text=HOSTILE),
    ]
    platform.log_lines["exp_1"] = [HOSTILE]
    found = gather(run)

    page = as_html(found, choosing=True)

    seen = Seen(page)
    assert not {"script", "img", "iframe", "link"} & seen.tags
    assert not [name for name in seen.attributes if name.startswith("on")]
    assert not set("\x1b\u202e") & set(page + as_text(found))
    assert "select" in seen.tags


@given(st.text(), st.text(), st.dictionaries(st.text(), st.lists(st.tuples(finite, finite)), max_size=3))
def test_any_names_and_numbers_make_a_page_whose_tags_are_ours_alone(
    name: str, line: str, metrics: dict[str, list[tuple[float, float]]]
) -> None:
    found = Snapshot(
        name,
        status=name,
        tags={name: line},
        metrics=metrics,
        log=name,
        logs=[name, line],
        lines=[line],
        error=line,
        children=[(name, line)],
    )

    ours = {
        "style",
        "div",
        "b",
        "span",
        "table",
        "tr",
        "th",
        "td",
        "h4",
        "p",
        "pre",
        "select",
        "option",
        "svg",
        "rect",
        "polyline",
        "circle",
        "figure",
        "figcaption",
    }
    assert Seen(as_html(found, choosing=True)).tags <= ours
    assert as_text(found)


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=600))
@example([(0.0, 0.0), (5e-324, 5e-324)])
def test_a_chart_is_well_formed_stays_in_its_frame_and_is_not_too_long(points: list[tuple[float, float]]) -> None:
    drawn = ElementTree.fromstring(chart(points))

    line = drawn.find("polyline")
    places = [tuple(map(float, place.split(","))) for place in line.attrib["points"].split()] if line is not None else []
    assert all(0 <= x <= 220 and 0 <= y <= 70 for x, y in places)
    assert len(places) <= 250


def test_the_highest_and_lowest_of_a_long_series_are_drawn() -> None:
    points = [(float(step), 0.0) for step in range(100_000)]
    points[54_321] = (54_321.0, 9.0)

    assert "highest 9" in chart(points)


def test_a_chosen_log_is_the_one_whose_tail_is_read(platform: Platform) -> None:
    run, view = a_run(platform)
    view.logs.add(log="azureml-logs/70_driver_log.txt", rank=0, lines=500)
    view.logs.add(log="azureml-logs/70_driver_log.txt", rank=1, lines=500)
    platform.log_lines["exp_1"] = [f"line {number}" for number in range(500)]

    found = gather(run, "azureml-logs/70_driver_log.txt (rank 1)")

    asked = platform.last(history_pb2.ReadLogRequest)
    assert (asked.rank, asked.first_line, found.lines[0], len(found.lines)) == (1, 300, "line 300", 200)
    assert found.logs == ["azureml-logs/70_driver_log.txt", "azureml-logs/70_driver_log.txt (rank 1)"]


@pytest.mark.parametrize("method", ["GetRun", "GetMetrics", "ReadLog", "ListRuns"])
def test_what_cannot_be_read_is_told_and_the_rest_is_shown(platform: Platform, method: str) -> None:
    run, view = a_run(platform, status=job_pb2.RUN_STATUS_COMPLETED)
    view.logs.add(log="azureml-logs/70_driver_log.txt", lines=1)
    view.child_run_ids.append("exp_1_1")
    platform.refusals = {method: (grpc.StatusCode.INTERNAL, "Broken")}

    found = gather(run)

    assert found.status == "Completed"
    assert f"{method} was refused" in found.trouble[0]
    assert "Not everything could be read" in as_html(found)


def test_an_object_that_can_say_nothing_is_shown_and_nothing_is_raised(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(HOSTILE)

    class Offline:
        id = "OfflineRun_1"
        tags: dict[str, str] = {"a": "b"}  # noqa: RUF012

        def get_metrics(self) -> dict[str, Any]:
            return {"loss": [2, 1.5], "name": "x", "huge": 10**400, "table": {"a": [1]}}

    for odd in (Broken(), Offline(), None, 3):
        assert Seen(RunDetails(odd)._repr_html_()).text
        RunDetails(odd).show()
    assert "loss = 1.5" in repr(RunDetails(Offline()))
    assert "OfflineRun_1" in capsys.readouterr().out


def test_outside_of_a_notebook_text_is_printed(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = a_run(platform)

    RunDetails(run).show()

    assert capsys.readouterr().out.startswith("Run exp_1: Running\n")


def test_a_run_that_waits_shows_its_place_and_what_the_scheduler_says_now(platform: Platform) -> None:
    run, view = a_run(platform, status=job_pb2.RUN_STATUS_QUEUED, why="an old reason")
    view.run.position, view.run.why = 2, "2 of 4 nodes are free"

    found = gather(run)

    assert (found.facts["position"], found.facts["why"]) == ("2", "2 of 4 nodes are free")
    assert any(isinstance(request, job_pb2.GetRunRequest) for request in platform.asked)
    assert "position: 2" in as_text(found)


def test_a_distributed_run_shows_one_ranks_curve_and_the_first_workers_log(platform: Platform) -> None:
    run, view = a_run(platform)
    view.run.spec.distribution.tensorflow.worker_count = 2
    for rank in (1, 0):
        view.logs.add(log=f"azureml-logs/70_driver_log_worker_{rank}.txt", rank=rank, lines=1)

    found = gather(run)

    assert platform.last(history_pb2.GetMetricsRequest).preferred_ranks
    assert found.log == "azureml-logs/70_driver_log_worker_0.txt"
    assert sorted(found.logs) == [f"azureml-logs/70_driver_log_worker_{rank}.txt" for rank in (0, 1)]
