"""The worker behind a deletion whose files nothing else has: takes them out of the object store, and tells of it."""

from __future__ import annotations

import asyncio

import structlog

from services.chassis import codec
from services.chassis.handler import Command
from services.chassis.logs import about
from services.registry.domain.model import Removal
from services.registry.handlers import Removed
from trainyard._objects import Objects

log = structlog.get_logger()


class Removing:
    """`await Removing(objects)(content)` for a Worker: content is the Removal as it was stored."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def __call__(self, content: bytes) -> Command:
        """Raises PlatformUnavailableException, after which it may be called again."""
        removal = codec.loads(content, Removal)
        with about(model=removal.model, submission=removal.submission_id):
            for key in removal.keys:
                await asyncio.to_thread(self._objects.remove, key)
            log.info("has removed the files of a deleted version", version=removal.version, files=len(removal.keys))
        return Command(Removed(removal.submission_id), removal.event_id, removal.correlation_id)
