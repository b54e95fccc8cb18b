"""The agent's process: what it takes, puts aside and says that it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.chassis.records import NewRecord, Place, Record
from services.trainer_agent.agent import Agent
from services.trainer_agent.domain import Me
from services.trainer_agent.layout import Folders
from services.trainer_agent.ports import PreparationFailed
from services.trainer_agent.reporter import as_record
from trainyard._cloudevents import decode
from trainyard._objects import MemoryObjects
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import ArtifactSet
from trainyard.event.v1.dead_letter_pb2 import DeadLetter


class Reports:
    """What was reported; it lies in the log once `acknowledged` is set."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.last = asyncio.Event()
        self.acknowledged = asyncio.Event()

    def send(self, record: NewRecord) -> None:
        self.sent.append(decode(record.topic, 0, 0, record.key, record.value, record.headers).message)
        if isinstance(self.sent[-1], cluster.OutputsUploaded):
            self.last.set()

    async def flush(self) -> None:
        await self.acknowledged.wait()


class Parts:
    """A preparer that fails at once, and an object store that takes nothing."""

    async def prepare(self, *_: object) -> Any:
        raise PreparationFailed("SnapshotMissing", "train.py is not there")

    def save(self, *_: object) -> tuple[ArtifactSet, list[str]]:
        return ArtifactSet(), []

    def send(self, _: NewRecord) -> None:
        """Telemetry."""

    async def flush(self) -> None:
        """Nothing waits."""


class Beats:
    """The heartbeat topic."""

    def __init__(self) -> None:
        self.last: Any = None
        self.came = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def publish(self, records: Sequence[NewRecord]) -> list[tuple[Place, int]]:
        for record in records:
            self.last = decode(record.topic, 0, 0, record.key, record.value, record.headers).message
        self._loop.call_soon_threadsafe(self.came.set)
        return []

    def close(self) -> None:
        """Nothing is open."""

    async def next(self) -> list[tuple[str, int]]:
        self.came.clear()
        await asyncio.wait_for(self.came.wait(), 30)
        return [(held.run_id, held.epoch) for held in self.last.held]


def an_agent(home: Path, reports: Reports) -> Agent:
    parts = Parts()
    node: Any = SimpleNamespace(
        me=Me("agent-0", "first"),
        source="a test",
        address="",
        mark=str(home),
        grace_seconds=0,
        preparer=parts,
        outputs=parts,
        reports=reports,
        telemetry=parts,
        objects=MemoryObjects(),
        log=None,
    )
    return Agent(node, lambda run_id, epoch: Folders.make(home, "agent-0", run_id, epoch), cluster.AgentRegistered())


def an_offer(run_id: str) -> Record:
    message = cluster.LeaseOffered(run_id=run_id, epoch=1, agent_id="agent-0", incarnation="first", ranks=[0])
    sent = as_record("trainyard.leases", "agent-0", message, "a stranger")
    return Record(sent.topic, 0, 0, 0, sent.key, sent.value, sent.headers)


async def test_an_attempt_is_listed_as_held_until_its_last_report_lies_in_the_log(tmp_path: Path) -> None:
    reports, beats = Reports(), Beats()
    agent = an_agent(tmp_path, reports)
    beating = asyncio.create_task(agent.beat_for_ever(beats, 0.001))

    await agent.deliver(an_offer("run"))
    await asyncio.wait_for(reports.last.wait(), 30)
    await beats.next()
    meanwhile = await beats.next()
    reports.acknowledged.set()
    async with asyncio.timeout(30):
        while await beats.next():
            pass

    assert meanwhile == [("run", 1)]
    beating.cancel()


@pytest.mark.security
async def test_an_offer_of_what_is_no_run_id_is_put_aside_and_touches_no_folder(tmp_path: Path) -> None:
    victim = tmp_path / "victim.1"
    victim.mkdir()
    reports = Reports()

    await an_agent(tmp_path, reports).deliver(an_offer("../../victim"))

    (letter,) = reports.sent
    assert isinstance(letter, DeadLetter)
    assert letter.error.startswith("InvalidMessage: run_id '../../victim' is none")
    assert [path.name for path in tmp_path.iterdir()] == ["victim.1"]
