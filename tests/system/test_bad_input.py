"""What goes wrong is told with a type, what and where; and nothing is left half done."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from services.chassis.records import NewRecord
from services.chassis.topics import topics
from tests.system.platform import Platform, an_inline_run
from trainyard import (
    ActivityFailedException,
    Dataset,
    Estimator,
    Experiment,
    ExperimentExecutionException,
    Model,
    ModelPathNotFoundException,
    TensorFlow,
    UserErrorException,
    WebserviceException,
)
from trainyard.event.v1.dead_letter_pb2 import DeadLetter


def test_a_dataset_url_that_does_not_answer_registers_nothing(platform: Platform) -> None:
    dataset = Dataset.File.from_files("http://127.0.0.1:1/nowhere.gz")

    with pytest.raises(UserErrorException, match="refused") as caught:
        dataset.register(platform.workspace, "unreachable")

    assert (caught.value.code, caught.value.target) == ("SourceUnreachable", "http://127.0.0.1:1/nowhere.gz")
    with pytest.raises(UserErrorException, match="There is no dataset 'unreachable'"):
        Dataset.get_by_name(platform.workspace, "unreachable")


def test_a_missing_entry_script_is_named_with_those_that_are_there(platform: Platform, tmp_path: Path) -> None:
    platform.pool("bad")
    (tmp_path / "train.py").write_text("print()")

    with pytest.raises(UserErrorException, match=r"'trian\.py' does not exist.*there is: train\.py"):
        Estimator(str(tmp_path), entry_script="trian.py", compute_target="bad")

    request = an_inline_run("bad", b"print()", "bad-entry")
    request.spec.entry_script = "trian.py"
    clients = platform.workspace._clients
    with pytest.raises(ExperimentExecutionException, match=r"'trian\.py' is not in the source; there is: train\.py") as caught:
        clients.call(clients.jobs.SubmitRun, request, ExperimentExecutionException)
    assert caught.value.target == "trian.py"


def test_an_unknown_compute_target_is_named_with_those_that_exist(platform: Platform, tmp_path: Path) -> None:
    platform.pool("bad")

    with pytest.raises(ExperimentExecutionException, match="There is no compute target 'nowhere'") as caught:
        platform.submit(tmp_path, "print()", "nowhere")

    assert caught.value.code == "ComputeTargetNotFound"


def test_a_script_that_exits_with_3_fails_its_run_with_rank_code_and_the_tracebacks_last_lines(platform: Platform, tmp_path: Path) -> None:
    platform.pool("bad")
    script = "import sys\nprint('before')\ntry:\n    raise ValueError('boom')\nexcept ValueError:\n    import traceback\n    traceback.print_exc()\n    sys.exit(3)\n"

    run = platform.submit(tmp_path, script, "bad")
    with pytest.raises(ActivityFailedException) as caught:
        run.wait_for_completion()

    error = run.get_details()["error"]["error"]
    assert (caught.value.code, caught.value.exit_code) == ("ScriptFailed", 3)
    first, log, *lines = error["message"].split("\n")
    assert error["message"] == caught.value.message
    assert first == run.get_details()["trainyard"]["why"] == "train.py (rank 0) exited with code 3: ValueError: boom"
    assert log == "The end of azureml-logs/70_driver_log.txt:"
    assert lines[-2:] == ["      raise ValueError('boom')", "  ValueError: boom"]
    assert any("line 4, in <module>" in line for line in lines)
    assert error["messageParameters"] == {"rank": "0", "exitCode": "3"}
    assert [detail["message"] for detail in error["details"]][-1] == "ValueError: boom"
    assert "azureml-logs/70_driver_log.txt" in run.get_file_names()


def test_a_pip_package_that_does_not_exist_is_named_with_the_resolvers_reason(platform: Platform, tmp_path: Path) -> None:
    platform.pool("bad")

    run = platform.submit(tmp_path, "print()", "bad", pip_packages=["no-such-package-of-trainyards-tests"])
    with pytest.raises(ActivityFailedException, match="no-such-package-of-trainyards-tests") as caught:
        run.wait_for_completion()

    assert (caught.value.code, caught.value.target) == ("EnvironmentBuildFailed", "no-such-package-of-trainyards-tests")
    assert "azureml-logs/20_image_build_log.txt" in run.get_file_names()


def test_a_requirement_that_is_an_option_never_reaches_the_installer(platform: Platform, tmp_path: Path) -> None:
    platform.pool("bad")

    run = platform.submit(tmp_path, "print()", "bad", pip_packages=["--index-url=http://evil.example/"])

    with pytest.raises(ActivityFailedException) as caught:
        run.wait_for_completion()
    assert caught.value.code == "UserError"


def test_a_model_path_that_is_not_in_the_outputs_lists_what_is(platform: Platform, tmp_path: Path) -> None:
    platform.pool("bad")
    run = platform.submit(tmp_path, "import os\nos.makedirs('outputs/modle')\nopen('outputs/modle/a', 'w')", "bad")
    run.wait_for_completion()

    with pytest.raises(ModelPathNotFoundException, match="outputs/modle/a"):
        run.register_model("misspelt", model_path="outputs/model")

    assert Model.list(platform.workspace, "misspelt") == []


def test_a_model_that_is_no_savedmodel_is_refused_before_anything_goes_live(platform: Platform, tmp_path: Path) -> None:
    platform.pool("bad")
    run = platform.submit(tmp_path, "import os\nos.makedirs('outputs/model')\nopen('outputs/model/checkpoint', 'w')", "bad")
    run.wait_for_completion()
    model = run.register_model("a-checkpoint", model_path="outputs/model")

    with pytest.raises(WebserviceException, match="model/checkpoint") as caught:
        Model.deploy(platform.workspace, "no-savedmodel", [model]).wait_for_deployment()

    assert caught.value.code == "NotASavedModel"
    assert "no-savedmodel" not in platform.workspace.webservices


def test_a_framework_version_that_does_not_exist_is_refused_here_and_there(platform: Platform, tmp_path: Path) -> None:
    platform.pool("bad")
    (tmp_path / "train.py").write_text("print()")

    with pytest.raises(Exception, match="framework_version '2.99' is not supported"):
        TensorFlow(str(tmp_path), entry_script="train.py", compute_target="bad", framework_version="2.99")

    request = an_inline_run("bad", b"print()", f"bad-version-{uuid.uuid4().hex[:6]}")
    request.spec.environment.framework, request.spec.environment.framework_version = "tensorflow", "2.99"
    platform.jobs.SubmitRun(request)
    assert platform.until_status(request.submission_id, "FAILED", "COMPLETED") == "FAILED"


@pytest.mark.parametrize("topic", [name for name, topic in topics().items() if topic.owner != "none" and not topic.ephemeral])
def test_garbled_bytes_become_a_dead_letter_and_the_service_lives_on(platform: Platform, topic: str) -> None:
    platform.pool("bad")
    # The lease topic's records belong to the agent whose key they carry; one must be up to find it.
    platform.jobs.SubmitRun(an_inline_run("bad", b"print()", f"before-{uuid.uuid4().hex[:8]}"))
    node = platform.until(
        lambda: next(
            (it.agent_id for it in platform.compute.ListPools(_everything()).pools for it in it.nodes if it.state != "preparing"), ""
        ),
        "a node is up",
    )
    key = node if topic == "trainyard.leases" else f"garbled-{uuid.uuid4().hex[:8]}"
    owner = node if topic == "trainyard.leases" else topics()[topic].owner
    pid = platform.pid(owner)
    bad = [
        NewRecord(
            topic, key.encode(), b"\xff\xfe garbage", (("ce_type", b"trainyard.job.v1.RunQueued"), ("ce_id", uuid.uuid4().hex.encode()))
        ),
        NewRecord(topic, key.encode(), b"no event at all"),
        NewRecord(topic, key.encode(), None),
    ]

    placed = platform.log.publish_raw(bad)

    def letters() -> list[DeadLetter]:
        found = [event.message for event in platform.events("trainyard.deadletters")]
        return [letter for letter in found if isinstance(letter, DeadLetter) and letter.topic == topic and letter.key == key.encode()]

    platform.until(lambda: len(letters()) == len(bad), f"{topic}'s owner has put all {len(bad)} aside")
    assert sorted((letter.partition, letter.offset) for letter in letters()) == sorted(
        (place.partition, offset) for place, offset in placed
    )
    assert bytes(letters()[0].value) in (b"\xff\xfe garbage", b"no event at all", b"")
    assert platform.pid(owner) == pid
    after = f"after-{uuid.uuid4().hex[:8]}"
    platform.jobs.SubmitRun(an_inline_run("bad", b"print()", after))
    assert platform.until_status(after, "COMPLETED", "FAILED") == "COMPLETED"


def _everything() -> object:
    from trainyard.cluster.v1.cluster_pb2 import ListPoolsRequest

    return ListPoolsRequest()


def test_an_event_under_a_foreign_key_is_put_aside_with_the_reason(platform: Platform) -> None:
    platform.pool("bad")

    platform.log.publish("trainyard.jobs", "another-key", an_inline_run("bad", b"print()", "its-own-id"))

    def reasons() -> list[str]:
        return [event.message.error for event in platform.events("trainyard.deadletters") if isinstance(event.message, DeadLetter)]

    platform.until(lambda: any("must be the submission_id 'its-own-id'" in reason for reason in reasons()), "it is put aside")
    assert "its-own-id" not in {run.id for run in Experiment(platform.workspace, "system").get_runs()}


def test_garbage_on_the_heartbeat_topic_harms_nobody(platform: Platform) -> None:
    platform.pool("bad")
    pid = platform.pid("scheduler")

    platform.log.publish_raw(
        [NewRecord("trainyard.heartbeats", b"agent-0", b"\x00garbage"), NewRecord("trainyard.heartbeats", b"agent-0", None)]
    )
    after = f"after-{uuid.uuid4().hex[:8]}"
    platform.jobs.SubmitRun(an_inline_run("bad", b"print()", after))

    assert platform.until_status(after, "COMPLETED", "FAILED") == "COMPLETED"
    assert platform.pid("scheduler") == pid
