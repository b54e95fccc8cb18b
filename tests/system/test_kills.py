"""State is rebuilt: each service is killed in each phase of a run, and the run still completes, once, with one model version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.system.platform import TERMINAL, Platform, names
from trainyard import Model, Run
from trainyard.cluster.v1 import cluster_pb2
from trainyard.event.v1.artifact_pb2 import Attempt
from trainyard.job.v1 import job_pb2
from trainyard.job.v1.job_pb2 import GetRunRequest, ListRunsRequest
from trainyard.model.v1 import model_pb2

pytestmark = pytest.mark.faults

SERVICES = ("dataset", "scheduler", "registry", "serving")
SCRIPT = """
import os, sys, time
print("attempt", os.environ["TRAINYARD_EPOCH"], flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.02)
os.makedirs("outputs/model", exist_ok=True)
open("outputs/model/weights", "w").write(os.environ["TRAINYARD_EPOCH"])
"""

ASKING = """
import os, sys, threading, time
from trainyard import Run

epoch, go, asleep = os.environ["TRAINYARD_EPOCH"], *sys.argv[1:3]
os.makedirs("outputs/model", exist_ok=True)
open("outputs/model/weights", "w").write(epoch)
run = Run.get_context()
run.upload_file("note.txt", "outputs/model/weights")
run.add_properties({"attempt": epoch})
run.tag("attempt", epoch)
if epoch == "1":
    while not os.path.exists(asleep):
        time.sleep(0.02)
    asked = (
        lambda: run.tag("late", "yes"),
        lambda: run.add_properties({"late": "yes"}),
        lambda: run.upload_file("late.txt", "outputs/model/weights"),
        lambda: run.child_run("late"),
        lambda: run.register_model("of-a-sleeper", model_path="outputs/model"),
    )
    for ask in asked:
        threading.Thread(target=ask, daemon=True).start()
    open(asleep + ".asked", "w").close()
while not os.path.exists(go):
    time.sleep(0.02)
"""


def a_run(platform: Platform, tmp_path: Path, pool: str) -> tuple[Run, Path]:
    """A run that goes on until the file is there."""
    platform.pool(pool)
    go = tmp_path / "go"
    return platform.submit(tmp_path / "code", SCRIPT, pool, script_params={str(go): ""}), go


def completes_once(platform: Platform, run: Run, model: str) -> None:
    """And its model is one version, however often it is asked for."""
    assert platform.until_status(run.id, "COMPLETED", "FAILED", "CANCELED") == "COMPLETED"
    request = model_pb2.RegisterModelVersion(submission_id=f"of-{run.id}", model=model, run_id=run.id, path="outputs/model")
    clients = platform.workspace._clients
    for _ in range(2):
        clients.call(clients.models.RegisterModelVersion, request)
    told = names(platform.events_of(run.id))
    assert [told.count(name) for name in ("RunQueued", *TERMINAL)] == [1, 1, 0, 0, 0]
    assert [version.version for version in Model.list(platform.workspace, model)] == [1]
    epochs = [message.epoch for message in platform.events_of(run.id, "trainyard.leases") if isinstance(message, cluster_pb2.LeaseOffered)]
    assert sorted(epochs) == list(range(1, len(epochs) + 1))
    (completed,) = [message for message in platform.events_of(run.id) if type(message).__name__ == "RunCompleted"]
    assert completed.epoch == max(epochs)
    assert {file.object_key.split("/")[2] for file in completed.outputs.files} == {str(completed.epoch)}


@pytest.fixture
def release(tmp_path: Path) -> Iterator[None]:
    """No script of a failed test goes on for ever."""
    yield
    (tmp_path / "go").touch()


@pytest.mark.usefixtures("release")
def test_each_service_is_killed_while_the_run_is_queued(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    first, go_first = a_run(platform, tmp_path / "first", "kills-queued")
    platform.until_status(first.id, "RUNNING")
    run, go = a_run(platform, tmp_path, "kills-queued")
    platform.until_status(run.id, "QUEUED")

    for service in (*SERVICES, platform.node_of(first.id)):
        platform.kill_and_wait(service)
        assert platform.status(run.id) in ("QUEUED", "PROVISIONING")
    go_first.touch()
    go.touch()

    assert platform.until_status(first.id, "COMPLETED", "FAILED") == "COMPLETED"
    completes_once(platform, run, "killed-while-queued")


@pytest.mark.usefixtures("release")
def test_each_service_is_killed_while_the_run_is_running(platform: Platform, tmp_path: Path) -> None:
    run, go = a_run(platform, tmp_path, "kills-running")
    platform.until_status(run.id, "RUNNING")

    for service in (*SERVICES, platform.node_of(run.id)):
        platform.kill_and_wait(service)
        platform.until_status(run.id, "RUNNING")
    go.touch()

    completes_once(platform, run, "killed-while-running")
    chunks = [chunk for chunk in platform.events_of(run.id, "trainyard.logs") if chunk.log == "azureml-logs/70_driver_log.txt"]
    lines = [line for chunk in chunks for line in chunk.lines]
    assert lines == ["attempt 1", "attempt 2"]


def test_each_service_is_killed_while_the_run_is_finalizing(platform: Platform, tmp_path: Path) -> None:
    run, go = a_run(platform, tmp_path, "kills-finalizing")
    platform.until_status(run.id, "RUNNING")
    # Outputs cannot be saved while the object store stands still: the run stays in Finalizing.
    store = platform.pause("minio")
    try:
        go.touch()
        platform.until_status(run.id, "FINALIZING")
        for service in (*SERVICES, platform.node_of(run.id)):
            platform.kill_and_wait(service)
            platform.until_status(run.id, "FINALIZING")
    finally:
        platform.go_on(store)

    completes_once(platform, run, "killed-while-finalizing")


@pytest.mark.usefixtures("release")
def test_an_agent_that_wakes_up_after_it_was_given_up_can_write_nowhere_that_counts(platform: Platform, tmp_path: Path) -> None:
    """Neither for itself nor for its script, which asks for a tag, a property, an upload, a child and a model while it sleeps."""
    platform.pool("zombies", max_nodes=2, min_nodes=2)
    go, asleep = tmp_path / "go", tmp_path / "asleep"
    run = platform.submit(tmp_path / "code", ASKING, "zombies", script_params={str(go): str(asleep)})
    platform.until(lambda: "RunTagged" in names(platform.events_of(run.id)), "the first attempt has asked for what it may")
    sleeper = platform.node_of(run.id)

    pid = platform.pause(sleeper)
    try:
        asleep.touch()
        platform.until((tmp_path / "asleep.asked").exists, "its script asks it")
        platform.until(lambda: "RunNotResponding" in names(platform.events_of(run.id)), "its silence shows")
        platform.until(lambda: "RunRequeued" in names(platform.events_of(run.id)), "the attempt is given up")
        platform.until_status(run.id, "RUNNING")
        assert platform.node_of(run.id) != sleeper
        platform.until(lambda: names(platform.events_of(run.id)).count("RunTagged") == 2, "the second attempt has asked for the same")
        with pytest.raises(grpc.RpcError) as refused:
            platform.jobs.TagRun(job_pb2.TagRun(run_id=run.id, set={"late": "yes"}, by=Attempt(run_id=run.id, epoch=1)))
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION and "Attempt 1" in (refused.value.details() or "")
    finally:
        platform.go_on(pid)
    # The sleeper's script sees the file as well, and its agent tries to finish the old attempt.
    go.touch()

    completes_once(platform, run, "of-no-zombie")
    platform.until(lambda: platform.pid(sleeper) not in (0, pid), "the sleeper has begun anew")
    last = platform.jobs.GetRun(GetRunRequest(run_id=run.id)).run
    assert (last.tags["attempt"], last.properties["attempt"]) == ("2", "2")
    assert "late" not in {*last.tags, *last.properties}
    told = platform.events_of(run.id)
    added = [(file.path, message.epoch) for message in told if isinstance(message, job_pb2.RunFilesAdded) for file in message.files.files]
    assert added == [("note.txt", 1), ("note.txt", 2)]
    assert Model.list(platform.workspace, "of-a-sleeper") == []
    assert list(run.get_children()) == []
    run.download_file("note.txt", str(tmp_path / "note.txt"))
    assert (tmp_path / "note.txt").read_text() == "2"


@pytest.mark.usefixtures("release")
def test_a_scheduler_that_lost_its_database_knows_everything_again_and_starts_nothing_twice(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "ended").mkdir()
    ended, _ = a_run(platform, tmp_path / "ended", "amnesia")
    (tmp_path / "ended" / "go").touch()
    platform.until_status(ended.id, "COMPLETED")
    run, go = a_run(platform, tmp_path, "amnesia")
    platform.until_status(run.id, "RUNNING")
    before = platform.jobs.ListRuns(ListRunsRequest(limit=1000)).runs

    platform.lose_the_database_of("scheduler")

    after = platform.jobs.ListRuns(ListRunsRequest(limit=1000), wait_for_ready=True).runs
    assert [(it.run_id, it.status, it.epoch, it.number) for it in after] == [(it.run_id, it.status, it.epoch, it.number) for it in before]
    go.touch()
    completes_once(platform, run, "after-amnesia")
    epochs = [message.epoch for message in platform.events_of(run.id, "trainyard.leases") if isinstance(message, cluster_pb2.LeaseOffered)]
    assert epochs == [1]
