"""The trainer agent of one node: leases in, reports out."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import structlog

from services.chassis import logs
from services.chassis.loop.kafka_client import KafkaPublisher
from services.chassis.machine import gpus, this_machine
from services.chassis.settings import Settings
from services.trainer_agent.adapters.blobs import Blobs
from services.trainer_agent.adapters.checkpoints import Checkpoints
from services.trainer_agent.adapters.data import Data
from services.trainer_agent.adapters.leftovers import MARK, end_leftovers
from services.trainer_agent.adapters.outputs import OutputStore
from services.trainer_agent.adapters.platform_log import PlatformLog
from services.trainer_agent.adapters.reserved_ports import Ports
from services.trainer_agent.adapters.snapshots import Snapshots
from services.trainer_agent.agent import Agent, registered
from services.trainer_agent.domain import Me
from services.trainer_agent.horovod import Ring
from services.trainer_agent.layout import Folders
from services.trainer_agent.node import Node
from services.trainer_agent.prepare import Preparer
from services.trainer_agent.process import live
from services.trainer_agent.reporter import Reporter
from trainyard._kafka import Events
from trainyard._objects import MinioObjects

log = structlog.get_logger()
_THREADS = 256


async def run(settings: Settings) -> int:
    # Several runs share the node: what one waits for must hold up neither the others nor the heartbeats.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
    me, address = Me(settings.agent.id, uuid.uuid4().hex), settings.agent.address or settings.host
    home, store = settings.home.resolve(), settings.object_store
    objects = MinioObjects(store.endpoint, store.access_key, store.secret_key.get_secret_value(), store.bucket)
    blobs = Blobs(settings.cache / "blobs", settings.agent.cache_bytes)
    source = f"trainyard/trainer_agent/{me.agent_id}"
    node = Node(
        me=me,
        address=address,
        mark=f"{home}/{me.agent_id}",
        source=source,
        grace_seconds=settings.agent.grace_seconds,
        checkpoint_seconds=settings.agent.checkpoint_seconds,
        preparer=Preparer(
            settings.cache, Snapshots(objects, blobs), Data(blobs, objects), settings.agent.build_seconds, me.agent_id, objects
        ),
        ports=Ports(address, settings.cache / "ports"),
        make_ring=lambda elastic: Ring(me.agent_id, elastic=elastic),
        outputs=OutputStore(objects),
        checkpoints=Checkpoints(objects),
        reports=Reporter(KafkaPublisher(settings.kafka_bootstrap)),
        telemetry=Reporter(
            KafkaPublisher(settings.kafka_bootstrap), dropped=lambda count: log.warning("telemetry was let go", records=count)
        ),
        objects=objects,
        log=PlatformLog(KafkaPublisher(settings.kafka_bootstrap), Events(settings.kafka_bootstrap), source),
    )
    end_leftovers(node.mark)
    # Builds inherit it, and are found by it.
    os.environ[MARK] = node.mark
    Folders.sweep(home, me.agent_id)
    devices, told = gpus(settings.agent.fake_gpus), settings.agent
    registration = registered(this_machine(told.fake_gpus), devices, pool=told.pool, host=socket.gethostname(), labels=told.labels)
    agent = Agent(node, lambda run_id, epoch, index: Folders.make(home, me.agent_id, run_id, epoch, index), registration)
    return await live(agent, node, settings)


def main() -> NoReturn:
    settings = Settings.load("trainer_agent")
    logs.set_up(settings.agent.id or "trainer_agent", as_json=settings.log_json)
    code = 1
    try:
        if settings.agent.id:
            code = asyncio.new_event_loop().run_until_complete(run(settings))
        else:
            log.error("TRAINYARD_AGENT__ID is not set: an agent needs a stable name, e.g. agent-0")
    except Exception:
        log.exception("ends")
    sys.stderr.flush()
    # Threads that wait for Kafka or MinIO must not hold up the end.
    os._exit(code)


if __name__ == "__main__":
    main()
