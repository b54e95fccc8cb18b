"""The scheduler's pulse: one small record a second, the next only once the last is acknowledged, so none pile up in an outage."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime

import structlog

from services.chassis.records import NewRecord, Unavailable
from services.chassis.service import Context
from trainyard._cloudevents import Outgoing
from trainyard.cluster.v1.cluster_pb2 import SchedulerPulse

log = structlog.get_logger()
TOPIC, KEY = "trainyard.heartbeats", "scheduler"


async def pulse_for_ever(context: Context, incarnation: str) -> None:
    beat = 0
    while True:
        beat += 1
        message = SchedulerPulse(incarnation=incarnation, beat=beat)
        outgoing = Outgoing(TOPIC, KEY, message, str(uuid.uuid4()), "trainyard/scheduler", datetime.now(UTC))
        try:
            await asyncio.to_thread(
                context.publisher.publish, [NewRecord(TOPIC, KEY.encode(), outgoing.value(), tuple(outgoing.headers()))]
            )
        except Unavailable as error:
            log.warning("no pulse", reason=str(error))
        await asyncio.sleep(context.settings.scheduler.pulse_seconds)
