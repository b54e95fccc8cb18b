"""A run's history through the SDK: its own writes, its past, what came of it, and a rebuild that changes nothing."""

from __future__ import annotations

import itertools
from pathlib import Path

import httpx
import pytest

from tests.history_log import batch
from tests.system.platform import Platform
from trainyard import Experiment, Run
from trainyard._errors import RunNotFoundException
from trainyard._history import batches, list_runs, log_lines, rebuild, run_view
from trainyard.history.v1 import history_pb2 as pb
from trainyard.job.v1 import job_pb2

SCRIPT = """\
import os
from trainyard import Run
run = Run.get_context()
print("first line")
for step in range(3):
    run.log("loss", 1.0 / (step + 1))
run.log("final", 42)
run.log_row("scores", a=1, b=2)
os.makedirs("outputs/model", exist_ok=True)
open("outputs/model/weights", "w").write("w")
print("last line")
"""


@pytest.fixture(scope="module")
def done(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that has ended, alone in its experiment."""
    platform.pool("history")
    run = platform.submit(tmp_path_factory.mktemp("history"), SCRIPT, "history", experiment="history")
    run.wait_for_completion()
    return run


def test_what_a_run_did_is_told_by_history(platform: Platform, done: Run) -> None:
    details = done.get_details()

    assert done.get_metrics() == {"loss": [1.0, 0.5, 1 / 3], "final": 42.0, "scores": {"a": 1, "b": 2}}
    assert done.get_metrics("final", recursive=True) == {done.id: {"final": 42.0}}
    assert "outputs/model/weights" in done.get_file_names()
    assert (details["status"], details["runDefinition"]["script"]) == ("Completed", "train.py")
    assert done.get_detailed_status() == {"status": "Completed", "details": "", "position": None}
    (attempt,) = details["trainyard"]["attempts"]
    assert (attempt["outcome"], attempt["firstCause"], attempt["rounds"]) == ("Completed", None, 1)
    assert [(rank["rank"], rank["exitCode"], rank["ended"]) for rank in attempt["ranks"]] == [(0, 0, "by itself")]
    log = details["logFiles"]["azureml-logs/70_driver_log.txt"]
    assert httpx.get(log).text.splitlines() == ["first line", "last line"]
    assert done.get_details_with_logs()["logFiles"]["azureml-logs/70_driver_log.txt"] == "first line\nlast line\n"
    assert [text for _, text in log_lines(platform.workspace, done.id)] == ["first line", "last line"]


def test_a_run_is_shown_as_it_was_before_its_end(platform: Platform, done: Run) -> None:
    now = run_view(platform.workspace, done.id)
    running = next(turn for turn in now.transitions if turn.status == job_pb2.RUN_STATUS_RUNNING)

    then = run_view(platform.workspace, done.id, running.at.ToDatetime())

    assert Run(Experiment(platform.workspace, "history"), done.id).status == "Completed"
    assert then.run.status == running.status
    assert not then.run.HasField("ended_at")
    assert len(then.transitions) < len(now.transitions)


def test_a_metric_is_seen_by_the_call_after_it_was_written(platform: Platform, done: Run) -> None:
    for number in range(10):
        platform.log.publish("trainyard.metrics", done.id, batch(done.id, float(number), name="late"))

        logged = [point.number for batch in batches(platform.workspace, done.id, "late")[done.id] for point in batch.points]
        assert logged == [float(n) for n in range(number + 1)]


def test_runs_and_experiments_are_listed_newest_first(platform: Platform, done: Run, tmp_path: Path) -> None:
    second = platform.submit(tmp_path, "print()", "history", experiment="history")

    found = Experiment(platform.workspace, "history").get_runs()

    assert [run.id for run in itertools.islice(found, 2)] == [second.id, done.id]
    assert "history" in platform.workspace.experiments
    assert done.id in {run.run_id for run in list_runs(platform.workspace, text=done.id[-8:].upper())}
    assert list(Experiment(platform.workspace, "history").get_runs(tags={"no": "such"})) == []
    assert list(done.get_children(recursive=True)) == []
    second.wait_for_completion()


def test_history_survives_a_kill_and_the_loss_of_its_database(platform: Platform, done: Run) -> None:
    before = run_view(platform.workspace, done.id)

    platform.kill_and_wait("history")
    after_kill = run_view(platform.workspace, done.id)
    platform.lose_the_database_of("history")
    after_loss = run_view(platform.workspace, done.id)

    assert after_kill == before
    assert after_loss == before


def test_a_rebuild_is_told_in_steps_and_changes_nothing(platform: Platform, done: Run) -> None:
    clients = platform.workspace._clients
    before = run_view(platform.workspace, done.id)

    steps = list(rebuild(platform.workspace))

    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1] > 0
    assert run_view(platform.workspace, done.id) == before
    assert not clients.history.GetHistoryStatus(pb.GetHistoryStatusRequest(), timeout=60).rebuilding


def test_lineage_leads_from_a_registered_model_to_its_run(platform: Platform, done: Run) -> None:
    model = done.register_model("history-net", "outputs/model")

    answer = platform.workspace._clients.history.GetLineage(
        pb.GetLineageRequest(model=pb.ModelRef(model="history-net", version=model.version)), timeout=60
    )

    assert (f"run:{done.id}", f"model:history-net:{model.version}", "registered") in {(it.source, it.target, it.how) for it in answer.edges}
    assert {node.kind for node in answer.nodes} >= {"run", "model", "snapshot", "environment"}


def test_a_run_that_is_not_there_is_told_with_those_that_are_alike(platform: Platform, done: Run) -> None:
    with pytest.raises(RunNotFoundException, match=done.id):
        run_view(platform.workspace, f"{done.id}x")
