from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from services.chassis.records import NewRecord
from services.trainer_agent.adapters.checkpoints import Checkpoints
from services.trainer_agent.adapters.outputs import OutputStore
from services.trainer_agent.adapters.reserved_ports import Ports
from services.trainer_agent.attempt import Running
from services.trainer_agent.domain import Me
from services.trainer_agent.interpreting import ScriptPython
from services.trainer_agent.layout import Folders
from services.trainer_agent.node import Node
from services.trainer_agent.node_logs import NodeLogs, Phase, how_it_ended
from services.trainer_agent.ports import PreparationFailed
from services.trainer_agent.prepare import Prepared
from services.trainer_agent.reporter import Cause
from trainyard._cloudevents import decode
from trainyard._objects import MemoryObjects
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1.spec_pb2 import Distribution, RunSpec


class Reports:
    """A reporter that only keeps."""

    def __init__(self) -> None:
        self.records: list[NewRecord] = []

    def send(self, record: NewRecord) -> None:
        self.records.append(record)

    async def flush(self) -> None:
        """Nothing waits."""

    def messages(self) -> list[Any]:
        return [decode(it.topic, 0, 0, it.key, it.value, it.headers).message for it in self.records if it.topic == "trainyard.tasks"]


class Unprepared:
    async def prepare(self, *_: object) -> Any:
        raise PreparationFailed("SnapshotMissing", "train.py is not there", "train.py")


class Outputs:
    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def upload(self, *_: object) -> tuple[list[Artifact], list[str]]:
        if self._error is not None:
            raise self._error
        return [], []

    def listed(self, *_: object) -> ArtifactSet:
        return ArtifactSet()


class WithAFileNamedOutputs:
    async def prepare(self, _: object, folders: Folders, *__: object) -> Prepared:
        (folders.code / "outputs").write_text("mine")
        return Prepared(ScriptPython(Path(sys.executable), Path(sys.prefix)), {}, ())


class WithAScript:
    """Says what a preparation says, and puts the script where it is started."""

    def __init__(self, script: str) -> None:
        self._script = script

    async def prepare(self, _: object, folders: Folders, phase: Any, __: object, say: Any) -> Prepared:
        phase("snapshot", "", False)
        (folders.code / "train.py").write_text(self._script)
        say("data: 1 of 2 MB fetched")
        phase("snapshot", "1 files, 0 of them fetched", True)
        return Prepared(ScriptPython(Path(sys.executable), Path(sys.prefix), warnings=("careful",)), {}, ())


async def ran(
    tmp_path: Path, outputs: Any, preparer: Any = None, reports: Reports | None = None, objects: MemoryObjects | None = None, **offered: Any
) -> list[Any]:
    """What an attempt has reported at its end."""
    reports = reports or Reports()
    parts: Any = SimpleNamespace(preparer=preparer or Unprepared(), outputs=outputs, reports=reports, log=None)
    node = Node(
        me=Me("agent-0", "first"),
        address="127.0.0.1",
        mark=str(tmp_path),
        source="a test",
        grace_seconds=0.1,
        checkpoint_seconds=0.1,
        preparer=parts.preparer,
        ports=Ports("127.0.0.1", tmp_path / "ports"),
        make_ring=None,
        outputs=parts.outputs,
        checkpoints=Checkpoints(objects or MemoryObjects()),
        reports=parts.reports,
        telemetry=parts.reports,
        objects=MemoryObjects(),
        log=parts.log,
    )
    offer = cluster.LeaseOffered(run_id="run", epoch=1, **offered)
    offer.spec.entry_script = offer.spec.entry_script or "train.py"
    released: list[str] = []
    running = Running(node, offer, Cause(), Folders.make(tmp_path, "agent-0", "run", 1), lambda: released.append("run"))
    running.form(job.GangFormed(run_id="run", epoch=1, members=[job.GangMember(agent_id="agent-0", incarnation="first", ranks=[0])]))
    await asyncio.wait_for(running.task, 30)
    assert released
    return reports.messages()


async def test_a_run_that_cannot_be_prepared_is_told_and_let_go(tmp_path: Path) -> None:
    told = await ran(tmp_path, Outputs())

    assert [type(message) for message in told if not isinstance(message, cluster.TaskPhase)] == [
        cluster.LeaseAccepted,
        cluster.TaskFailed,
        cluster.OutputsUploaded,
    ]
    assert not told[-1].HasField("failure")


async def test_whatever_happens_to_the_outputs_the_end_is_told(tmp_path: Path) -> None:
    told = await ran(tmp_path, Outputs(RuntimeError("nobody expects it")))

    assert isinstance(told[-1], cluster.OutputsUploaded)
    assert told[-1].failure.code == "OutputsLost"
    assert "nobody expects it" in told[-1].failure.message


async def test_a_source_with_a_file_named_as_the_folder_of_results_is_a_fault_of_the_source(tmp_path: Path) -> None:
    told = await ran(tmp_path, Outputs(), WithAFileNamedOutputs())

    (failed,) = [message for message in told if isinstance(message, cluster.TaskFailed)]
    assert (failed.failure.code, failed.failure.target) == ("UserError", "outputs")
    assert "Rename it" in failed.failure.message


SCRIPT = """
import os, sys
open("outputs/weights", "w").write("1234")
os.symlink("/etc/passwd", "outputs/link")
print(sorted(name for name in os.environ if name.startswith("AZUREML_RUN_TOKEN")), flush=True)
sys.exit(3)
"""


def without_times(objects: MemoryObjects, name: str) -> list[str]:
    return [line.partition(" ")[2] for line in objects.kept[f"runs/run/1/azureml-logs/{name}"].decode().splitlines()]


async def test_a_node_keeps_what_it_did_around_the_script_and_how_its_process_ended(tmp_path: Path) -> None:
    objects, reports = MemoryObjects(), Reports()

    told = await ran(tmp_path, OutputStore(objects), WithAScript(SCRIPT), reports)

    saved = [file.path.removeprefix("azureml-logs/") for file in told[-1].outputs.files]
    assert saved == [
        "55_azureml-execution-agent-0.txt", "65_job_prep-agent-0.txt", "70_driver_log.txt", "75_job_post-agent-0.txt",
        "process_info.json", "process_status.json", "outputs/weights",
    ]  # fmt: skip
    assert without_times(objects, "65_job_prep-agent-0.txt") == [
        "snapshot: begins", "data: 1 of 2 MB fetched", "snapshot: done, 1 files, 0 of them fetched", "warning: careful",
    ]  # fmt: skip
    starts, process, ended = without_times(objects, "55_azureml-execution-agent-0.txt")
    assert starts == f"rank 0: starts {sys.executable} train.py" and ended == "rank 0: exited with code 3"
    assert without_times(objects, "75_job_post-agent-0.txt") == [
        "saves ./outputs and ./logs", "1 files with 4 bytes are saved, 1 warnings",
        "warning: 'outputs/link' was not saved: it is a link or no plain file",
    ]  # fmt: skip
    info, status = (json.loads(objects.kept[f"runs/run/1/azureml-logs/process_{it}.json"]) for it in ("info", "status"))
    assert {name: info[name] for name in ("runId", "attempt", "node")} == {"runId": "run", "attempt": 1, "node": "agent-0"}
    assert info["processes"][0]["command"] == [sys.executable, "train.py"]
    assert process == f"rank 0: is process {info['processes'][0]['processId']}"
    (rank,) = status["processes"]
    assert (rank["rank"], rank["status"], rank["exitCode"]) == (0, "Failed", 3)
    assert info["processes"][0]["startTimeUtc"] <= rank["endTimeUtc"]
    assert objects.kept["runs/run/1/azureml-logs/70_driver_log.txt"] == b"['AZUREML_RUN_TOKEN', 'AZUREML_RUN_TOKEN_EXPIRY']\n"


async def test_what_a_node_says_is_read_live_and_every_log_ends(tmp_path: Path) -> None:
    reports = Reports()

    await ran(tmp_path, OutputStore(MemoryObjects()), WithAScript("print('hello')"), reports)

    chunks = [decode(it.topic, 0, 0, it.key, it.value, it.headers).message for it in reports.records if it.topic == "trainyard.logs"]
    names = {chunk.log for chunk in chunks}  # type: ignore[attr-defined]
    assert len(names) == 4
    assert {chunk.log for chunk in chunks if chunk.last} == names  # type: ignore[attr-defined]


async def test_of_a_run_that_could_not_be_prepared_the_logs_say_why(tmp_path: Path) -> None:
    objects = MemoryObjects()

    await ran(tmp_path, OutputStore(objects))

    assert without_times(objects, "65_job_prep-agent-0.txt") == ["failed: train.py is not there"]
    assert json.loads(objects.kept["runs/run/1/azureml-logs/process_status.json"])["processes"] == []


RENEWS = """
import os
step = os.stat("outputs/rewritten")
open("outputs/renewed", "w").write("new")
open("outputs/same", "w").write("old")
os.remove("outputs/removed")
open("outputs/rewritten", "r+").write("new")
os.utime("outputs/rewritten", ns=(step.st_atime_ns, step.st_mtime_ns))
"""


def a_checkpoint(objects: MemoryObjects, *paths: str) -> ArtifactSet:
    objects.put_bytes("runs/run/0/blobs/old", b"old")
    digest = hashlib.sha256(b"old").hexdigest()
    return ArtifactSet(files=[Artifact(path=path, size_bytes=3, sha256=digest, object_key="runs/run/0/blobs/old") for path in paths])


def saved_paths(files: ArtifactSet) -> list[str]:
    return [file.path for file in files.files if file.path.startswith("outputs/")]


async def test_what_an_attempt_began_with_and_left_alone_is_told_apart_from_what_it_wrote(tmp_path: Path) -> None:
    objects = MemoryObjects()
    checkpoint = a_checkpoint(objects, "kept", "deep/kept", "renewed", "same", "removed", "rewritten")

    told = await ran(tmp_path, OutputStore(objects), WithAScript(RENEWS), objects=objects, checkpoint=checkpoint)

    assert saved_paths(told[-1].outputs) == ["outputs/renewed", "outputs/rewritten", "outputs/same"]
    assert saved_paths(told[-1].restored) == ["outputs/deep/kept", "outputs/kept"]


async def test_half_a_checkpoint_is_nothing_that_an_attempt_has_left(tmp_path: Path) -> None:
    objects = MemoryObjects()
    checkpoint = a_checkpoint(objects, "there", "gone")
    checkpoint.files[1].object_key = "runs/run/0/blobs/gone"

    told = await ran(tmp_path, OutputStore(objects), WithAScript(RENEWS), objects=objects, checkpoint=checkpoint)

    assert [it.failure.code for it in told if isinstance(it, cluster.TaskFailed)] == ["CheckpointMissing"]
    assert saved_paths(told[-1].outputs) == []
    assert not told[-1].HasField("restored")


async def test_nodes_of_one_run_never_write_over_each_others_files(tmp_path: Path) -> None:
    objects = MemoryObjects()

    await ran(tmp_path, OutputStore(objects), Unprepared(), spec=RunSpec(distribution=Distribution(node_count=2)), node_index=1)

    assert {key.rpartition("/")[2] for key in objects.kept} == {
        "65_job_prep-agent-0.txt", "75_job_post-agent-0.txt", "process_info-agent-0.json", "process_status-agent-0.json",
    }  # fmt: skip


def test_a_full_disk_stops_no_attempt_from_being_told() -> None:
    def full(_: str) -> Any:
        raise OSError(28, "No space left on device")

    logs = NodeLogs("agent-0", full)

    logs.say(Phase.EXECUTION, "rank 0: starts")
    logs.close()


@pytest.mark.parametrize(
    ("code", "timed_out", "stopped", "status", "words"),
    [
        (0, False, False, "Completed", "exited with code 0"),
        (2, False, False, "Failed", "exited with code 2"),
        (-9, False, False, "Failed", "was ended by signal 9"),
        (-15, False, True, "Canceled", "was ended by signal 15, when it was asked to stop"),
        (-15, True, False, "TimedOut", "was ended by signal 15, after its time limit"),
    ],
)
def test_the_end_of_a_process_is_told_with_its_cause(code: int, timed_out: bool, stopped: bool, status: str, words: str) -> None:
    assert how_it_ended(code, timed_out=timed_out, stopped=stopped) == (status, words)


@pytest.mark.security
async def test_a_forged_time_limit_that_is_no_time_breaks_its_attempt_alone(tmp_path: Path) -> None:
    endless = RunSpec(entry_script="train.py", max_duration=Duration(seconds=2**62))

    told = await ran(tmp_path, OutputStore(MemoryObjects()), WithAScript("print()"), spec=endless)

    (failed,) = [message for message in told if isinstance(message, cluster.TaskFailed)]
    assert failed.failure.code == "NodeError"
    assert isinstance(told[-1], cluster.OutputsUploaded)
