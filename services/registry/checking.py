"""The worker between a request and its answer: reads how the run ended, and sees that the model's files are where they should be."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import structlog

from services.chassis import codec
from services.chassis.handler import Command
from services.chassis.logs import about
from services.registry.domain import registration, uploads
from services.registry.domain.registration import Asked
from services.registry.domain.runs import Run
from services.registry.handlers import Checked
from services.registry.ports import Runs
from trainyard._artifacts import is_listed, resolve
from trainyard._errors import PlatformUnavailableException, TrainyardException, UserErrorException
from trainyard._objects import ObjectMissing, Objects
from trainyard._paths import safe_relpath, sha256_file
from trainyard.event.v1.artifact_pb2 import Artifact, Failure
from trainyard.model.v1.model_pb2 import RegisterModelVersion

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
            uploaded = uploads.is_upload(request)
            # A run that registers what it has uploaded goes on: nobody waits for its end.
            known = await self._runs.read(request.run_id, ended=not uploaded) if request.run_id else None
            run, missing = await self._whole(known)
            if missing is None and registration.refused(run, request) is None:
                recorded = registration.chosen_files(run, request)
                # An agent's word for a digest is taken; a client's upload is read.
                missing = await self._missing(recorded, self._wrong_size if request.run_id else self._wrong_bytes, request)
            log.info(
                "has looked at the files",
                uploaded=uploaded,
                known=run is not None,
                status=run.status if run else "",
                complete=missing is None,
            )
        return Command(Checked(request.submission_id, run, missing, self._clock()), asked.event_id, asked.correlation_id)

    async def _whole(self, run: Run | None) -> tuple[Run | None, Failure | None]:
        """With a list of files that lies in the object store, where the event had no room for it; and what is wrong with that list."""
        if run is None or is_listed(run.artifacts):
            return run, None
        try:
            return replace(run, artifacts=await asyncio.to_thread(resolve, self._objects, run.artifacts)), None
        except PlatformUnavailableException:
            raise
        except TrainyardException as error:
            # It will be no better when it is asked again.
            what = f"The list of the files of run {run.id} cannot be read: {error.message} Nothing was registered; run the script again."
            return run, Failure(code="ArtifactMissing", message=what[:3000], target=error.target[:1000])

    async def _missing(
        self, recorded: list[Artifact], wrong_with: Callable[[Artifact], str], request: RegisterModelVersion
    ) -> Failure | None:
        slots = asyncio.Semaphore(_AT_ONCE)

        async def look(file: Artifact) -> str:
            async with slots:
                return await asyncio.to_thread(wrong_with, file)

        wrong = [trouble for trouble in await asyncio.gather(*map(look, recorded)) if trouble]
        if not wrong:
            return None
        more = f" and {len(wrong) - _TOLD} more" if len(wrong) > _TOLD else ""
        whose = f"of run {request.run_id}" if request.run_id else f"uploaded for model {request.model}"
        again = "run the script again" if request.run_id else "upload them again"
        what = f"Of the {len(recorded)} files {whose} {len(wrong)} are not in the object store as recorded: "
        message = f"{what}{'; '.join(wrong[:_TOLD])}{more}. Nothing was registered; {again}."
        return Failure(code="ArtifactMissing", message=message[:3000], target=wrong[0][:1000])

    def _wrong_size(self, file: Artifact) -> str:
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

    def _wrong_bytes(self, file: Artifact) -> str:
        """As _wrong_size, and the bytes are read."""
        if trouble := self._wrong_size(file):
            return trouble
        with tempfile.TemporaryDirectory(prefix="trainyard-registry-") as folder:
            copy = Path(folder) / "file"
            try:
                self._objects.get_file(file.object_key, copy)
            except ObjectMissing:
                return f"{file.object_key} is missing"
            found = sha256_file(copy)
        return "" if found == file.sha256 else f"{file.object_key} has the digest {found}, not {file.sha256}"
