"""The worker between a request and its decision: a request may be read here before the event that registered its model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from services.chassis import codec
from services.chassis.handler import Command
from services.serving.domain.asking import models_of
from services.serving.handlers import MODELS, Decide
from services.serving.shelf import Asked


class Deploying:
    """`await Deploying(context.caught_up)(content)` for a Worker: content is the request as it was stored."""

    def __init__(self, caught_up: Callable[[str, str], Awaitable[None]], clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._caught_up = caught_up
        self._clock = clock

    async def __call__(self, content: bytes) -> Command:
        """Raises Unavailable, after which it may be called again."""
        asked = codec.loads(content, Asked)
        for named in models_of(asked.what):
            await self._caught_up(MODELS, named.model)
        return Command(Decide(asked.what, self._clock()), asked.event_id, asked.correlation_id)
