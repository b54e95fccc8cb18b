"""The agent: one node's part in the platform. Leases come in as events, reports go out as events; nobody calls it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import structlog

from services.chassis.dead_letters import as_letter
from services.chassis.records import Publisher, Record, Unavailable
from services.trainer_agent import domain
from services.trainer_agent.attempt import Node, Running
from services.trainer_agent.domain import Accept, Decline, End, Leases, Start, Stop
from services.trainer_agent.layout import Folders
from services.trainer_agent.reporter import Cause, as_record
from trainyard._cloudevents import Undecodable, UnknownType, decode
from trainyard.cluster.v1 import cluster_pb2 as cluster

log = structlog.get_logger()
REPORT_TOPIC, AGENT_TOPIC, HEARTBEAT_TOPIC = "trainyard.tasks", "trainyard.agents", "trainyard.heartbeats"


def registered(resources: Any, gpus: Sequence[Any], *, pool: str, host: str, labels: Mapping[str, str]) -> Any:
    """What an AgentRegistered says of the node, whoever the process is. Labels of its owner go before those that it has by itself."""
    names = sorted({gpu.name for gpu in gpus})
    own = {"host": host, **({"gpu.name": ", ".join(names)} if names else {})}
    return cluster.AgentRegistered(resources=resources, gpus=gpus, pool=pool, labels=own | dict(labels))


class Agent:
    """`ended` resolves when the process is not wanted any more."""

    def __init__(self, node: Node, make_folders: Callable[[str, int], Folders], registration: Any) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._node = node
        self._me = node.me
        self._make_folders = make_folders
        self._registration = registration
        self._leases = Leases()
        self._running: dict[str, Running] = {}
        self._untold: set[tuple[str, int]] = set()
        """Attempts whose last report is not known to lie in the log: to the scheduler they are held still."""
        self._beat_now = asyncio.Event()

    def register(self) -> None:
        """Told once the lease topic is being read: an offer that follows is never missed."""
        message = cluster.AgentRegistered(agent_id=self._me.agent_id, incarnation=self._me.incarnation, address=self._node.address)
        message.MergeFrom(self._registration)
        self._node.reports.send(as_record(AGENT_TOPIC, self._me.agent_id, message, self._node.source))
        log.info("registers", incarnation=self._me.incarnation)

    async def deliver(self, *records: Record) -> None:
        """Of the lease topic."""
        for record in records:
            self._take(record)

    def _take(self, record: Record) -> None:
        """What cannot be read is put aside by the agent whose key it carries."""
        try:
            event = decode(record.topic, record.partition, record.offset, record.key, record.value, record.headers)
        except UnknownType as error:
            log.info("ignored an event of an unknown type", place=str(record), error=str(error))
            return
        except Undecodable as error:
            if record.key == self._me.agent_id.encode():
                self._put_aside(record, f"Undecodable: {error}")
            return
        if (fault := domain.fault(event.message)) and event.key == self._me.agent_id:
            self._put_aside(record, f"InvalidMessage: {fault}")
        cause = Cause(event.event_id, event.correlation_id)
        for action in domain.decide(self._leases, event.message, self._me):
            self._leases = domain.evolve(self._leases, action)
            self._do(action, cause)

    def _put_aside(self, record: Record, error: str) -> None:
        log.warning("dead letter", place=str(record), error=error)
        self._node.reports.send(as_letter(record, "trainer_agent", error, "", datetime.now(UTC)))

    def _do(self, action: domain.Action, cause: Cause) -> None:
        match action:
            case Accept(offer):
                folders = self._make_folders(offer.run_id, offer.epoch)
                run_id, epoch = offer.run_id, offer.epoch
                taken = Running(self._node, offer, cause, folders, lambda: self._released(run_id, epoch))
                self._running[run_id] = taken
                self._untold.add((run_id, epoch))
                taken.task.add_done_callback(lambda _: self._untold.discard((run_id, epoch)))
                self._beat_now.set()
            case Decline(offer, why):
                declined = cluster.LeaseDeclined(
                    run_id=offer.run_id, epoch=offer.epoch, agent_id=self._me.agent_id, incarnation=self._me.incarnation, why=why
                )
                self._node.reports.send(as_record(REPORT_TOPIC, offer.run_id, declined, self._node.source, cause))
            case Start(run_id, _, gang):
                self._running[run_id].start(gang)
            case Stop(run_id, epoch, why, save_outputs):
                running = self._running.get(run_id)
                if running is not None and running.offer.epoch == epoch:
                    log.info("stops a run", run=run_id, epoch=epoch, reason=why, save_outputs=save_outputs)
                    running.stop() if save_outputs else running.discard()
            case End(why):
                if not self.ended.done():
                    self.ended.set_result(why)

    def _released(self, run_id: str, epoch: int) -> None:
        self._leases = domain.released(self._leases, run_id, epoch)
        running = self._running.get(run_id)
        if running is not None and running.offer.epoch == epoch:
            del self._running[run_id]
        self._beat_now.set()

    async def beat_for_ever(self, publisher: Publisher, every_seconds: float) -> None:
        """What this process holds, every second or so and at once after a change; the next only after the last was acknowledged."""
        while True:
            held = [cluster.HeldRun(run_id=run_id, epoch=epoch) for run_id, epoch in sorted(self._untold | set(self._leases.held.items()))]
            message = cluster.AgentHeartbeat(agent_id=self._me.agent_id, incarnation=self._me.incarnation, held=held)
            try:
                await asyncio.to_thread(publisher.publish, [as_record(HEARTBEAT_TOPIC, self._me.agent_id, message, self._node.source)])
            except Unavailable as error:
                log.warning("no heartbeat", reason=str(error))
            try:
                async with asyncio.timeout(every_seconds):
                    await self._beat_now.wait()
            except TimeoutError:
                pass
            self._beat_now.clear()

    async def drain(self, why: str) -> None:
        """Ends all ranks and says good-bye. What they held is lost and starts again elsewhere."""
        self._leases = replace(self._leases, draining=True)
        tasks = [running.task for running in self._running.values()]
        for running in list(self._running.values()):
            running.discard()
        if tasks:
            await asyncio.wait(tasks, timeout=5.0)
        message = cluster.AgentDrained(agent_id=self._me.agent_id, incarnation=self._me.incarnation, why=why)
        self._node.reports.send(as_record(AGENT_TOPIC, self._me.agent_id, message, self._node.source))
        try:
            async with asyncio.timeout(3.0):
                await self._node.reports.flush()
        except TimeoutError:
            log.warning("left without a good-bye: Kafka does not answer")
