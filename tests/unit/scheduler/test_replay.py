"""A recorded log, run again: under the policy that was in force, and under another."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.scheduler.simulation import __main__ as program
from services.scheduler.simulation import events, recording
from services.scheduler.simulation.comparing import compare, with_nodes
from services.scheduler.simulation.events import TOPICS, Recorded
from services.scheduler.simulation.workloads import of_yaml
from tests.unit.scheduler.simulated import CheckedYard, lived
from trainyard import _policy
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job

LOG = Path(__file__).with_name("recorded.jsonl")
WISH: dict[str, Any] = {
    "seed": 11,
    "pools": {"pool": {"nodes": 4, "gpus": 2}},
    "runs": {
        "many": {"count": 20, "every_seconds": 1, "work_seconds": 60, "cpus": 32, "gpus": 1, "users": 1},
        "wide": {"count": 4, "every_seconds": 15, "work_seconds": 60, "nodes": [1, 2], "fails": 0.4, "restarts": 1},
    },
}
FAIR = {"fair_share": "experiment", "weights": {"wide-0": 8.0}}


def recorded(yard: CheckedYard) -> list[Recorded]:
    """What the three topics would hold of it."""
    kinds = {"trainyard.jobs": "trainyard.job.v1", "trainyard.agents": "trainyard.cluster.v1"}
    told: list[Recorded] = []
    for at, message in yard.events:
        if isinstance(message, cluster.LeaseOffered | cluster.LeaseRevoked):
            continue
        of_a_run = hasattr(message, "run_id") or isinstance(message, job.SubmitRun)
        package = message.DESCRIPTOR.file.package
        topic = next((it for it, held in kinds.items() if held == package), "trainyard.tasks")
        topic = "trainyard.tasks" if of_a_run and package == "trainyard.cluster.v1" else topic
        told.append(Recorded(at, message, (topic, 0, len(told))))
    return told


def replayed(told: list[Recorded]) -> CheckedYard:
    yard = CheckedYard(recording.workload(told))
    yard.run()
    return yard


def test_under_the_same_policy_every_node_is_given_to_the_same_run_at_the_same_time() -> None:
    original = lived(WISH)

    again = replayed(recorded(original))

    assert len(original.placements) > 24
    assert again.placements == original.placements
    assert again.ledger.figures()["waits"] == original.ledger.figures()["waits"]


def test_the_log_in_the_file_is_read_as_it_was_and_replayed_as_it_was() -> None:
    told = events.of_file(LOG)

    found = compare(told, recording.workload(told), _policy.to_message({}))

    assert found["runs"] == found["recorded"]["runs"]["all"] == 24
    assert found["recorded"] == found["replayed"] == found["policy"]
    assert not found["assumed"] and not found["begin_elsewhen"]


def test_another_policy_moves_waits_to_those_with_the_smaller_weight() -> None:
    told = events.of_file(LOG)

    found = compare(told, recording.workload(told), _policy.to_message(FAIR))

    assert found["difference"]["experiments"]["wide-0"]["mean"] < 0 < found["difference"]["experiments"]["many-0"]["mean"]
    assert found["begin_elsewhen"] > 0
    assert found["replayed"]["runs"] == found["policy"]["runs"], "who ends how is not the policy's to say"


def test_more_nodes_shorten_the_waits() -> None:
    told = events.of_file(LOG)
    load = recording.workload(told)

    found = compare(told, load, _policy.to_message({}), nodes=8)

    assert len({it.agent_id for _, it in with_nodes(load, 8).joins}) == 8
    assert len({it.agent_id for _, it in with_nodes(load, 2).joins}) == 2
    assert found["difference"]["waits"]["mean"] < 0
    assert found["policy"]["utilisation"]["node_seconds"]["share"] < found["replayed"]["utilisation"]["node_seconds"]["share"]


def test_a_window_takes_those_that_come_in_it_and_those_left_from_before() -> None:
    told = events.of_file(LOG)
    whole = recording.workload(told)
    middle, late = (whole.begin + timedelta(seconds=seconds) for seconds in (40, 60))

    load = recording.workload(told, middle, late)

    ended = {it.message.run_id for it in told if isinstance(it.message, job.RunCompleted) and it.at <= middle}  # type: ignore[attr-defined]
    wanted = {it.run_id for it in whole.submissions if it.at <= late} - ended
    assert {it.run_id for it in load.submissions} == wanted
    assert all(it.at >= middle for it in load.submissions)
    begun = [it for it in load.submissions if it.at == middle]
    before = {it.run_id: it.attempts[-1].works for it in whole.submissions}
    assert any(it.attempts[-1].works < before[it.run_id] for it in begun), "what had been worked by then is not worked again"


def test_a_run_whose_end_nobody_saw_is_counted_as_assumed() -> None:
    told = events.of_file(LOG)
    cut = told[: len(told) * 2 // 3]

    load = recording.workload(cut)

    unfinished = {it.run_id for it in load.submissions} - {
        it.message.run_id
        for it in cut
        if isinstance(it.message, job.RunCompleted | job.RunFailed)  # type: ignore[attr-defined]
    }
    assert unfinished == {it.run_id for it in load.submissions if it.assumed}


def test_a_run_canceled_in_the_queue_is_canceled_then_whatever_the_policy() -> None:
    yard = CheckedYard(of_yaml({"pools": {"pool": {}}, "runs": {"a": {"count": 2, "every_seconds": 1, "work_seconds": 500}}}))
    yard._at(yard.now + timedelta(seconds=30), lambda: job.CancelRun(run_id="a-1"))
    yard.run()

    again = replayed(recorded(yard))

    assert [type(it).__name__ for it in again.said(job.RunCanceled)] == ["RunCanceled"]
    assert again.placements == yard.placements


def test_the_program_prints_the_same_bytes_each_time(tmp_path: Path) -> None:
    (tmp_path / "fair.yaml").write_text("fair_share: user\n")
    command = [sys.executable, "-m", "services.scheduler.simulation", "--log", str(LOG), "--policy", str(tmp_path / "fair.yaml")]

    first, second = (subprocess.run(command, capture_output=True, check=True).stdout for _ in range(2))

    assert first == second
    assert json.loads(first)["runs"] == 24


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--from", "yesterday"], "neither an ISO time nor"),
        (["--from", "trainyard.jobs/0@99999999"], "is no event of"),
        (["--from", "2031-01-01"], "no run was submitted"),
        (["--log", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_what_cannot_be_replayed_is_told_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], why: str
) -> None:
    (tmp_path / "policy.yaml").write_text("{}")

    code = program.main(["--policy", str(tmp_path / "policy.yaml"), *(["--log", str(LOG)] if "--log" not in options else []), *options])

    assert code == 1
    assert why in json.loads(capsys.readouterr().out)["error"]["message"]


def test_a_line_that_is_no_event_is_named(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"topic": "trainyard.metrics"}\n{"topic": "trainyard.jobs", "type": 3, "data": {}}\n')

    with pytest.raises(ValueError, match="line 2"):
        events.of_file(tmp_path / "log")


if __name__ == "__main__":
    LOG.write_text("".join(events.to_lines(it for it in recorded(lived(WISH)) if it.place[0] in TOPICS)), "utf-8")
