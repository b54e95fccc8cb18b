"""Gangs on the whole platform: separate agent processes, each with a loopback address of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.system.platform import Platform, names
from trainyard import ActivityFailedException, Experiment, MpiConfiguration, ResourceConfiguration, Run, TensorFlow, TensorflowConfiguration
from trainyard.cluster.v1 import cluster_pb2
from trainyard.job.v1 import job_pb2

SCRIPTS = Path(__file__).parent / "scripts"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TF = "2.15"
# Where the wheel of Horovod is not in the cache yet the first of these tests compiles it.
COMPILING = pytest.mark.timeout(2400)

WAITS = """
import os, sys, time
print("rank", os.environ["OMPI_COMM_WORLD_RANK"], "of", os.environ["OMPI_COMM_WORLD_SIZE"], flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.02)
"""

GOES_ON = """
import os, sys, time
while not os.path.exists(sys.argv[1]):
    time.sleep(0.02)
"""


def a_tensorflow_run(platform: Platform, pool: str, folder: Path, script: str, version: str = TF, **options: object) -> Run:
    estimator = TensorFlow(str(folder), entry_script=script, compute_target=pool, framework_version=version, **options)  # type: ignore[arg-type]
    return Experiment(platform.workspace, "clusters").submit(estimator)


def ranks_lines(run: Run, tmp_path: Path, name: str) -> str:
    paths = {Path(path).name: Path(path) for path in run.get_all_logs(str(tmp_path / "logs"))}
    assert name in paths, sorted(paths)
    return paths[name].read_text()


@COMPILING
def test_horovod_makes_one_ring_of_two_agents_with_two_ranks_each(platform: Platform, tmp_path: Path) -> None:
    platform.pool("ring", max_nodes=2)
    run = a_tensorflow_run(
        platform,
        "ring",
        EXAMPLES / "horovod" / "script",
        "train.py",
        script_params={"--epochs": 2},
        node_count=2,
        process_count_per_node=2,
        distributed_training=MpiConfiguration(),
    )

    run.wait_for_completion()

    for rank in range(4):
        assert f"rank {rank} of 4" in ranks_lines(run, tmp_path, f"70_driver_log_{rank}.txt")
    (gang,) = [it for it in platform.events_of(run.id) if isinstance(it, job_pb2.GangFormed)]
    assert len({it.address for it in gang.members}) == 2
    assert run.get_metrics("loss", rank="all").keys() == {0, 1, 2, 3}


def test_a_parameter_server_run_ends_when_its_workers_end(platform: Platform, tmp_path: Path) -> None:
    platform.pool("servers", max_nodes=2)
    distributed = TensorflowConfiguration()
    distributed.worker_count = 2
    run = a_tensorflow_run(
        platform,
        "servers",
        EXAMPLES / "parameter_server" / "script",
        "train.py",
        script_params={"--steps": 60},
        node_count=2,
        distributed_training=distributed,
    )

    run.wait_for_completion()

    assert run.get_status() == "Completed"
    exits = [it for it in platform.events_of(run.id, "trainyard.tasks") if isinstance(it, cluster_pb2.TaskExited)]
    assert {it.rank: it.stopped for it in exits} == {0: False, 1: False, 2: True}
    assert "worker 1 of" in ranks_lines(run, tmp_path, "70_driver_log_worker_1.txt")


@pytest.mark.parametrize(
    ("script", "version", "cluster", "nodes", "left"),
    [
        ("estimator.py", "2.15", TensorflowConfiguration(1, 1, chief=True, evaluator=True), 2, "outputs/model/eval/"),
        ("parameter_server_strategy.py", "2.15", TensorflowConfiguration(2, 1, chief=True), 2, "outputs/weight"),
        ("multi_worker_loop.py", "2.21", TensorflowConfiguration(2, 0), 2, "outputs/weights_1"),
    ],
    ids=["estimator", "parameter servers", "mirrored"],
)
def test_tensorflows_own_ways_of_distribution_train(
    platform: Platform, tmp_path: Path, script: str, version: str, cluster: TensorflowConfiguration, nodes: int, left: str
) -> None:
    platform.pool("servers", max_nodes=2)
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / script).write_bytes((SCRIPTS / "distributed" / script).read_bytes())
    run = a_tensorflow_run(platform, "servers", folder, script, version, node_count=nodes, distributed_training=cluster)

    run.wait_for_completion()

    assert run.get_status() == "Completed"
    assert any(path.startswith(left) for path in run.get_file_names())


def test_an_elastic_ring_goes_on_without_an_agent_that_was_killed_and_takes_it_in_again(platform: Platform, tmp_path: Path) -> None:
    platform.pool("elastic", max_nodes=2)
    steps = tmp_path / "steps"
    steps.mkdir()
    run = a_tensorflow_run(
        platform,
        "elastic",
        SCRIPTS / "horovod",
        "elastic.py",
        script_params={"40": "", str(steps): "", "10": ""},
        node_count=2,
        distributed_training=MpiConfiguration(min_nodes=1, max_nodes=2),
    )
    platform.until(lambda: list(steps.glob("10.*-of-2")), "both train", 300)
    lost = run_agents(platform, run.id)[1]

    os.kill(platform.pid(lost), signal.SIGKILL)
    platform.until(lambda: shapes(platform, run.id)[-3:] == [2, 1, 2], "a round without it, and one with it again", 300)
    (steps / "go").touch()
    run.wait_for_completion()

    assert {it.epoch for it in gangs(platform, run.id)} == {1}
    assert list(steps.glob("40.*-of-*"))


def test_a_gang_starts_whole_or_not_at_all_and_says_what_it_waits_for(platform: Platform, tmp_path: Path) -> None:
    platform.pool("whole", max_nodes=2)
    first, second = tmp_path / "first", tmp_path / "second"
    holds = platform.submit(tmp_path / "a", WAITS, "whole", script_params={str(first): ""}, distributed_training=MpiConfiguration())
    platform.until_status(holds.id, "RUNNING")

    both = platform.submit(
        tmp_path / "b", WAITS, "whole", script_params={str(second): ""}, node_count=2, distributed_training=MpiConfiguration()
    )

    platform.until(lambda: "waits for 2 free nodes" in both.why, "it says why")
    assert both.position == 1
    assert not leases(platform, both.id)
    first.touch()
    holds.wait_for_completion()
    platform.until_status(both.id, "RUNNING")
    second.touch()
    both.wait_for_completion()
    assert sorted(it.node_index for it in leases(platform, both.id)) == [0, 1]


def test_the_first_rank_that_fails_is_the_cause_and_ends_the_others(platform: Platform, tmp_path: Path) -> None:
    platform.pool("causes", max_nodes=2)
    script = """
import os, time
if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
    raise ValueError("rank 1 has no data")
time.sleep(300)
"""
    run = platform.submit(tmp_path / "code", script, "causes", node_count=2, distributed_training=MpiConfiguration())

    with pytest.raises(ActivityFailedException, match="rank 1 has no data"):
        run.wait_for_completion()

    exits = {it.rank: it for it in platform.events_of(run.id, "trainyard.tasks") if isinstance(it, cluster_pb2.TaskExited)}
    assert exits[0].stopped
    assert not exits[1].stopped


RESTARTS = """
import os, time
os.makedirs("outputs", exist_ok=True)
path = "outputs/step"
step = int(open(path).read()) if os.path.exists(path) else 0
print("begins at", step, flush=True)
open(path, "w").write(str(step + 1))
if step < 2:
    raise SystemExit(3)
"""


RENEWS = """
import os
rank = os.environ["OMPI_COMM_WORLD_RANK"]
os.makedirs("outputs", exist_ok=True)
mine, once = f"outputs/rank_{rank}", "outputs/once"
resumes = os.path.exists(mine)
if rank == "0":
    os.remove(once) if resumes else open(once, "w").close()
open(mine, "w").write("second" if resumes else "first")
"""


def test_a_ring_that_goes_on_from_another_ends_with_what_each_node_wrote_last(platform: Platform, tmp_path: Path) -> None:
    platform.pool("renews", max_nodes=2)
    ring = {"node_count": 2, "distributed_training": MpiConfiguration()}
    first = platform.submit(tmp_path / "first", RENEWS, "renews", **ring)
    first.wait_for_completion()

    run = platform.submit(tmp_path / "second", RENEWS, "renews", resume_from=first, **ring)
    run.wait_for_completion()

    for rank in (0, 1):
        run.download_file(f"outputs/rank_{rank}", str(tmp_path / f"rank_{rank}"))
        assert (tmp_path / f"rank_{rank}").read_text() == "second"
    assert "outputs/once" in first.get_file_names()
    assert "outputs/once" not in run.get_file_names()
    assert not [it for it in platform.events_of(run.id) if isinstance(it, job_pb2.RunWarned)]


def test_a_run_that_fails_begins_again_from_what_it_had_saved(platform: Platform, tmp_path: Path) -> None:
    platform.pool("restarts")
    run = platform.submit(tmp_path / "code", RESTARTS, "restarts", max_restarts=3)

    run.wait_for_completion()

    requeued = [it for it in platform.events_of(run.id) if isinstance(it, job_pb2.RunRequeued)]
    assert [(it.lost_epoch, it.restart) for it in requeued] == [(1, True), (2, True)]
    assert run.get_metrics() == {}
    run.download_file("outputs/step", str(tmp_path / "step"))
    assert (tmp_path / "step").read_text() == "3"


def test_a_higher_priority_takes_the_node_and_gives_it_back(platform: Platform, tmp_path: Path) -> None:
    platform.pool("queue")
    low, high = tmp_path / "low", tmp_path / "high"
    gives_way = platform.submit(tmp_path / "a", GOES_ON, "queue", script_params={str(low): ""})
    platform.until_status(gives_way.id, "RUNNING")

    takes = platform.submit(tmp_path / "c", GOES_ON, "queue", script_params={str(high): ""}, priority=10)

    platform.until_status(takes.id, "RUNNING")
    assert platform.status(gives_way.id) in ("QUEUED", "PROVISIONING")
    high.touch()
    takes.wait_for_completion()
    low.touch()
    gives_way.wait_for_completion()
    assert names(platform.events_of(gives_way.id)).count("RunPreempted") == 1


def test_several_runs_share_a_node_by_what_they_ask_for(platform: Platform, tmp_path: Path) -> None:
    platform.pool("shared")
    go = tmp_path / "go"
    part = ResourceConfiguration(cpu=0.5)

    runs = [platform.submit(tmp_path / str(number), GOES_ON, "shared", script_params={str(go): ""}, resources=part) for number in range(3)]

    for run in runs:
        platform.until_status(run.id, "RUNNING")
    assert {platform.node_of(run.id) for run in runs} == {platform.node_of(runs[0].id)}
    go.touch()
    for run in runs:
        run.wait_for_completion()


def gangs(platform: Platform, run_id: str) -> list[job_pb2.GangFormed]:
    return [it for it in platform.events_of(run_id) if isinstance(it, job_pb2.GangFormed)]


def shapes(platform: Platform, run_id: str) -> list[int]:
    """Nodes of the gang, round by round."""
    return [len(it.members) for it in gangs(platform, run_id)]


def leases(platform: Platform, run_id: str) -> list[cluster_pb2.LeaseOffered]:
    return [it for it in platform.events_of(run_id, "trainyard.leases") if isinstance(it, cluster_pb2.LeaseOffered)]


def run_agents(platform: Platform, run_id: str) -> list[str]:
    return [it.agent_id for it in gangs(platform, run_id)[-1].members]
