from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from services.chassis.records import NewRecord
from services.trainer_agent.adapters.checkpoints import Checkpoints
from services.trainer_agent.adapters.reserved_ports import Ports
from services.trainer_agent.attempt import Running
from services.trainer_agent.domain import Me
from services.trainer_agent.interpreting import ScriptPython
from services.trainer_agent.layout import Folders
from services.trainer_agent.node import Node
from services.trainer_agent.ports import PreparationFailed
from services.trainer_agent.prepare import Prepared
from services.trainer_agent.reporter import Cause
from trainyard._cloudevents import decode
from trainyard._objects import MemoryObjects
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import ArtifactSet
from trainyard.job.v1 import job_pb2 as job


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

    def save(self, *_: object) -> tuple[ArtifactSet, list[str]]:
        if self._error is not None:
            raise self._error
        return ArtifactSet(), []


class WithAFileNamedOutputs:
    async def prepare(self, _: object, folders: Folders, *__: object) -> Prepared:
        (folders.code / "outputs").write_text("mine")
        return Prepared(ScriptPython(Path(sys.executable), Path(sys.prefix)), {}, ())


async def ran(tmp_path: Path, outputs: Outputs, preparer: Any = None) -> list[Any]:
    """What an attempt that could not be prepared has reported at its end."""
    reports = Reports()
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
        checkpoints=Checkpoints(MemoryObjects()),
        reports=parts.reports,
        telemetry=parts.reports,
        objects=MemoryObjects(),
        log=parts.log,
    )
    offer = cluster.LeaseOffered(run_id="run", epoch=1)
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
