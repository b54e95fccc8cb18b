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
from services.trainer_agent.attempt import Running
from services.trainer_agent.domain import Accept, Decline, End, Form, Leases, Stop
from services.trainer_agent.layout import Folders
from services.trainer_agent.node import Node
from services.trainer_agent.reporter import Cause, as_record
from trainyard._cloudevents import Undecodable, UnknownType, decode
from trainyard.cluster.v1 import cluster_pb2 as cluster

log = structlog.get_logger()
# Together with the grace before KILL less than a supervisor waits.
_CHECKPOINT_SECONDS, _CLEAN_UP_SECONDS = 3.0, 2.0
REPORT_TOPIC, AGENT_TOPIC, HEARTBEAT_TOPIC = "trainyard.tasks", "trainyard.agents", "trainyard.heartbeats"


def registered(resources: Any, gpus: Sequence[Any], *, pool: str, host: str, labels: Mapping[str, str]) -> Any:
    """What an AgentRegistered says of the node, whoever the process is. Labels of its owner go before those that it has by itself."""
    names = sorted({gpu.name for gpu in gpus})
    own = {"host": host, **({"gpu.name": ", ".join(names)} if names else {})}
    return cluster.AgentRegistered(resources=resources, gpus=gpus, pool=pool, labels=own | dict(labels))


class Agent:
    """`ended` resolves when the process is not wanted any more."""

    def __init__(self, node: Node, make_folders: Callable[[str, int, int], Folders], registration: Any) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._node = node
        self._me = node.me
        self._make_folders = make_folders
        self._registration = registration
        self._leases = Leases()
        self._running: dict[str, Running] = {}
        self._untold: set[Running] = set()
        """Those whose last report is not known to lie in the log: to the scheduler they are held still."""
        self._beat_now = asyncio.Event()

    def register(self) -> None:
        """Told once the lease topic is being read: an offer that follows is never missed."""
        message = cluster.AgentRegistered(agent_id=self._me.agent_id, incarnation=self._me.incarnation, address=self._node.address)
        message.MergeFrom(self._registration)
        log.info("registers", incarnation=self._me.incarnation)
        self._node.reports.send(as_record(AGENT_TOPIC, self._me.agent_id, message, self._node.source))

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
                folders = self._make_folders(offer.run_id, offer.epoch, offer.node_index)
                taken = Running(self._node, offer, cause, folders, lambda: self._released(taken))
                self._running[offer.run_id] = taken
                self._untold.add(taken)
                taken.task.add_done_callback(lambda _: self._untold.discard(taken))
                self._beat_now.set()
            case Decline(offer, why):
                declined = cluster.LeaseDeclined(
                    run_id=offer.run_id, epoch=offer.epoch, agent_id=self._me.agent_id, incarnation=self._me.incarnation, why=why
                )
                self._node.reports.send(as_record(REPORT_TOPIC, offer.run_id, declined, self._node.source, cause))
            case Form(run_id, gang):
                try:
                    self._running[run_id].form(gang)
                except Exception:
                    # Anybody may write to the log: what it makes of one run must not end the others.
                    log.exception("a gang makes no sense", run=run_id, epoch=gang.epoch)
            case Stop(run_id, part, why, save_outputs):
                running = self._running.get(run_id)
                if running is not None and running.part == part:
                    log.info("stops a run", run=run_id, epoch=part.epoch, reason=why, save_outputs=save_outputs)
                    running.stop() if save_outputs else running.discard()
            case End(why):
                if not self.ended.done():
                    self.ended.set_result(why)

    def _released(self, over: Running) -> None:
        self._leases = domain.released(self._leases, over.offer.run_id, over.part)
        if self._running.get(over.offer.run_id) is over:
            del self._running[over.offer.run_id]
        self._beat_now.set()

    async def beat_for_ever(self, publisher: Publisher, every_seconds: float) -> None:
        """What this process holds, every second or so and at once after a change; the next only after the last was acknowledged."""
        while True:
            told = {(it.offer.run_id, it.offer.epoch) for it in self._untold} | {
                (run_id, it.part.epoch) for run_id, it in self._leases.held.items()
            }
            held = [cluster.HeldRun(run_id=run_id, epoch=epoch) for run_id, epoch in sorted(told)]
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
        """Ends all ranks and says good-bye. What they held is lost and starts again elsewhere, from the checkpoints that are saved here:
        unless this process was given up, when nothing that it saves counts."""
        self._leases = replace(self._leases, draining=True)
        left = {running.task: running for running in self._running.values()}
        for running in left.values():
            running.discard() if self.ended.done() else running.leave()
        for patience in (self._node.grace_seconds + _CHECKPOINT_SECONDS, _CLEAN_UP_SECONDS):
            _, late = await asyncio.wait(left, timeout=patience) if left else (set(), set())
            for task in late:
                left[task].discard()
        message = cluster.AgentDrained(agent_id=self._me.agent_id, incarnation=self._me.incarnation, why=why)
        self._node.reports.send(as_record(AGENT_TOPIC, self._me.agent_id, message, self._node.source))
        try:
            async with asyncio.timeout(3.0):
                await self._node.reports.flush()
        except TimeoutError:
            log.warning("left without a good-bye: Kafka does not answer")
