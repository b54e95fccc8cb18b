"""The scheduler's pulse: one small record a second, the next only once the last is acknowledged, so none pile up in an outage."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from services.chassis.context import Context
from services.chassis.records import NewRecord, Unavailable
from trainyard._cloudevents import Outgoing
from trainyard.cluster.v1.cluster_pb2 import SchedulerPulse

log = structlog.get_logger()
TOPIC, KEY = "trainyard.heartbeats", "scheduler"


class Deaf(RuntimeError):
    """Pulses are taken by the log and nothing of their topic is delivered: nobody would be declared lost, and no node let go."""


async def pulse_for_ever(context: Context, incarnation: str, heard: Callable[[], int]) -> None:
    """`heard` counts what was delivered of the topic. Raises Deaf: a new process listens anew, and nothing else guards this topic."""
    every = context.settings.scheduler.pulse_seconds
    most = max(2, round(context.settings.stall_seconds / every))
    beat = unheard = before = 0
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
        else:
            now = heard()
            unheard, before = (unheard + 1 if now == before else 0), now
            if unheard >= most:
                raise Deaf(f"{unheard} pulses were acknowledged by {TOPIC} and nothing of it was delivered meanwhile")
        await asyncio.sleep(every)
