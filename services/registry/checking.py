"""The worker between a request and its answer: reads how the run ended, and sees that its files are where it says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from services.chassis import codec
from services.chassis.handler import Command
from services.chassis.logs import about
from services.registry.domain import files, registration
from services.registry.domain.registration import Asked
from services.registry.handlers import Checked
from services.registry.ports import Runs
from trainyard._errors import UserErrorException
from trainyard._objects import ObjectMissing, Objects
from trainyard._paths import safe_relpath
from trainyard.event.v1.artifact_pb2 import Artifact, Failure

log = structlog.get_logger()
_AT_ONCE = 8
_TOLD = 5


class Checking:
    """`await Checking(runs, objects)(content)` for a Worker: content is the intent as it was stored."""

    def __init__(self, runs: Runs, objects: Objects, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._runs = runs
        self._objects = objects
        self._clock = clock

    async def __call__(self, content: bytes) -> Command:
        """Raises Unavailable or PlatformUnavailableException, after which it may be called again."""
        asked = codec.loads(content, Asked)
        request = asked.request
        with about(model=request.model, run=request.run_id, submission=request.submission_id):
            run = await self._runs.read(request.run_id)
            missing = None
            if run is not None and registration.refused(run, request) is None:
                missing = await self._missing(run.id, files.chosen(run, request.path))
            log.info("has looked at the run", known=run is not None, status=run.status if run else "", complete=missing is None)
        return Command(Checked(request.submission_id, run, missing, self._clock()), asked.event_id, asked.correlation_id)

    async def _missing(self, run_id: str, recorded: list[Artifact]) -> Failure | None:
        slots = asyncio.Semaphore(_AT_ONCE)

        async def look(file: Artifact) -> str:
            async with slots:
                return await asyncio.to_thread(self._wrong, file)

        wrong = [trouble for trouble in await asyncio.gather(*map(look, recorded)) if trouble]
        if not wrong:
            return None
        more = f" and {len(wrong) - _TOLD} more" if len(wrong) > _TOLD else ""
        what = f"Of the {len(recorded)} files of run {run_id} to be registered {len(wrong)} are not in the object store as recorded: "
        message = f"{what}{'; '.join(wrong[:_TOLD])}{more}. Nothing was registered; run the script again."
        return Failure(code="ArtifactMissing", message=message[:3000], target=wrong[0][:1000])

    def _wrong(self, file: Artifact) -> str:
        """What is wrong with the object, in words; "" if it is as recorded."""
        try:
            safe_relpath(file.object_key)
        except UserErrorException:
            return f"{file.object_key[:200]!r} is no key of the object store"
        try:
            size = self._objects.size(file.object_key)
        except ObjectMissing:
            return f"{file.object_key} is missing"
        return "" if size == file.size_bytes else f"{file.object_key} has {size} bytes, not {file.size_bytes}"
