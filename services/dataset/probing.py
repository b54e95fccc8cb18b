"""The worker between a request and its answer: finds the files that the request is about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import structlog

from services.chassis import codec
from services.chassis.handler import Command
from services.chassis.logs import about
from services.dataset import domain
from services.dataset.domain import Asked
from services.dataset.handlers import Probed
from services.dataset.ports import Progress, Sources, Unreachable
from trainyard import _file_lists
from trainyard._errors import PlatformUnavailableException, TrainyardException
from trainyard._objects import Objects
from trainyard.dataset.v1.dataset_pb2 import Dataset, RegisterDataset, SourceFile, Step
from trainyard.event.v1.artifact_pb2 import Failure

log = structlog.get_logger()
_MOST_OF_AN_ETAG = 1_024
Versions = Callable[[str, int], Dataset | None]


class Probing:
    """`await Probing(sources, objects, versions)(content)` for a Worker: content is the intent as it was stored."""

    def __init__(
        self, sources: Sources, objects: Objects, versions: Versions, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._sources = sources
        self._objects = objects
        self._versions = versions
        self._clock = clock

    async def __call__(self, content: bytes) -> Command:
        asked = codec.loads(content, Asked)
        request = asked.request
        with about(dataset=request.name, submission=request.submission_id):
            found = await self._found(request)
        return Command(Probed(request.submission_id, found, self._clock()), asked.event_id, asked.correlation_id)

    async def _found(self, request: RegisterDataset) -> Dataset | Failure:
        try:
            return await (self._of_a_version(request) if request.based_on else self._of_urls(request))
        except Unreachable as error:
            log.info("is refused, a source cannot be read", url=error.url[:200], reason=str(error))
            return _failure(error)
        except PlatformUnavailableException:
            raise
        except TrainyardException as error:
            log.info("is refused, a list of files cannot be used", reason=error.message[:300])
            return Failure(code="UserError", message=f"{error.message} Nothing was registered."[:3000], target=str(error.target)[:1000])

    async def _of_urls(self, request: RegisterDataset) -> Dataset | Failure:
        urls = await asyncio.to_thread(_file_lists.urls_of, self._objects, request)
        if request.count and request.count != len(urls):
            what = f"The list {request.manifest_key} has {len(urls)} files; the request says {request.count}. Nothing was registered."
            return Failure(code="UserError", message=what, target="count")
        if request.manifest_key and (failure := domain.wrong_urls(urls)):
            return failure
        log.info("probes", urls=len(urls))
        files = await self._sources.read(urls, _log_progress(len(urls)))
        log.info("has read every source", bytes=sum(file.size_bytes for file in files))
        for file in files:
            # It travels on in every run's specification; what a server invents beyond that serves no comparison.
            if len(file.etag) > _MOST_OF_AN_ETAG:
                file.ClearField("etag")
        return await asyncio.to_thread(self._listed, files, request.steps)

    async def _of_a_version(self, request: RegisterDataset) -> Dataset | Failure:
        """Its files as they are; where their list lies in the store, the new version names the same one."""
        base = self._versions(request.based_on, request.based_on_version)
        if base is None:
            return domain.no_base(request)
        files = await asyncio.to_thread(_file_lists.of, self._objects, base)
        return await asyncio.to_thread(self._listed, files, [*base.steps, *request.steps], base)

    def _listed(self, files: Sequence[SourceFile], steps: Sequence[Step], base: Dataset | None = None) -> Dataset | Failure:
        if failure := domain.nothing_left(files, steps):
            return failure
        if base is not None and base.manifest_key:
            return Dataset(
                steps=steps,
                manifest_key=base.manifest_key,
                manifest_sha256=base.manifest_sha256,
                count=base.count,
                total_bytes=base.total_bytes,
            )
        found = Dataset(files=files, steps=steps)
        if Dataset(files=files).ByteSize() <= _file_lists.MOST_BYTES_IN_MESSAGE:
            return found
        key, sha256, count = _file_lists.put(self._objects, files)
        total = sum(file.size_bytes for file in files)
        return Dataset(steps=steps, manifest_key=key, manifest_sha256=sha256, count=count, total_bytes=total)


def _failure(error: Unreachable) -> Failure:
    what = f"{error.url[:1000]!r} cannot be read: {error}. Nothing was registered; see that the URL answers from this machine and register again."
    return Failure(code="SourceUnreachable", message=what[:3000], target=error.url[:1000])


def _log_progress(total: int) -> Progress:
    """About ten lines, however many files there are."""
    step = max(1, total // 10)

    def tell(files: int, size: int) -> None:
        if files % step == 0 and files < total:
            log.info("has read", files=files, of=total, bytes=size)

    return tell
