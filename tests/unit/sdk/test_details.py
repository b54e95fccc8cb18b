from __future__ import annotations

import shlex
from datetime import UTC, datetime

import pytest

from trainyard._details import details
from trainyard._errors import UserErrorException
from trainyard._history import wanted
from trainyard._moments import as_of as moment
from trainyard.dataset.v1.dataset_pb2 import SourceFile
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.history.v1.history_pb2 import Attempt, Place, RunView
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1.spec_pb2 import Argument, DatasetInput, Distribution, EnvironmentSpec, Horovod, RunSpec, TensorflowCluster

KEYS = {
    "runId",
    "target",
    "status",
    "startTimeUtc",
    "properties",
    "inputDatasets",
    "outputDatasets",
    "runDefinition",
    "logFiles",
    "submittedBy",
    "trainyard",
}


def a_view(**more: object) -> RunView:
    spec = RunSpec(
        compute_target="gpucluster",
        entry_script="train.py",
        arguments=[Argument(text="--data"), Argument(input="mnist")],
        environment=EnvironmentSpec(framework="tensorflow", pip_packages=["six"], name="mine", version=3),
        inputs=[DatasetInput(name="mnist", dataset="mnist dataset", version=2, mode=DatasetInput.MODE_DOWNLOAD)],
    )
    run = job.Run(run_id="r_1", status=job.RUN_STATUS_COMPLETED, epoch=1, spec=spec, **more)  # type: ignore[arg-type]
    return RunView(run=run)


def test_all_keys_are_there_with_the_definition_in_full() -> None:
    found = details(a_view(), {"azureml-logs/70_driver_log.txt": "http://store/x"})

    assert set(found) == KEYS
    assert found["logFiles"] == {"azureml-logs/70_driver_log.txt": "http://store/x"}
    assert found["inputDatasets"][0]["dataset"] == {"id": "mnist dataset:2", "name": "mnist dataset", "version": 2}
    assert found["inputDatasets"][0]["consumptionDetails"]["mechanism"] == "Download"
    definition = found["runDefinition"]
    assert (definition["script"], definition["arguments"]) == ("train.py", ["--data", "DatasetConsumptionConfig:mnist"])
    assert (definition["environment"]["name"], definition["environment"]["version"]) == ("mine", "3")
    assert definition["docker"]["shmSize"] == "2g"
    assert definition["history"]["directoriesToWatch"] == ["logs"]


def test_a_distributed_run_is_shown_as_azure_did_and_its_attempts_beside_that() -> None:
    view = a_view()
    view.run.spec.distribution.CopyFrom(Distribution(node_count=2, tensorflow=TensorflowCluster(worker_count=3, parameter_server_count=2)))
    view.run.spec.user = "ann"
    ring = a_view()
    ring.run.spec.distribution.CopyFrom(Distribution(node_count=4, process_count_per_node=2, horovod=Horovod()))
    failure = Failure(code="ScriptFailed", message="exited with 3", rank=1, exit_code=3)
    view.attempts.add(epoch=1, outcome=Attempt.OUTCOME_RESTARTED, failure=failure, checkpoints=2, checkpoint=Attempt.Checkpoint(number=2))

    found, other = details(view, {}), details(ring, {})["runDefinition"]

    definition = found["runDefinition"]
    assert (definition["communicator"], definition["nodeCount"]) == ("ParameterServer", 2)
    assert definition["tensorflow"] == {"workerCount": 3, "parameterServerCount": 2}
    assert (other["communicator"], other["nodeCount"], other["mpi"]) == ("IntelMpi", 4, {"processCountPerNode": 2})
    assert found["submittedBy"] == "ann"
    (attempt,) = found["trainyard"]["attempts"]
    assert (attempt["outcome"], attempt["firstCause"]["rank"], attempt["newestCheckpoint"]["number"]) == ("Restarted", 1, 2)


@pytest.mark.parametrize(
    ("said", "environment", "shown"), [("", "", "Python"), ("", "tensorflow", "TensorFlow"), ("PyTorch", "none", "PyTorch")]
)
def test_the_framework_is_what_the_submitter_said_or_else_the_environments(said: str, environment: str, shown: str) -> None:
    view = RunView(run=job.Run(spec=RunSpec(framework=said, environment=EnvironmentSpec(framework=environment))))

    assert details(view, {})["runDefinition"]["framework"] == shown


def test_git_state_is_shown_under_both_names() -> None:
    git = {
        "azureml.git.commit": "abc",
        "azureml.git.branch": "main",
        "azureml.git.repository_uri": "http://host/x.git",
        "azureml.git.dirty": "True",
    }

    found = details(a_view(properties=git), {})["properties"]

    assert {name: found[name] for name in git} == git
    assert found["mlflow.source.git.commit"] == "abc"
    assert found["mlflow.source.git.repoURL"] == "http://host/x.git"
    assert len(found["AzureML.DerivedImageName"]) == len("trainyard/") + 32


def test_where_its_processes_are_told_of_is_named_for_runs_with_nodes_alone() -> None:
    found, opened = (details(a_view(opened=it), {})["properties"] for it in (False, True))

    assert (found["ProcessInfoFile"], found["ProcessStatusFile"]) == ("azureml-logs/process_info.json", "azureml-logs/process_status.json")
    assert not {"ProcessInfoFile", "ProcessStatusFile"} & opened.keys()


def test_an_error_has_azures_whole_shape() -> None:
    failure = Failure(code="ScriptFailed", message="exited with code 3", target="train.py", last_lines=["ValueError"], rank=0, exit_code=3)
    ours = [Failure(code=code, message="the node is gone") for code in ("AgentLost", "OutputsLost", "NodeError")]

    error = details(a_view(failure=failure, agent_ids=["agent-0"]), {})["error"]

    assert set(error) == {"error", "correlation", "environment", "location", "time"}
    assert (error["error"]["code"], error["error"]["innerError"]["code"]) == ("UserError", "ScriptFailed")
    assert error["error"]["messageParameters"] == {"rank": "0", "exitCode": "3"}
    assert error["correlation"]["operation"] == "r_1"
    assert {details(a_view(failure=it), {})["error"]["error"]["code"] for it in ours} == {"ServiceError"}


def test_a_command_is_shown_as_a_shell_would_take_it() -> None:
    view = a_view()
    view.run.spec.command.extend(["python", "a b.py"])

    assert shlex.split(details(view, {})["runDefinition"]["command"]) == ["python", "a b.py"]


def test_a_moment_is_a_time_or_a_record() -> None:
    assert moment(None) is None
    assert moment("2026-01-02T03:04:05").time.ToDatetime(UTC) == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert moment("2026-01-02T03:04:05+01:00").time.ToDatetime(UTC) == datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC)
    assert moment("trainyard.jobs/3@120").place == Place(topic="trainyard.jobs", partition=3, offset=120)


@pytest.mark.parametrize("text", ["yesterday", "trainyard.jobs@3", "a/b@c", "/1@2"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(UserErrorException, match="record"):
        moment(text)


def test_a_filter_is_a_name_or_names_with_values() -> None:
    assert wanted(None) == {}
    assert wanted("best") == {"best": ""}
    assert wanted({"layers": 3}) == {"layers": "3"}


def test_a_path_of_a_datastore_is_a_data_reference_and_no_dataset() -> None:
    view = a_view()
    url = "datastore://workspaceartifactstore/ExperimentRun/dcid.r_0/outputs"
    folder = [SourceFile(url=f"{url}/model/a", path="model/a"), SourceFile(url=f"{url}/b", path="b")]
    view.run.spec.inputs.add(name="resume_from", mode=DatasetInput.MODE_MOUNT, files=folder, always_folder=True)
    view.run.spec.inputs.add(name="one", mode=DatasetInput.MODE_DOWNLOAD, files=[SourceFile(url="datastore://blob/x/y.gz", path="y.gz")])
    view.run.spec.inputs.add(name="empty", always_folder=True)
    view.run.spec.inputs.add(name="loose", files=[SourceFile(url="http://host/a", path="a")])
    view.run.spec.arguments.add(input="resume_from")

    found = details(view, {})

    assert [item["consumptionDetails"]["inputName"] for item in found["inputDatasets"]] == ["mnist", "loose"]
    definition = found["runDefinition"]
    assert definition["dataReferences"] == {
        "resume_from": {
            "dataStoreName": "workspaceartifactstore", "mode": "Mount", "pathOnDataStore": "ExperimentRun/dcid.r_0/outputs",
            "pathOnCompute": None, "overwrite": False,
        },
        "one": {"dataStoreName": "blob", "mode": "Download", "pathOnDataStore": "x/y.gz", "pathOnCompute": None, "overwrite": False},
        "empty": {"dataStoreName": None, "mode": "Mount", "pathOnDataStore": None, "pathOnCompute": None, "overwrite": False},
    }  # fmt: skip
    assert definition["data"] == {
        "mnist": {"dataLocation": {"dataset": {"name": "mnist dataset", "version": 2}}},
        "loose": {"dataLocation": {"dataset": {"name": None, "version": None}}},
    }
    assert definition["arguments"][-1] == "$AZUREML_DATAREFERENCE_resume_from"
