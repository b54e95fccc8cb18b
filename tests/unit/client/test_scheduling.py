"""Who waits and why, the policy, and a run's attempts, as a client sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from tests.unit.client.platform import Platform
from tests.unit.client.test_cli_runs import HOSTILE, add_run, objects
from trainyard import Experiment, ResourceConfiguration, Run, ScriptRunConfig, UserErrorException
from trainyard import _policy as policies
from trainyard.cluster.v1 import cluster_pb2
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.history.v1 import history_pb2
from trainyard.job.v1 import job_pb2, spec_pb2

Cli = Callable[..., Result]
QUEUED = job_pb2.RUN_STATUS_QUEUED
WHOLE = {
    "fair_share": "user",
    "weights": {"ann": 2.0, "bob": 0.5},
    "quotas": {"ann": {"cpus": 16.0, "memory_in_gb": 64.0, "gpus": 2}},
    "aging_seconds": 30.0,
    "backfill": False,
    "preemption": False,
}


def waits(platform: Platform, run_id: str, pool: str, position: int, **fields: Any) -> Any:
    view = add_run(platform, run_id, QUEUED, position=position, why=f"{position} waits", **fields)
    view.run.spec.compute_target, view.run.spec.user, view.run.spec.priority = pool, "ann", position
    platform.pools[pool] = cluster_pb2.Pool(name=pool)
    return view


def test_the_queue_is_told_pool_by_pool_in_the_order_of_turns(platform: Platform, cli: Cli) -> None:
    for run_id, pool, position in (("exp_3", "gpu", 2), ("exp_2", "gpu", 1), ("exp_1", "cpu", 1)):
        waits(platform, run_id, pool, position)
    platform.policy.fair_share = cluster_pb2.FAIR_SHARE_USER
    platform.policy.weights["ann"] = 2.0

    found = objects(cli("queue", "--json"))
    line = cli("queue", "--pool", "gpu", "--limit", "1").stdout

    assert [(it["pool"], it["position"], it["runId"], it["why"]) for it in found] == [
        ("cpu", 1, "exp_1", "1 waits"), ("gpu", 1, "exp_2", "1 waits"), ("gpu", 2, "exp_3", "2 waits"),
    ]  # fmt: skip
    assert found[0]["share"] == {"by": "user", "name": "ann", "weight": 2.0}
    assert line.split("\t")[:5] == ["gpu", "1", "exp_2", "1", "user ann, weight 2"]
    assert len(line.splitlines()) == 1
    first = cli("queue", "--limit", "2", "--json")
    assert "--page-token exp_2" in first.stderr
    assert [it["runId"] for it in objects(cli("queue", "--page-token", "exp_2", "--json"))] == ["exp_3"]
    assert objects(cli("queue", "--experiment", "other", "--json")) == []


def test_a_pool_that_is_not_there_has_no_queue(platform: Platform, cli: Cli) -> None:
    assert cli("queue", "--pool", "gone").exit_code == 3


def test_a_policy_that_is_set_is_shown_as_it_was_written(platform: Platform, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(WHOLE))

    (made,) = objects(cli("scheduler", "policy", "set", str(file), "--json"))
    shown = yaml.safe_load(cli("scheduler", "policy", "show").stdout)
    (then,) = objects(cli("scheduler", "policy", "show", "--as-of", "1h", "--json"))

    assert made == shown == then == WHOLE
    assert platform.last(cluster_pb2.SetPolicy).submission_id
    assert platform.last(history_pb2.GetPolicyRequest).HasField("as_of")


def test_an_empty_policy_is_the_default_in_words() -> None:
    shown = policies.from_message(policies.to_message(None))

    assert shown == {"fair_share": "none", "weights": {}, "quotas": {}, "aging_seconds": 60.0, "backfill": True, "preemption": True}


@pytest.mark.parametrize(
    ("wish", "target"),
    [
        (["a"], "the policy"),
        ({"fairshare": "user"}, "the policy"),
        ({"fair_share": "group"}, "fair_share"),
        ({"fair_share": ["user"]}, "fair_share"),
        ({"weights": ["ann"]}, "weights"),
        ({"weights": {3: 1}}, "weights"),
        ({"weights": {"ann": 0}}, "weights.ann"),
        ({"weights": {"ann": float("nan")}}, "weights.ann"),
        ({"weights": {str(number): 1 for number in range(1001)}}, "weights"),
        ({"quotas": {"ann": {"cpu": 1}}}, "quotas.ann"),
        ({"quotas": {"ann": 3}}, "quotas.ann"),
        ({"quotas": {"ann": {"gpus": 0.5}}}, "quotas.ann"),
        ({"quotas": {"ann": {"memory_in_gb": 1e300}}}, "quotas.ann"),
        ({"aging_seconds": 0}, "aging_seconds"),
        ({"aging_seconds": "60"}, "aging_seconds"),
        ({"backfill": "yes"}, "backfill"),
    ],
)
def test_what_is_no_policy_is_refused_by_the_key_at_fault(wish: Any, target: str) -> None:
    with pytest.raises(UserErrorException) as caught:
        policies.to_message(wish)

    assert caught.value.target == target


@pytest.mark.parametrize("text", ["a: &x [1]\nb: *x", "{", "- 1", "weights: {ann: .inf}"])
def test_a_file_that_is_no_policy_changes_nothing(text: str, platform: Platform, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text)

    assert cli("scheduler", "policy", "set", str(file)).exit_code == 2
    assert not any(isinstance(request, cluster_pb2.SetPolicy) for request in platform.asked)


def test_a_run_says_why_and_where_it_waits(platform: Platform, cli: Cli) -> None:
    view = waits(platform, "exp_1", "gpu", 4)
    run = Run(Experiment(platform.workspace(), "exp"), "exp_1")

    assert (run.get_status(), run.why, run.position) == ("Queued", "4 waits", 4)
    assert run.get_detailed_status() == {"status": "Queued", "details": "4 waits", "position": 4}
    assert objects(cli("run", "list", "--json"))[0]["position"] == 4
    view.run.position, view.run.status = 0, job_pb2.RUN_STATUS_RUNNING
    assert run.position is None


def test_a_list_of_waiting_runs_does_without_places_while_the_scheduler_is_away(platform: Platform, cli: Cli) -> None:
    import grpc

    waits(platform, "exp_1", "gpu", 4)
    platform.refusals["JobService/GetRun"] = (grpc.StatusCode.INTERNAL, "InternalError")

    assert objects(cli("run", "list", "--json"))[0]["runId"] == "exp_1"


def test_show_tells_attempts_with_nodes_ranks_restarts_and_checkpoints(platform: Platform, cli: Cli) -> None:
    view = add_run(platform, "exp_1", restarts=1)
    failure = Failure(code="ScriptFailed", message=HOSTILE, rank=2, exit_code=3)
    first = view.attempts.add(epoch=1, outcome=history_pb2.Attempt.OUTCOME_RESTARTED, why="rank 2 failed", failure=failure, checkpoints=5)
    first.members.add(agent_id="agent-0", ranks=[0, 1])
    first.members.add(agent_id="agent-1", ranks=[2, 5])
    first.ranks.add(rank=2, agent_id="agent-1", exit_code=3)
    first.ranks.add(rank=0, agent_id="agent-0", exit_code=-15, stopped=True)
    view.attempts.add(epoch=2)

    text = cli("run", "show", "exp_1").stdout
    (shown,) = objects(cli("run", "show", "exp_1", "--json"))

    line = next(line for line in text.splitlines() if "Restarted" in line)
    assert "on agent-0 (ranks 0-1); agent-1 (ranks 2, 5)" in line
    assert "first cause: rank 2 exited with 3" in line and "exit codes: rank 2 3" in line and "5 checkpoints" in line
    assert (shown["restarts"], shown["attempts"][1]["outcome"], shown["attempts"][0]["ranks"][1]["ended"]) == (1, None, "stopped")


def test_a_submission_is_its_login_names_unless_another_is_named(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.py").write_text("pass\n")
    monkeypatch.setattr("trainyard._experiment.login_name", lambda: "ann")
    experiment = Experiment(platform.workspace(), "exp")

    def submitted(**options: Any) -> str:
        experiment.submit(ScriptRunConfig(tmp_path, "train.py", compute_target="pool", **options))
        return str(platform.last(job_pb2.SubmitRun).spec.user)

    assert (submitted(), submitted(user="bob"), submitted(resources=ResourceConfiguration(cpu=1))) == ("ann", "bob", "ann")


def test_the_output_of_a_rank_is_asked_for_without_naming_its_log(platform: Platform, cli: Cli) -> None:
    add_run(platform, "exp_1")
    platform.log_lines["exp_1"] = ["hello"]

    assert cli("run", "logs", "exp_1", "--rank", "2").stdout == "hello\n"

    asked = platform.last(history_pb2.ReadLogRequest)
    assert (asked.log, asked.rank) == ("", 2)


def test_the_command_submits_gangs_with_what_they_take_and_how_they_go_on(platform: Platform, cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "train.py").write_text("pass\n")
    words = ["run", "submit", str(folder), "--script", "train.py", "--target", "pool"]

    cluster = cli(
        *words, "--distributed", "ps", "--nodes", "2", "--workers", "2", "--priority", "5", "--label", "ssd", "--max-restarts", "2"
    )
    spec = platform.last(job_pb2.SubmitRun).spec
    ring = cli(*words, "--distributed", "mpi", "--nodes", "2", "--processes-per-node", "2", "--cpus", "1", "--resume-from", "exp_1")
    other = platform.last(job_pb2.SubmitRun).spec
    refused = cli(*words, "--nodes", "2")

    assert (cluster.exit_code, ring.exit_code, refused.exit_code) == (0, 0, 2)
    assert (spec.distribution.node_count, spec.distribution.tensorflow.worker_count, spec.priority, list(spec.labels)) == (2, 2, 5, ["ssd"])
    assert spec.max_restarts == 2
    assert (other.distribution.process_count_per_node, other.distribution.WhichOneof("kind")) == (2, "horovod")
    assert (other.resources.cpus, other.resume_from) == (1, "exp_1")
    assert "not how they work together" in refused.stderr


def test_the_command_asks_for_all_that_the_sdk_can_ask_for(platform: Platform, cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "train.py").write_text("pass\n")
    words = ["run", "submit", str(folder), "--script", "train.py", "--target", "pool"]

    elastic = cli(*words, "--distributed", "mpi", "--nodes", "2", "--min-nodes", "1", "--max-nodes", "3", "--spread", "--user", "ann")
    ring = platform.last(job_pb2.SubmitRun).spec
    estimator = cli(*words, "--distributed", "ps", "--chief", "--evaluator", "--checkpoint-folder", "./ckpt", "--pack")
    cluster = platform.last(job_pb2.SubmitRun).spec
    mixed = cli(*words, "--distributed", "ps", "--min-nodes", "1")

    assert (elastic.exit_code, estimator.exit_code, mixed.exit_code) == (0, 0, 2), (elastic, estimator, mixed)
    assert (ring.distribution.horovod.min_nodes, ring.distribution.horovod.max_nodes) == (1, 3)
    assert (ring.spread, ring.user) == (spec_pb2.SPREAD_SPREAD, "ann")
    assert (cluster.distribution.tensorflow.chief, cluster.distribution.tensorflow.evaluator) == (True, True)
    assert (cluster.checkpoint_folder, cluster.spread) == ("ckpt", spec_pb2.SPREAD_PACK)


def test_a_replay_of_a_file_needs_no_stack_and_tells_the_difference(cli: Cli, tmp_path: Path) -> None:
    log = Path(__file__).parents[1] / "scheduler" / "recorded.jsonl"
    (tmp_path / "policy.yaml").write_text("fair_share: experiment\nweights: {wide-0: 8}\n")

    found = objects(cli("scheduler", "replay", "--log", str(log), "--policy", str(tmp_path / "policy.yaml"), "--json"))[0]
    wrong = cli("scheduler", "replay", "--log", str(log), "--policy", str(tmp_path / "gone.yaml"))

    assert found["runs"] == 24
    assert found["difference"]["experiments"]["wide-0"]["mean"] < 0
    assert wrong.exit_code == 2
