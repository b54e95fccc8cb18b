"""The worker between a request and its decision: a request may be read here before the event that registered its model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from services.chassis import codec
from services.chassis.handler import Command
from services.chassis.store import Store
from services.serving.handlers import MODELS, Decide
from services.serving.shelf import Asked, Shelf


class Deploying:
    """`await Deploying(context.caught_up, context.store)(content)` for a Worker: content is the request as it was stored."""

    def __init__(
        self, caught_up: Callable[[str, str], Awaitable[None]], store: Store, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._caught_up = caught_up
        self._store = store
        self._clock = clock

    async def __call__(self, content: bytes) -> Command:
        """Raises Unavailable, after which it may be called again."""
        asked = codec.loads(content, Asked)
        with self._store.reading() as documents:
            named = Shelf(documents).models(asked.what)
        for model in sorted({it.model for it in named}):
            await self._caught_up(MODELS, model)
        return Command(Decide(asked.what, self._clock()), asked.event_id, asked.correlation_id)
