"""Runs from both sides: what a script does with its run, what a client does with a run, and how runs end."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.system.platform import Platform, an_inline_run, names
from trainyard import ActivityFailedException, Dataset, Experiment, Model, Run, UserErrorException
from trainyard._errors import ModelPathNotFoundException
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet
from trainyard.job.v1 import job_pb2

FROM_INSIDE = """
import io, json, os
from trainyard import Run, UserErrorException, ModelPathNotFoundException
run = Run.get_context()
assert run.experiment.name == "runs" and run.id == os.environ["AZUREML_RUN_ID"]

run.tag("stage", "one"); run.set_tags({"extra": 1}); run.remove_tags(["extra"])
run.add_properties({"p": "1"}); run.add_properties({"p": "1"})
try: run.add_properties({"p": "2"}); raise SystemExit("a property changed")
except UserErrorException as error: print(error.message)
assert run.get_tags() == {"given": "yes", "stage": "one"}, run.get_tags()
assert run.get_properties()["p"] == "1", run.get_properties()

for number in range(3): run.log("loss", number / 2, step=number)
run.log("flag", True); run.log("big", 2**80); run.log("none", None); run.log("nan", float("nan"))
run.log_row("row", a=1); run.log_table("table", {"a": [1, 2]}); run.log_list("list", [1, 2])
assert run.get_metrics("loss") == {"loss": [0, 0.5, 1]}, run.get_metrics()
run.log("count", 3); assert repr(run.get_metrics("count")) == "{'count': 3}", run.get_metrics()
run.log_confusion_matrix("cm", {"schema_type": "confusion_matrix", "schema_version": "v1", "data": {"matrix": [[1]]}})

run.upload_file("notes/a.txt", io.BytesIO(b"A"))
assert "notes/a.txt" in run.get_file_names()
try: run.upload_file("notes/a.txt", io.BytesIO(b"B")); raise SystemExit("a file changed")
except UserErrorException as error: print(error.message)

first, second = run.create_children(2)
first.log("x", 1); first.tag("n", 1)
with second: second.log("x", 2)
assert first.get_metrics() == {"x": 1} and second.get_status() == "Completed"

os.makedirs("outputs/model"); open("outputs/model/weights", "w").write("first")
model = run.register_model("runs-inside", "outputs/model")
open("outputs/model/weights", "w").write("second")
again = run.register_model("runs-inside", "outputs/model", datasets=[("training", "digits"), ("test", run.input_datasets["digits"])])
assert again.version == model.version + 1
run.tag("versions", f"{model.version} {again.version}")
try: run.register_model("runs-inside", "outputs/modle")
except ModelPathNotFoundException as error: print(error.message)
assert run.get_details()["runId"] == run.id
run.complete(); run.fail("no"); run.cancel()
"""

WAIT_FOR_EVER = """
import time
print("begun", flush=True)
while True: time.sleep(0.1)
"""


def test_a_script_does_all_with_its_run_that_a_script_may(platform: Platform, tmp_path: Path, files_over_http: tuple[Path, str]) -> None:
    platform.pool("runs", max_nodes=2)
    experiment = Experiment(platform.workspace, "runs")
    folder, base = files_over_http
    (folder / "digits.gz").write_text("digits")
    digits = Dataset.File.from_files(f"{base}/digits.gz").register(platform.workspace, "digits of a script", create_new_version=True)
    run = platform.submit(tmp_path / "code", FROM_INSIDE, "runs", experiment="runs", inputs=[digits.as_named_input("digits").as_mount()])
    run.tag("given", "yes")
    run.wait_for_completion()

    metrics = run.get_metrics()
    assert {name: metrics[name] for name in ("loss", "flag", "big", "none", "row", "table", "list")} == {
        "loss": [0, 0.5, 1], "flag": True, "big": 2**80, "none": None, "row": {"a": 1}, "table": {"a": [1, 2]}, "list": [1, 2],
    }  # fmt: skip
    assert math.isnan(metrics["nan"]) and repr(metrics["count"]) == "3"
    assert metrics["cm"].startswith(f"aml://artifactId/ExperimentRun/dcid.{run.id}/cm_")
    assert {"notes/a.txt", "outputs/model/weights", metrics["cm"].rpartition("/")[2]} <= set(run.get_file_names())
    assert run.tags.items() >= {"given": "yes", "stage": "one"}.items() and run.properties["p"] == "1"
    opened: list[Any] = [event.message for event in platform.events("trainyard.jobs") if isinstance(event.message, job_pb2.RunOpened)]
    children = [Run(experiment, it.run_id) for it in opened if it.parent_run_id == run.id]
    assert [child.get_status() for child in children] == ["Completed", "Completed"]
    contents = []
    for version in run.tags["versions"].split():
        model = Model(platform.workspace, "runs-inside", version=int(version))
        assert model.run_id == run.id
        contents.append((Path(model.download(str(tmp_path / version))) / "weights").read_text())
    assert contents == ["first", "second"]
    assert {(purpose, it.id) for purpose, named in model.datasets.items() for it in named} == {
        (purpose, digits.id) for purpose in ("", "training", "test")
    }


def test_an_interactive_run_keeps_what_it_is_given_and_ends_as_its_block_ends(platform: Platform, tmp_path: Path) -> None:
    experiment = Experiment(platform.workspace, "interactive")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("print()")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("A")

    with experiment.start_logging(outputs=str(tmp_path / "out"), snapshot_directory=str(tmp_path / "code"), tags={"t": "1"}) as run:
        assert run.get_status() == "Running"
        run.log("loss", 0.5, step=1)
        run.log("loss", 0.25, step=2)
        with run.child_run("part") as child:
            child.log("x", 1)
    failed = experiment.start_logging(snapshot_directory=None)
    with pytest.raises(ValueError, match="boom"), failed:
        raise ValueError("boom")

    assert run.get_metrics() == {"loss": [0.5, 0.25]} and child.get_metrics() == {"x": 1}
    assert (run.get_status(), child.get_status(), child.parent and child.parent.id) == ("Completed", "Completed", run.id)
    assert child.display_name == "part" and child.number == run.number + 1
    assert run.get_file_names() == ["outputs/a.txt"] and run.tags == {"t": "1"} and run.properties["ContentSnapshotId"]
    assert failed.get_status() == "Failed"
    with pytest.raises(ActivityFailedException) as caught:
        failed.wait_for_completion()
    assert caught.value.last_lines[-1] == "ValueError: boom"
    assert Run.get(platform.workspace, run.id).experiment.name == "interactive"


def test_a_client_adds_to_a_run_after_its_end(platform: Platform, tmp_path: Path) -> None:
    class Plot:
        def savefig(self, file: object, format: str) -> None:
            file.write(b"a picture")  # type: ignore[attr-defined]

    experiment = Experiment(platform.workspace, "interactive")
    with experiment.start_logging(snapshot_directory=None) as run:
        run.upload_file("kept.txt", __file__)

    run.log_image("plot", plot=Plot())
    run.tag("late")
    (tmp_path / "other").write_text("other")
    with pytest.raises(UserErrorException, match="other content"):
        run.upload_file("kept.txt", str(tmp_path / "other"))

    name = run.get_metrics()["plot"].rpartition("/")[2]
    run.download_file(name, str(tmp_path / "plot.png"))
    assert (tmp_path / "plot.png").read_bytes() == b"a picture"
    assert run.tags == {"late": ""}
    model = run.register_model("from-a-notebook", "kept.txt")
    assert model.version >= 1
    with pytest.raises(ModelPathNotFoundException, match=r"kept\.txt"):
        run.register_model("from-a-notebook", "nothing")


def test_a_submitted_run_is_not_closed_by_its_client(platform: Platform, tmp_path: Path) -> None:
    platform.pool("runs", max_nodes=2)
    run = platform.submit(tmp_path / "code", WAIT_FOR_EVER, "runs")

    with pytest.raises(UserErrorException, match="ends with its script"):
        run.complete()

    run.cancel()
    assert platform.until_status(run.id, "CANCELED", "COMPLETED", "FAILED") == "CANCELED"


def test_refusals_over_grpc_have_their_status(platform: Platform) -> None:
    jobs = platform.jobs
    open_id = jobs.OpenRun(job_pb2.OpenRun(experiment="system", properties={"p": "1"})).run.run_id
    again = jobs.OpenRun(job_pb2.OpenRun(submission_id=open_id, experiment="system"))

    def status(method: Any, request: Any) -> str:
        with pytest.raises(grpc.RpcError) as caught:
            method(request)
        return str(caught.value.code().name)  # type: ignore[attr-defined]

    def a_file(digest: str) -> Any:
        file = Artifact(path="a", sha256=digest * 64, object_key=f"uploads/{open_id}/{digest}")
        return job_pb2.AddRunFiles(run_id=open_id, files=ArtifactSet(files=[file]))

    jobs.AddRunFiles(a_file("a"))
    assert again.repeated_submission and again.run.opened
    assert status(jobs.AddRunFiles, a_file("b")) == "ALREADY_EXISTS"
    assert status(jobs.AddRunProperties, job_pb2.AddRunProperties(run_id=open_id, properties={"p": "2"})) == "FAILED_PRECONDITION"
    assert status(jobs.TagRun, job_pb2.TagRun(run_id=open_id, set={"": "x"})) == "INVALID_ARGUMENT"
    assert status(jobs.TagRun, job_pb2.TagRun(run_id="nowhere", set={"a": "x"})) == "NOT_FOUND"
    assert status(jobs.OpenRun, job_pb2.OpenRun(experiment="system", parent_run_id="nowhere")) == "NOT_FOUND"
    assert status(jobs.OpenRun, job_pb2.OpenRun(experiment="no name")) == "INVALID_ARGUMENT"
    assert status(jobs.CloseRun, job_pb2.CloseRun(run_id=open_id, status=job_pb2.RUN_STATUS_RUNNING)) == "INVALID_ARGUMENT"
    closed = jobs.CloseRun(job_pb2.CloseRun(run_id=open_id, status=job_pb2.RUN_STATUS_COMPLETED)).run
    assert jobs.CloseRun(job_pb2.CloseRun(run_id=open_id, status=job_pb2.RUN_STATUS_FAILED)).run.status == closed.status
    assert status(jobs.OpenRun, job_pb2.OpenRun(experiment="system", parent_run_id=open_id)) == "FAILED_PRECONDITION"


# -- cancel ends in Canceled, whatever stands in its way


def test_a_canceled_parent_takes_its_children_along(platform: Platform, tmp_path: Path) -> None:
    platform.pool("runs", max_nodes=2)
    parent = Experiment(platform.workspace, "system").start_logging(snapshot_directory=None)
    child = parent.child_run()
    request = an_inline_run("runs", WAIT_FOR_EVER.encode(), "")
    request.spec.parent_run_id = parent.id
    worker = platform.jobs.SubmitRun(request).run.run_id
    platform.until_status(worker, "RUNNING")

    parent.cancel("enough")

    assert (parent.get_status(), child.get_status()) == ("Canceled", "Canceled")
    assert platform.until_status(worker, "CANCELED", "COMPLETED", "FAILED") == "CANCELED"


def test_a_run_whose_agent_is_silent_is_canceled_all_the_same(platform: Platform, tmp_path: Path) -> None:
    platform.pool("silent", max_nodes=1)
    run = platform.submit(tmp_path / "code", WAIT_FOR_EVER, "silent")
    platform.until_status(run.id, "RUNNING")
    pid = platform.pause(platform.node_of(run.id))

    try:
        run.cancel()
        status = platform.until_status(run.id, "CANCELED", "COMPLETED", "FAILED")
    finally:
        platform.go_on(pid)

    assert status == "CANCELED"


def test_a_run_whose_agent_died_is_canceled_all_the_same(platform: Platform, tmp_path: Path) -> None:
    platform.pool("dying", max_nodes=1)
    run = platform.submit(tmp_path / "code", WAIT_FOR_EVER, "dying")
    platform.until_status(run.id, "RUNNING")

    os.kill(platform.pid(platform.node_of(run.id)), signal.SIGKILL)
    run.cancel()

    assert platform.until_status(run.id, "CANCELED", "COMPLETED", "FAILED") == "CANCELED"


def test_a_run_that_waits_for_a_node_is_canceled_at_once(platform: Platform, tmp_path: Path) -> None:
    platform.pool("full", max_nodes=1)
    first = platform.submit(tmp_path / "one", WAIT_FOR_EVER, "full")
    platform.until_status(first.id, "RUNNING")
    second = platform.submit(tmp_path / "two", WAIT_FOR_EVER, "full")

    second.cancel()

    assert second.get_status() == "Canceled"
    first.cancel()
    platform.until_status(first.id, "CANCELED")


def test_a_run_whose_data_is_still_downloading_is_canceled(platform: Platform, stuck_source: str) -> None:
    platform.pool("runs", max_nodes=2)
    request = an_inline_run("runs", b"print()")
    request.spec.inputs.add(name="data").files.add(url=f"{stuck_source}/a", path="http/host/a")
    run_id = platform.jobs.SubmitRun(request).run.run_id
    platform.until(lambda: any(getattr(it, "phase", "") == "data" for it in platform.events_of(run_id, "trainyard.tasks")), "it downloads")

    platform.jobs.CancelRun(job_pb2.CancelRun(run_id=run_id))

    assert platform.until_status(run_id, "CANCELED", "COMPLETED", "FAILED") == "CANCELED"


def test_a_run_whose_environment_is_still_being_built_is_canceled(platform: Platform) -> None:
    platform.pool("runs", max_nodes=2)
    request = an_inline_run("runs", WAIT_FOR_EVER.encode())
    request.spec.environment.pip_packages.extend(["pandas", "scipy"])
    run_id = platform.jobs.SubmitRun(request).run.run_id
    platform.until(
        lambda: any(getattr(it, "phase", "") == "environment" for it in platform.events_of(run_id, "trainyard.tasks")), "it builds"
    )

    platform.jobs.CancelRun(job_pb2.CancelRun(run_id=run_id))

    assert platform.until_status(run_id, "CANCELED", "COMPLETED", "FAILED") == "CANCELED"


def test_a_time_limit_reaches_the_processes_that_a_script_started(platform: Platform, tmp_path: Path) -> None:
    platform.pool("runs", max_nodes=2)
    script = f"""
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
child.wait()
"""
    run = platform.submit(tmp_path / "code", script, "runs", max_run_duration_seconds=2)

    with pytest.raises(ActivityFailedException) as caught:
        run.wait_for_completion()

    pid = int((tmp_path / "pid").read_text())
    platform.until(lambda: not Path(f"/proc/{pid}").exists(), "the child is gone")
    shape = caught.value.serialize()
    assert (caught.value.code, shape["error"]["code"], shape["error"]["innerError"]["code"]) == ("TimedOut", "UserError", "TimedOut")
    assert "max_run_duration_seconds" in str(caught.value) and '"innerError"' in str(caught.value)
    assert names(platform.events_of(run.id))[-1] == "RunFailed"
