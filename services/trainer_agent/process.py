"""The agent's process: its parts side by side, from the first look at the lease topic to the good-bye."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import structlog

from services.chassis.grpc_server import Server
from services.chassis.loop.kafka_client import KafkaLoop, KafkaPublisher
from services.chassis.records import Place
from services.chassis.settings import Settings
from services.trainer_agent.agent import Agent
from services.trainer_agent.node import Node
from trainyard._kafka import partition_of

log = structlog.get_logger()
LEASES = "trainyard.leases"


async def live(agent: Agent, node: Node, settings: Settings) -> int:
    """Until SIGTERM (0) or until the scheduler fences this process (1: the supervisor starts a new one). Raises what broke it."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = Server(settings.host, settings.port, ["trainyard.cluster.v1.TrainerAgent"], lambda _: None)
    await server.start()
    # Offers are void for earlier processes of this agent, so the topic is read from its end, and the agent registers after that.
    leases = KafkaLoop(settings.kafka_bootstrap, [LEASES], start=lambda _: None, only=_partition_of(node.me.agent_id))
    reading = asyncio.Event()
    parts = [
        asyncio.ensure_future(part)
        for part in (
            node.reports.run(),
            node.telemetry.run(),
            leases.run(agent.deliver, reading.set),
            _register(reading, agent, server),
            agent.beat_for_ever(KafkaPublisher(settings.kafka_bootstrap), settings.agent.heartbeat_seconds),
        )
    ]
    stopped = asyncio.ensure_future(stop.wait())
    waits: list[asyncio.Future[Any]] = [stopped, agent.ended, *parts]
    done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for part in parts:
        if part in done:
            part.result()
            raise RuntimeError("a part of the agent ended by itself")
    why = "it was asked to stop" if stopped in done else agent.ended.result()
    log.info("ends", reason=why)
    await leases.stop()
    await agent.drain(why)
    return 0 if stopped in done else 1


async def _register(reading: asyncio.Event, agent: Agent, server: Server) -> None:
    await reading.wait()
    agent.register()
    await server.say(ready=True)
    await asyncio.Event().wait()


def _partition_of(agent_id: str) -> Callable[[Place, int], bool]:
    return lambda place, partitions: place.partition == partition_of(agent_id, partitions)
