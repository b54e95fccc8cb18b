"""One node's part of a gang, its ranks real processes: what they are told, what is told of them, and how they end."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from services.chassis.records import NewRecord
from services.trainer_agent.adapters.checkpoints import Checkpoints
from services.trainer_agent.adapters.outputs import OutputStore
from services.trainer_agent.adapters.reserved_ports import Ports
from services.trainer_agent.attempt import Running
from services.trainer_agent.domain import Me
from services.trainer_agent.interpreting import ScriptPython
from services.trainer_agent.layout import Folders
from services.trainer_agent.node import Node
from services.trainer_agent.node_logs import name_of
from services.trainer_agent.prepare import Prepared
from services.trainer_agent.reporter import Cause
from trainyard._cloudevents import decode
from trainyard._gang import tasks
from trainyard._objects import MemoryObjects
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1.spec_pb2 import Distribution, Horovod, RunSpec, TensorflowCluster
from trainyard.job.v1.telemetry_pb2 import MetricBatch

# A rank that waits for its siblings by way of the folder that they share, then does what its number says.
_TOGETHER = """
import os, sys, time
rank = os.environ["OMPI_COMM_WORLD_RANK"]
open(f"outputs/{rank}", "w").write(os.environ["CUDA_VISIBLE_DEVICES"])
while len(os.listdir("outputs")) < int(os.environ["OMPI_COMM_WORLD_LOCAL_SIZE"]):
    time.sleep(0.01)
print("rank", rank)
"""
_ONE_FAILS = _TOGETHER + "sys.exit('broken') if rank == '1' else time.sleep(600)"
_LOGS_TWICE = """
import os, time
from trainyard import Run
run = Run.get_context()
run.log("x", 1)
run.flush()
open("logs/ready", "w")
while os.path.exists("logs/ready"):
    time.sleep(0.01)
run.log("x", 2)
run.flush()
time.sleep(600)
"""
_SAVES_AND_WAITS = """
import os, signal, sys, time
print(os.listdir("outputs"))
open("outputs/step", "w").write("7")
def end(*_):
    open("outputs/last", "w").write("8")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
open("logs/ready", "w")
time.sleep(600)
"""


class Reports:
    """Keeps what is reported; `until` waits for something."""

    behind = 0

    def __init__(self) -> None:
        self.all: list[Any] = []
        self._news = asyncio.Condition()

    def send(self, record: NewRecord) -> None:
        self.all.append(decode(record.topic, 0, 0, record.key, record.value, record.headers).message)
        self._telling = asyncio.ensure_future(self._tell())

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def flush(self) -> None:
        """Nothing waits."""

    async def until(self, kind: type[Any], count: int = 1) -> list[Any]:
        async with asyncio.timeout(60), self._news:
            await self._news.wait_for(lambda: len(self.of(kind)) >= count)
        return self.of(kind)

    def of(self, kind: type[Any]) -> list[Any]:
        return [it for it in self.all if isinstance(it, kind)]


class FakeRing:
    def __init__(self) -> None:
        self.served: tuple[str, int, str] | None = None
        self.rounds: list[int] = []
        self.closed = False

    async def start(self, address: str, port: int, secret: str) -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), address, port)
        server.close()
        self.served = address, port, secret

    def formed(self, gang: Any) -> None:
        self.rounds.append(gang.round)

    def variables(self, gang: Any, rank: int) -> Mapping[str, str]:
        return {"HOROVOD_RANK": str(rank)}

    async def close(self) -> None:
        self.closed = True


class Preparer:
    """The script's folder has one script."""

    def __init__(self, script: str) -> None:
        self._script = script

    async def prepare(self, _: object, folders: Folders, *__: object) -> Prepared:
        (folders.code / "train.py").write_text(self._script)
        return Prepared(ScriptPython(Path(sys.executable), Path(sys.prefix)), {}, ())


class ANode:
    def __init__(self, root: Path, script: str) -> None:
        self.reports, self.telemetry, self.objects, self.ring = Reports(), Reports(), MemoryObjects(), FakeRing()
        self.folders: Folders | None = None
        self._root = root
        self._node = Node(
            me=Me("agent-0", "first"),
            address="127.0.0.1",
            mark=str(root),
            source="a test",
            grace_seconds=30,
            checkpoint_seconds=0.05,
            preparer=Preparer(script),  # type: ignore[arg-type]
            ports=Ports("127.0.0.1", root / "ports"),
            make_ring=lambda elastic: self.ring,
            outputs=OutputStore(self.objects),
            checkpoints=Checkpoints(self.objects),
            reports=self.reports,  # type: ignore[arg-type]
            telemetry=self.telemetry,  # type: ignore[arg-type]
            objects=self.objects,
            log=None,  # type: ignore[arg-type]
        )

    def takes(self, spec: Any, node_index: int = 0, **offer: Any) -> Running:
        spec.entry_script = "train.py"
        ranks = [task.rank for task in tasks(spec.distribution) if task.node == node_index]
        offered = cluster.LeaseOffered(run_id="run", epoch=1, node_index=node_index, ranks=ranks, spec=spec, **offer)
        self.folders = Folders.make(self._root, "agent-0", "run", 1, node_index)
        return Running(self._node, offered, Cause(), self.folders, lambda: None)

    def gang(self, running: Running, number: int = 1, ranks: list[int] | None = None) -> Any:
        """Of this node and, where there are two, a neighbour."""
        told = self.reports.of(cluster.TaskPrepared)[-1]
        formed = job.GangFormed(run_id="run", epoch=1, round=number)
        for node in range(running.offer.spec.distribution.node_count or 1):
            is_mine = node == running.offer.node_index
            mine = ranks if is_mine and ranks is not None else [it.rank for it in tasks(running.offer.spec.distribution) if it.node == node]
            formed.members.add(
                agent_id=f"agent-{node}",
                incarnation="first" if is_mine else "another",
                address=told.address,
                ports=told.ports if is_mine else range(50000, 50000 + len(mine)),
                ranks=mine,
            )
        return formed

    def files(self, saved: Any) -> dict[str, str]:
        return {file.path: self.objects.get_bytes(file.object_key).decode() for file in saved.outputs.files}

    def left(self, saved: Any) -> dict[str, str]:
        """Without what the node itself tells."""
        own = re.compile("azureml-logs/(55_|65_|75_|process_)")
        return {path: content for path, content in self.files(saved).items() if not own.match(path)}

    async def runs(self, running: Running) -> None:
        await self.reports.until(cluster.TaskPrepared)
        running.form(self.gang(running))


def a_ring(nodes: int = 1, each: int = 2, **more: Any) -> Any:
    return RunSpec(distribution=Distribution(node_count=nodes, process_count_per_node=each), **more)


async def is_true(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_all_ranks_of_a_node_run_in_one_folder_each_with_its_own_log_and_device(tmp_path: Path) -> None:
    node = ANode(tmp_path, _TOGETHER)
    running = node.takes(a_ring(), gpus=[4, 6])

    await node.runs(running)
    await asyncio.wait_for(running.task, 60)

    (saved,) = node.reports.of(cluster.OutputsUploaded)
    assert node.left(saved) == {
        "outputs/0": "4",
        "outputs/1": "6",
        "azureml-logs/70_driver_log_0.txt": "rank 0\n",
        "azureml-logs/70_driver_log_1.txt": "rank 1\n",
    }
    assert sorted((it.rank, it.exit_code, it.stopped) for it in node.reports.of(cluster.TaskExited)) == [(0, 0, False), (1, 0, False)]


async def test_a_rank_that_fails_is_told_at_once_and_takes_its_siblings_along(tmp_path: Path) -> None:
    node = ANode(tmp_path, _ONE_FAILS)
    running = node.takes(a_ring(each=3))

    await node.runs(running)
    await asyncio.wait_for(running.task, 60)

    first, *others = node.reports.of(cluster.TaskExited)
    assert (first.rank, first.exit_code, first.stopped, list(first.last_lines)) == (1, 1, False, ["rank 1", "broken"])
    assert sorted((it.rank, it.exit_code, it.stopped) for it in others) == [(0, -15, True), (2, -15, True)]
    assert all(first.exited_at.ToNanoseconds() <= it.exited_at.ToNanoseconds() for it in others)


async def test_a_rank_that_cannot_start_leaves_no_sibling_behind(tmp_path: Path) -> None:
    node = ANode(tmp_path, "")
    spec = a_ring()
    spec.command.extend(["./not-there"])

    running = node.takes(spec)
    await node.runs(running)
    await asyncio.wait_for(running.task, 60)

    (failed,) = node.reports.of(cluster.TaskFailed)
    assert failed.failure.code == "ScriptNotStarted"


async def test_ranks_that_are_stopped_by_the_platform_did_not_fail(tmp_path: Path) -> None:
    node = ANode(tmp_path, "import time; time.sleep(600)")
    spec = RunSpec(distribution=Distribution(tensorflow=TensorflowCluster(worker_count=1, parameter_server_count=1)))
    running = node.takes(spec)
    await node.runs(running)
    await node.reports.until(cluster.TaskStarted, 2)

    running.stop()
    await asyncio.wait_for(running.task, 60)

    assert sorted((it.rank, it.stopped, it.timed_out) for it in node.reports.of(cluster.TaskExited)) == [(0, True, False), (1, True, False)]


async def test_a_rank_past_its_time_is_a_failure_and_its_siblings_are_stopped(tmp_path: Path) -> None:
    node = ANode(tmp_path, "import time; time.sleep(600)")
    spec = a_ring()
    spec.max_duration.FromMilliseconds(100)
    running = node.takes(spec)

    await node.runs(running)
    await asyncio.wait_for(running.task, 60)

    ends = node.reports.of(cluster.TaskExited)
    assert len(ends) == 2 and ends[0].timed_out and not ends[0].stopped
    assert ends[1].timed_out or ends[1].stopped


async def test_ports_are_reserved_when_the_node_is_prepared_and_free_for_the_ranks(tmp_path: Path) -> None:
    script = """
import json, os, socket
config = json.loads(os.environ["TF_CONFIG"])
host, port = config["cluster"][config["task"]["type"]][config["task"]["index"]].split(":")
socket.create_server((host, int(port))).close()
"""
    node = ANode(tmp_path, script)
    running = node.takes(RunSpec(distribution=Distribution(tensorflow=TensorflowCluster(worker_count=2, parameter_server_count=1))))

    await node.runs(running)
    await asyncio.wait_for(running.task, 60)

    (prepared,) = node.reports.of(cluster.TaskPrepared)
    assert (prepared.address, len(set(prepared.ports)), prepared.secret) == ("127.0.0.1", 3, "")
    assert [it.exit_code for it in node.reports.of(cluster.TaskExited)] == [0, 0, 0]


async def test_a_node_beside_the_first_saves_below_a_prefix_of_its_own(tmp_path: Path) -> None:
    node = ANode(tmp_path, _TOGETHER)
    running = node.takes(a_ring(nodes=2), node_index=1)

    await node.runs(running)
    await asyncio.wait_for(running.task, 60)

    (saved,) = node.reports.of(cluster.OutputsUploaded)
    assert {file.path: file.object_key for file in saved.outputs.files} == {
        path: f"runs/run/1/nodes/1/{path}"
        for path in (
            "azureml-logs/55_azureml-execution-agent-0.txt",
            "azureml-logs/70_driver_log_2.txt",
            "azureml-logs/70_driver_log_3.txt",
            "azureml-logs/75_job_post-agent-0.txt",
            "azureml-logs/process_info-agent-0.json",
            "azureml-logs/process_status-agent-0.json",
            "outputs/2",
            "outputs/3",
        )
    }


@pytest.mark.parametrize(("node_index", "suffix"), [(0, ""), (1, "-agent-0")])
async def test_a_node_tells_of_each_of_its_ranks_and_only_of_those(tmp_path: Path, node_index: int, suffix: str) -> None:
    node = ANode(tmp_path, "import os, sys; sys.exit(0 if os.environ['OMPI_COMM_WORLD_RANK'] in '02' else 3)")
    running = node.takes(a_ring(nodes=2), node_index)

    await node.runs(running)
    await asyncio.wait_for(running.task, 60)

    (saved,) = node.reports.of(cluster.OutputsUploaded)
    exits = {it.rank: it for it in node.reports.of(cluster.TaskExited)}
    mine = [2 * node_index, 2 * node_index + 1]
    info, status = (json.loads(node.files(saved)[f"azureml-logs/process_{it}{suffix}.json"])["processes"] for it in ("info", "status"))
    assert [it["rank"] for it in info] == [it["rank"] for it in status] == sorted(exits) == mine
    assert [it["exitCode"] for it in status] == [exits[rank].exit_code for rank in mine]
    assert status[1]["status"] == "Failed"
    execution = node.files(saved)["azureml-logs/55_azureml-execution-agent-0.txt"]
    assert all(f"rank {it['rank']}: is process {it['processId']}\n" in execution for it in info)
    assert f"rank {mine[1]}: exited with code 3\n" in execution


async def test_a_rank_whose_sibling_failed_is_kept_as_stopped_and_not_as_failed(tmp_path: Path) -> None:
    node = ANode(tmp_path, _ONE_FAILS)
    running = node.takes(a_ring())

    await node.runs(running)
    await asyncio.wait_for(running.task, 60)

    (saved,) = node.reports.of(cluster.OutputsUploaded)
    status = json.loads(node.files(saved)["azureml-logs/process_status.json"])["processes"]
    assert [(it["rank"], it["status"], it["exitCode"]) for it in status] == [(0, "Canceled", -15), (1, "Failed", 1)]


async def test_what_a_node_puts_back_before_the_start_is_in_its_log_of_the_preparation(tmp_path: Path) -> None:
    node = ANode(tmp_path, "print()")
    node.objects.put_bytes("runs/run/0/step", b"7")
    digest = hashlib.sha256(b"7").hexdigest()
    before = ArtifactSet(files=[Artifact(path="step", size_bytes=1, sha256=digest, object_key="runs/run/0/step")])
    running = node.takes(a_ring(each=1), checkpoint=before)

    await node.runs(running)
    await asyncio.wait_for(running.task, 60)

    (saved,) = node.reports.of(cluster.OutputsUploaded)
    lines = node.files(saved)["azureml-logs/65_job_prep-agent-0.txt"].splitlines()
    assert [line.partition(" ")[2] for line in lines] == ["checkpoint: begins, 1 files", "checkpoint: done, 1 files"]


def test_who_comes_to_an_elastic_gang_again_has_files_of_another_name_than_before() -> None:
    spec = RunSpec(distribution=Distribution(node_count=1, horovod=Horovod(min_nodes=1, max_nodes=2)))

    assert [name_of("a", cluster.LeaseOffered(spec=spec, node_index=index)) for index in (0, 1, 2)] == ["a", "a-1", "a-2"]


# -- rings


async def test_the_first_node_of_a_ring_serves_its_rendezvous_before_it_is_prepared(tmp_path: Path) -> None:
    node = ANode(tmp_path, "import os; print(os.environ['HOROVOD_RANK'])")
    running = node.takes(RunSpec(distribution=Distribution(process_count_per_node=2, horovod=Horovod())))

    (prepared,) = await node.reports.until(cluster.TaskPrepared)
    running.form(node.gang(running))
    await asyncio.wait_for(running.task, 60)

    assert node.ring.served == ("127.0.0.1", prepared.ports[2], prepared.secret)
    assert len(prepared.secret) == 32 and len(prepared.ports) == 3
    assert [list(it.last_lines) for it in sorted(node.reports.of(cluster.TaskExited), key=lambda it: it.rank)] == [["0"], ["1"]]
    assert node.ring.closed


async def test_another_node_of_a_ring_serves_none(tmp_path: Path) -> None:
    node = ANode(tmp_path, "")
    running = node.takes(RunSpec(distribution=Distribution(node_count=2, horovod=Horovod())), node_index=1)

    (prepared,) = await node.reports.until(cluster.TaskPrepared)

    assert (node.ring.served, prepared.secret, len(prepared.ports)) == (None, "", 1)
    running.discard()
    await asyncio.wait_for(running.task, 60)


async def test_a_later_round_goes_to_the_ring_and_numbers_the_same_processes_anew(tmp_path: Path) -> None:
    node = ANode(tmp_path, _LOGS_TWICE)
    elastic = Distribution(node_count=2, horovod=Horovod(min_nodes=1))
    running = node.takes(RunSpec(distribution=elastic), node_index=1)
    await node.runs(running)
    assert node.folders is not None
    await is_true((node.folders.code / "logs" / "ready").exists)

    running.form(node.gang(running, number=2, ranks=[0]))
    (node.folders.code / "logs" / "ready").unlink()
    await node.telemetry.until(MetricBatch, 2)
    running.stop()
    await asyncio.wait_for(running.task, 60)

    assert node.ring.rounds == [1, 2]
    assert [it.rank for it in node.telemetry.of(MetricBatch)] == [1, 0]
    assert [(it.rank, it.stopped) for it in node.reports.of(cluster.TaskExited)] == [(0, True)]


# -- checkpoints


def a_checkpoint(objects: MemoryObjects) -> ArtifactSet:
    objects.put_bytes("runs/run/0/checkpoints/blobs/x", b"6")
    digest = "e7f6c011776e8db7cd330b54174fd76f7d0216b612387a5ffcfb81e6f0919683"
    return ArtifactSet(files=[Artifact(path="step", size_bytes=1, sha256=digest, object_key="runs/run/0/checkpoints/blobs/x")])


async def test_an_attempt_begins_with_the_checkpoint_and_what_it_saves_is_mirrored_to_the_last(tmp_path: Path) -> None:
    node = ANode(tmp_path, _SAVES_AND_WAITS)
    running = node.takes(RunSpec(max_restarts=1), checkpoint=a_checkpoint(node.objects))
    await node.runs(running)
    assert node.folders is not None
    await is_true((node.folders.code / "logs" / "ready").exists)
    await is_true(lambda: any(told.checkpoint.files[0].sha256.startswith("7902") for told in node.reports.of(cluster.CheckpointSaved)))

    running.stop()
    await asyncio.wait_for(running.task, 60)

    told = node.reports.of(cluster.CheckpointSaved)
    assert [it.number for it in told] == list(range(1, len(told) + 1))
    last = {file.path: node.objects.get_bytes(file.object_key) for file in told[-1].checkpoint.files}
    assert last == {"step": b"7", "last": b"8"}
    assert all(file.object_key.startswith("runs/run/1/checkpoints/blobs/") for file in told[-1].checkpoint.files)
    (ended,) = node.reports.of(cluster.TaskExited)
    assert list(ended.last_lines) == ["['step']"]


async def test_a_run_that_never_begins_again_is_not_mirrored(tmp_path: Path) -> None:
    node = ANode(tmp_path, "open('outputs/a', 'w')")
    running = node.takes(RunSpec())

    await node.runs(running)
    await asyncio.wait_for(running.task, 60)

    assert node.reports.of(cluster.CheckpointSaved) == []


async def test_only_rank_0s_node_mirrors(tmp_path: Path) -> None:
    node = ANode(tmp_path, "open('outputs/a', 'w')")
    running = node.takes(a_ring(nodes=2, max_restarts=1), node_index=1)

    await node.runs(running)
    await asyncio.wait_for(running.task, 60)

    assert node.reports.of(cluster.CheckpointSaved) == []


async def test_a_node_that_leaves_saves_a_checkpoint_and_says_nothing_else(tmp_path: Path) -> None:
    node = ANode(tmp_path, _SAVES_AND_WAITS)
    running = node.takes(RunSpec(checkpoint_folder="outputs"))
    await node.runs(running)
    assert node.folders is not None
    await is_true((node.folders.code / "logs" / "ready").exists)
    before = [it for it in node.reports.all if not isinstance(it, cluster.CheckpointSaved)]

    running.leave()
    await asyncio.wait_for(running.task, 60)

    last = node.reports.of(cluster.CheckpointSaved)[-1]
    assert [file.path for file in last.checkpoint.files] == ["last", "step"]
    assert [it for it in node.reports.all if not isinstance(it, cluster.CheckpointSaved)] == before


@pytest.mark.security
async def test_a_discarded_attempt_writes_nothing_more(tmp_path: Path) -> None:
    node = ANode(tmp_path, _SAVES_AND_WAITS)
    running = node.takes(RunSpec(max_restarts=1))
    await node.runs(running)
    assert node.folders is not None
    await is_true((node.folders.code / "logs" / "ready").exists)

    running.discard()
    said = len(node.reports.all)
    await asyncio.wait_for(running.task, 60)

    assert len(node.reports.all) == said
    assert not node.folders.root.exists()


async def test_a_checkpoint_folder_that_is_a_file_of_the_source_is_named(tmp_path: Path) -> None:
    node = ANode(tmp_path, "")
    running = node.takes(RunSpec(checkpoint_folder="train.py/model"))

    await asyncio.wait_for(running.task, 60)

    (failed,) = node.reports.of(cluster.TaskFailed)
    assert (failed.failure.code, failed.failure.target) == ("UserError", "train.py/model")


async def test_a_gang_that_makes_no_sense_ends_no_agent_and_the_attempt_says_so(tmp_path: Path) -> None:
    node = ANode(tmp_path, "")
    running = node.takes(RunSpec(distribution=Distribution(tensorflow=TensorflowCluster(worker_count=1))))
    await node.reports.until(cluster.TaskPrepared)
    formed = node.gang(running)
    del formed.members[0].ports[:]

    running.form(formed)
    await asyncio.wait_for(running.task, 60)

    (failed,) = node.reports.of(cluster.TaskFailed)
    assert failed.failure.code == "NodeError"


async def test_a_gang_that_is_formed_after_the_stop_starts_nothing(tmp_path: Path) -> None:
    node = ANode(tmp_path, "")
    running = node.takes(RunSpec(max_restarts=1))
    await node.reports.until(cluster.TaskPrepared)
    formed = node.gang(running)

    running.stop()
    running.form(formed)
    await asyncio.wait_for(running.task, 60)

    assert not node.reports.of(cluster.TaskStarted) and node.reports.of(cluster.OutputsUploaded)
