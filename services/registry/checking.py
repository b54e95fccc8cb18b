"""The worker between a request and its answer: reads how the run ended, and looks at the model's files: are they where they should be,
may a model hold them, and what does a SavedModel say of itself."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from services.chassis import codec
from services.chassis.handler import Command
from services.chassis.logs import about
from services.chassis.records import Unavailable
from services.registry.adapters import saved_model
from services.registry.domain import registration, uploads
from services.registry.domain.files import digest, saved_model_of
from services.registry.domain.reading import Reading
from services.registry.domain.registration import Asked
from services.registry.domain.runs import Run
from services.registry.handlers import Checked
from services.registry.looking import Looked, look_at
from services.registry.ports import Runs
from trainyard._artifacts import is_listed, resolve
from trainyard._errors import PlatformUnavailableException, TrainyardException
from trainyard._objects import Objects
from trainyard.event.v1.artifact_pb2 import Artifact, Failure
from trainyard.model.v1.model_pb2 import RegisterModelVersion

log = structlog.get_logger()
_AT_ONCE = 8
_TOLD = 5


class Checking:
    """`await Checking(runs, objects)(content)` for a Worker: content is the intent as it was stored."""

    def __init__(
        self,
        runs: Runs,
        objects: Objects,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        risky_operations: Collection[str] = (),
        is_being_removed: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._runs = runs
        self._objects = objects
        self._clock = clock
        self._risky = frozenset(risky_operations)
        self._is_being_removed = is_being_removed
        # A graph takes many times its size in memory.
        self._one_at_a_time = asyncio.Semaphore(1)

    async def __call__(self, content: bytes) -> Command:
        """Raises Unavailable or PlatformUnavailableException, after which it may be called again."""
        asked = codec.loads(content, Asked)
        request = asked.request
        with about(model=request.model, run=request.run_id, submission=request.submission_id):
            uploaded = uploads.is_upload(request)
            # A run that registers what it has uploaded goes on: nobody waits for its end.
            known = await self._runs.read(request.run_id, ended=not uploaded) if request.run_id else None
            if request.by.epoch and request.by.run_id not in ("", request.run_id):
                # Whether its attempt is over is decided with the answer, by what the log says of it up to now.
                await self._runs.read(request.by.run_id, ended=False)
            run, missing = await self._whole(known)
            reading = registration.NOTHING_READ
            if missing is None and registration.refused(run, request) is None:
                recorded = registration.chosen_files(run, request)
                # Looked at in the middle of it they would be there, and gone once they were registered.
                if uploaded and self._is_being_removed(digest(recorded)):
                    raise Unavailable("files of a deleted version with the same digest are being removed")
                missing, warnings = await self._look(recorded, request)
                if missing is None:
                    async with self._one_at_a_time:
                        reading = await asyncio.to_thread(self._read, recorded)
                    reading = replace(reading, warnings=(*reading.warnings, *warnings))
            log.info(
                "has looked at the files",
                uploaded=uploaded,
                known=run is not None,
                status=run.status if run else "",
                complete=missing is None,
            )
        return Command(Checked(request.submission_id, run, missing, self._clock(), reading), asked.event_id, asked.correlation_id)

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

    async def _look(self, recorded: list[Artifact], request: RegisterModelVersion) -> tuple[Failure | None, list[str]]:
        """(what is wrong with them, warnings)."""
        slots, graph = asyncio.Semaphore(_AT_ONCE), saved_model_of(recorded)

        async def look(file: Artifact) -> Looked:
            async with slots:
                # An agent's word for a digest is taken; a client's upload is read, and so is the graph, of which more is told.
                every_byte = not request.run_id or file is graph
                return await asyncio.to_thread(look_at, self._objects, file, every_byte=every_byte)

        looked = await asyncio.gather(*map(look, recorded))
        if refused := [it for it in looked if it.refused]:
            return _refused(refused), []
        wrong = [it.trouble for it in looked if it.trouble]
        return _missing(wrong, recorded, request) if wrong else None, [it.warning for it in looked if it.warning][:_TOLD]

    def _read(self, recorded: list[Artifact]) -> Reading:
        """What a SavedModel says of itself; nothing where there is none."""
        file = saved_model_of(recorded)
        if file is None:
            return registration.NOTHING_READ
        if file.size_bytes > saved_model.MOST_BYTES:
            return saved_model.too_large(file.size_bytes)
        content = self._objects.get_bytes(file.object_key)
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise Unavailable(f"{file.object_key} has changed since it was looked at")
        return saved_model.read(content, self._risky)


def _refused(files: list[Looked]) -> Failure:
    more = f" So it is with {len(files) - 1} more of its files." if len(files) > 1 else ""
    what = f"File {files[0].path[:500]!r} {files[0].refused}.{more} Nothing was registered."
    return Failure(code="ModelRefused", message=what[:3000], target=files[0].path[:1000])


def _missing(wrong: list[str], recorded: list[Artifact], request: RegisterModelVersion) -> Failure:
    more = f" and {len(wrong) - _TOLD} more" if len(wrong) > _TOLD else ""
    whose = f"of run {request.run_id}" if request.run_id else f"uploaded for model {request.model}"
    again = "run the script again" if request.run_id else "upload them again"
    what = f"Of the {len(recorded)} files {whose} {len(wrong)} are not in the object store as recorded: "
    message = f"{what}{'; '.join(wrong[:_TOLD])}{more}. Nothing was registered; {again}."
    return Failure(code="ArtifactMissing", message=message[:3000], target=wrong[0][:1000])
