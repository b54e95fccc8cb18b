"""Long work outside of handlers: a document is the intent, a command brings the result, and a crash in between repeats the work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from services.chassis.engine import Engine
from services.chassis.handler import Command
from services.chassis.records import Unavailable
from services.chassis.store import Store
from trainyard._errors import PlatformUnavailableException

log = structlog.get_logger()
Do = Callable[[bytes], Awaitable[Command]]
_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)


class Worker:
    """Runs `do(content)` once for each document of a kind; the command's facts must remove the document.

    `do` answers with the command; what it raises is logged and tried again: it must turn what a user did wrong into an answer.
    """

    def __init__(self, kind: str, do: Do, *, parallel: int = 8) -> None:
        self._kind = kind
        self._do = do
        self._parallel = asyncio.Semaphore(parallel)
        self._running: dict[str, asyncio.Task[None]] = {}

    async def run(self, engine: Engine, store: Store) -> None:
        try:
            while True:
                seen = engine.revision
                with store.reading() as documents:
                    intents = list(documents.all(self._kind))
                for key, content in intents:
                    if key not in self._running:
                        task = asyncio.create_task(self._one(engine, key, content))
                        self._running[key] = task
                await engine.until(lambda seen=seen: engine.revision != seen, 5.0)  # type: ignore[misc]
        finally:
            for task in self._running.values():
                task.cancel()

    async def _one(self, engine: Engine, key: str, content: bytes) -> None:
        try:
            async with self._parallel:
                for attempt in range(1_000_000):
                    try:
                        await engine.command(await self._do(content))
                        return
                    except (Unavailable, PlatformUnavailableException) as error:
                        log.warning("waits for a part of the platform", kind=self._kind, key=key, error=str(error))
                    except Exception:
                        log.exception("a worker failed, it will try again", kind=self._kind, key=key)
                    await asyncio.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
        finally:
            self._running.pop(key, None)
