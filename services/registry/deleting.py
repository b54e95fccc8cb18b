"""The worker between the beginning of a deletion and its end: nothing that was said of endpoints before it began may be missed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog

from services.chassis import codec
from services.chassis.handler import Command
from services.chassis.logs import about
from services.registry.domain.model import Leaving
from services.registry.endpoint_shelf import TOPIC
from services.registry.handlers import LookedAtEndpoints

log = structlog.get_logger()


class Deleting:
    """`await Deleting(in_log, caught_up)(content)` for a Worker: content is the Leaving as it was stored."""

    def __init__(
        self,
        in_log: Callable[[], Awaitable[None]],
        caught_up: Callable[[str], Awaitable[None]],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._in_log = in_log
        self._caught_up = caught_up
        self._clock = clock

    async def __call__(self, content: bytes) -> Command:
        """Raises Unavailable, after which it may be called again."""
        leaving = codec.loads(content, Leaving)
        with about(model=leaving.model, submission=leaving.submission_id):
            # First ours lies in the log, then theirs is read: the serving service does it the other way round, so one of us sees the other.
            await self._in_log()
            await self._caught_up(TOPIC)
            log.info("has looked at the endpoints", version=leaving.version)
        return Command(LookedAtEndpoints(leaving.submission_id, self._clock()), leaving.event_id, leaving.correlation_id)
