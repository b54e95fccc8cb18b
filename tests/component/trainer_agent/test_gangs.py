"""Agents as processes of their own, each on its own address, that start the ranks of gangs; leases come by Kafka, outputs go to MinIO."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.component.topic_log import TopicLog
from tests.component.trainer_agent.conftest import BUCKET
from tests.component.trainer_agent.scheduled_agents import Scheduler, agents_on, go_on, has_ended, pause
from trainyard._objects import MinioObjects
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.cluster.v1.resources_pb2 import Resources
from trainyard.job.v1.spec_pb2 import Distribution, EnvironmentSpec, InlineSource, RunSpec, Source, TensorflowCluster
from trainyard.job.v1.telemetry_pb2 import LogChunk, MetricBatch

pytestmark = [pytest.mark.component, pytest.mark.timeout(300)]
TWO = ("agent-2", "agent-3")

# Every task serves its address and greets all the others by theirs.
_GREETS_ALL = """
import json, os, socket, time
from trainyard import Run
config = json.loads(os.environ["TF_CONFIG"])
me = config["cluster"][config["task"]["type"]][config["task"]["index"]]
host, port = me.split(":")
served = socket.create_server((host, int(port)), backlog=100)
others = [it for group in config["cluster"].values() for it in group if it != me]
for other in others:
    while True:
        try:
            socket.create_connection((other.split(":")[0], int(other.split(":")[1]))).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.02)
for _ in others:
    served.accept()[0].close()
run = Run.get_context()
run.log("greeted", len(others))
run.flush()
name = f"{config['task']['type']}_{config['task']['index']}"
open(f"outputs/{name}", "w").write(me)
print("hello from", name)
if config["task"]["type"] == "ps":
    time.sleep(600)
"""
_SECOND_FAILS = """
import os, sys, time
rank = os.environ["OMPI_COMM_WORLD_RANK"]
open(f"outputs/{rank}", "w")
while len(os.listdir("outputs")) < 2:
    time.sleep(0.02)
if rank == "3":
    raise SystemExit("no luck")
time.sleep(600)
"""
_COUNTS = """
import os, time
step = int(open("outputs/step").read()) if os.path.exists("outputs/step") else 0
open("outputs/began", "w").write(str(step))
open("outputs/step", "w").write(str(step + 5))
time.sleep(600)
"""


@pytest.fixture
def scheduler(
    tmp_path: Path, kafka_bootstrap: str, minio_server: tuple[str, str, str], objects: MinioObjects, topic_log: TopicLog
) -> Iterator[Scheduler]:
    addresses = {"agent-2": "127.0.0.2", "agent-3": "127.0.0.3"}
    settings = {"AGENT__CHECKPOINT_SECONDS": "0.2", "CACHE": str(tmp_path / "cache"), "AGENT__LABELS": json.dumps({"rack": "7"})}
    with agents_on(addresses, tmp_path, kafka_bootstrap, minio_server, BUCKET, **settings) as agents:
        yield Scheduler(topic_log, objects, agents)


def a_spec(script: str, distribution: Any = None, **more: Any) -> Any:
    return RunSpec(
        source=Source(inline=InlineSource(files={"train.py": script.encode()})),
        entry_script="train.py",
        environment=EnvironmentSpec(framework="none", interpreter_path=sys.executable),
        distribution=distribution,
        **more,
    )


def a_run(request: pytest.FixtureRequest) -> str:
    return f"run-{hashlib.sha256(request.node.name.encode()).hexdigest()[:8]}"


def test_two_agents_start_a_cluster_whose_tasks_reach_each_other(scheduler: Scheduler, request: pytest.FixtureRequest) -> None:
    run = a_run(request)
    spec = a_spec(_GREETS_ALL, Distribution(node_count=2, tensorflow=TensorflowCluster(worker_count=3, parameter_server_count=1)))

    scheduler.offers(run, spec, TWO)
    formed = scheduler.forms(run, TWO)
    workers = scheduler.reports(run, cluster.TaskExited, 3)
    for agent_id in TWO:
        scheduler.revokes(run, agent_id, save_outputs=True)
    saved = scheduler.reports(run, cluster.OutputsUploaded, 2)

    assert sorted((it.rank, it.exit_code, it.stopped) for it in workers) == [(0, 0, False), (1, 0, False), (2, 0, False)]
    (server,) = [it for it in scheduler.heard(run, cluster.TaskExited) if it.rank == 3]
    assert server.stopped and server.exited_at.ToNanoseconds() >= max(it.exited_at.ToNanoseconds() for it in workers)
    addresses = {member.agent_id: (member.address, len(member.ports)) for member in formed.members}
    assert addresses == {"agent-2": ("127.0.0.2", 2), "agent-3": ("127.0.0.3", 2)}
    contents = {it.agent_id: scheduler.outputs(it) for it in saved}
    assert _told_by_the_node(contents["agent-2"], "agent-2", "") == {0: "Completed", 2: "Completed"}
    assert _told_by_the_node(contents["agent-3"], "agent-3", "-agent-3") == {1: "Completed", 3: "Canceled"}
    assert contents["agent-2"] == {
        "outputs/worker_0": f"127.0.0.2:{formed.members[0].ports[0]}",
        "outputs/worker_2": f"127.0.0.2:{formed.members[0].ports[1]}",
        "azureml-logs/70_driver_log_worker_0.txt": "hello from worker_0\n",
        "azureml-logs/70_driver_log_worker_2.txt": "hello from worker_2\n",
    }
    assert sorted(contents["agent-3"]) == [
        "azureml-logs/70_driver_log_ps_0.txt",
        "azureml-logs/70_driver_log_worker_1.txt",
        "outputs/ps_0",
        "outputs/worker_1",
    ]
    keys = [file.object_key for it in saved for file in it.outputs.files]
    assert len(set(keys)) == len(keys) and all(key.startswith(f"runs/{run}/1/") for key in keys)


def _told_by_the_node(files: dict[str, str], agent_id: str, suffix: str) -> dict[int, str]:
    """Rank -> how its process ended. Takes out of the files what a node adds to them."""
    execution, _, _, _, status = (
        files.pop(f"azureml-logs/{name}")
        for name in (
            f"55_azureml-execution-{agent_id}.txt",
            f"65_job_prep-{agent_id}.txt",
            f"75_job_post-{agent_id}.txt",
            f"process_info{suffix}.json",
            f"process_status{suffix}.json",
        )
    )
    ended = {it["rank"]: it["status"] for it in json.loads(status)["processes"]}
    assert all(f"rank {rank}: is process" in execution for rank in ended)
    return ended


def test_metrics_and_lines_are_tagged_with_their_rank(scheduler: Scheduler, request: pytest.FixtureRequest) -> None:
    run = a_run(request)
    spec = a_spec(_GREETS_ALL, Distribution(node_count=2, tensorflow=TensorflowCluster(worker_count=4)))

    scheduler.offers(run, spec, TWO)
    scheduler.forms(run, TWO)
    scheduler.reports(run, cluster.OutputsUploaded, 2)

    batches = [it.message for it in scheduler.log.events("trainyard.metrics") if isinstance(it.message, MetricBatch)]
    assert sorted(it.rank for it in batches if it.run_id == run) == [0, 1, 2, 3]
    lines = [it.message for it in scheduler.log.events("trainyard.logs") if isinstance(it.message, LogChunk)]
    said = {(it.log, it.rank) for it in lines if it.run_id == run and "70_driver_log" in it.log}
    assert said == {(f"azureml-logs/70_driver_log_worker_{rank}.txt", rank) for rank in range(4)}


def test_the_first_failure_is_told_with_its_time_and_its_siblings_are_stopped(scheduler: Scheduler, request: pytest.FixtureRequest) -> None:
    run = a_run(request)

    scheduler.offers(run, a_spec(_SECOND_FAILS, Distribution(node_count=2, process_count_per_node=2)), TWO)
    scheduler.forms(run, TWO)
    (cause,) = scheduler.reports(run, cluster.TaskExited, where=lambda it: not it.stopped)
    scheduler.revokes(run, "agent-2", save_outputs=True)
    scheduler.reports(run, cluster.OutputsUploaded, 2)

    assert (cause.agent_id, cause.rank, cause.exit_code, list(cause.last_lines)) == ("agent-3", 3, 1, ["no luck"])
    others = [it for it in scheduler.heard(run, cluster.TaskExited) if it.rank != 3]
    assert sorted((it.rank, it.stopped) for it in others) == [(0, True), (1, True), (2, True)]
    assert all(cause.exited_at.ToNanoseconds() <= it.exited_at.ToNanoseconds() for it in others)


def test_an_agent_holds_several_leases_and_declines_what_clashes(scheduler: Scheduler, request: pytest.FixtureRequest) -> None:
    run = a_run(request)
    spec = a_spec("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])", resources=Resources(cpus=1, gpus=1))
    for name, gpu in (("a", 0), ("b", 1), ("c", 1)):
        scheduler.offers(f"{run}-{name}", spec, ["agent-2"], gpus=[gpu])
    (declined,) = scheduler.reports(f"{run}-c", cluster.LeaseDeclined)
    scheduler.offers(f"{run}-d", a_spec(""), ["agent-2"])
    (whole,) = scheduler.reports(f"{run}-d", cluster.LeaseDeclined)

    for name in ("a", "b"):
        scheduler.forms(f"{run}-{name}", ["agent-2"])
    ends = [scheduler.reports(f"{run}-{name}", cluster.TaskExited)[0] for name in ("a", "b")]

    assert declined.why == f"it holds {run}-b, which has GPU 1"
    assert whole.why == f"it holds {run}-a, and the run wants the whole node"
    assert [list(it.last_lines) for it in ends] == [["0"], ["1"]]
    registered = scheduler.registered("agent-2")
    assert (registered.address, registered.labels["rack"]) == ("127.0.0.2", "7") and registered.labels["host"]


def test_the_next_attempt_begins_with_the_last_checkpoint_on_another_node(scheduler: Scheduler, request: pytest.FixtureRequest) -> None:
    run = a_run(request)
    spec = a_spec(_COUNTS, max_restarts=1)
    scheduler.offers(run, spec, ["agent-2"])
    scheduler.forms(run, ["agent-2"])
    scheduler.reports(run, cluster.CheckpointSaved, where=lambda it: len(it.checkpoint.files) == 2)
    scheduler.agents["agent-2"].kill()

    newest = scheduler.heard(run, cluster.CheckpointSaved)[-1]
    scheduler.offers(run, spec, ["agent-3"], epoch=2, checkpoint=newest.checkpoint)
    scheduler.forms(run, ["agent-3"], epoch=2)
    scheduler.reports(run, cluster.TaskStarted, epoch=2)
    saved = scheduler.reports(run, cluster.CheckpointSaved, epoch=2, where=lambda it: _contents(scheduler, it).get("step") == "10")

    assert _contents(scheduler, saved[-1]) == {"began": "5", "step": "10"}
    assert all(file.object_key.startswith(f"runs/{run}/2/checkpoints/") for file in saved[-1].checkpoint.files)


def _contents(scheduler: Scheduler, told: Any) -> dict[str, str]:
    return {file.path: scheduler.objects.get_bytes(file.object_key).decode() for file in told.checkpoint.files}


@pytest.mark.faults
def test_an_agent_that_slept_through_a_new_attempt_writes_nothing_that_counts(scheduler: Scheduler, request: pytest.FixtureRequest) -> None:
    run = a_run(request)
    spec = a_spec(_COUNTS, max_restarts=1)
    scheduler.offers(run, spec, ["agent-2"])
    scheduler.forms(run, ["agent-2"])
    scheduler.reports(run, cluster.CheckpointSaved)
    sleeper, incarnation = scheduler.agents["agent-2"], scheduler.registered("agent-2").incarnation
    pause(sleeper)

    scheduler.tells("agent-2", cluster.AgentFenced(agent_id="agent-2", incarnation=incarnation, why="it was silent"))
    scheduler.offers(run, spec, ["agent-3"], epoch=2)
    scheduler.forms(run, ["agent-3"], epoch=2)
    scheduler.reports(run, cluster.CheckpointSaved, epoch=2)
    go_on(sleeper)
    scheduler.until(lambda: has_ended(sleeper) or None, "the fenced process's end")
    scheduler.revokes(run, "agent-3", epoch=2, save_outputs=True)
    (saved,) = scheduler.reports(run, cluster.OutputsUploaded, epoch=2)

    reports = [it.message for it in scheduler.log.events("trainyard.tasks") if getattr(it.message, "run_id", "") == run]
    assert {it.epoch for it in reports if it.incarnation == incarnation} == {1}
    assert {it.agent_id for it in reports if it.epoch == 2} == {"agent-3"}
    assert not scheduler.heard(run, cluster.OutputsUploaded, epoch=1)
    assert scheduler.outputs(saved)["outputs/began"] == "0"
    assert all(file.object_key.startswith(f"runs/{run}/2/") for file in saved.outputs.files)


def test_agents_of_one_machine_build_an_environment_once(
    tmp_path: Path,
    kafka_bootstrap: str,
    minio_server: tuple[str, str, str],
    objects: MinioObjects,
    topic_log: TopicLog,
    request: pytest.FixtureRequest,
) -> None:
    run, four = a_run(request), [f"agent-{number}" for number in range(10, 14)]
    spec = a_spec("import six; print(six.__name__)", Distribution(node_count=4))
    spec.environment.CopyFrom(EnvironmentSpec(framework="none", pip_packages=["six"]))
    addresses = dict.fromkeys(four, "127.0.0.1")

    with agents_on(addresses, tmp_path, kafka_bootstrap, minio_server, BUCKET, CACHE=str(tmp_path / "cache")) as agents:
        scheduler = Scheduler(topic_log, objects, agents)
        scheduler.offers(run, spec, four)
        formed = scheduler.forms(run, four, patience=120)
        saved = scheduler.reports(run, cluster.OutputsUploaded, 4)

    logs = [content for it in saved for path, content in scheduler.outputs(it).items() if "20_image_build_log" in path]
    assert sum("Building environment" in content for content in logs) == 1
    assert len({port for member in formed.members for port in member.ports}) == 4
