"""The worker between a request and its answer: reads what the URLs hold."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from services.chassis import codec
from services.chassis.handler import Command
from services.chassis.logs import about
from services.dataset.domain import Asked
from services.dataset.handlers import Probed
from services.dataset.ports import Progress, Sources, Unreachable
from trainyard.dataset.v1.dataset_pb2 import SourceFile
from trainyard.event.v1.artifact_pb2 import Failure

log = structlog.get_logger()


class Probing:
    """`await Probing(sources)(content)` for a Worker: content is the intent as it was stored."""

    def __init__(self, sources: Sources, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._sources = sources
        self._clock = clock

    async def __call__(self, content: bytes) -> Command:
        asked = codec.loads(content, Asked)
        request = asked.request
        with about(dataset=request.name, submission=request.submission_id):
            log.info("probes", urls=len(request.urls))
            try:
                files = await self._sources.read(request.urls, _log_progress(len(request.urls)))
            except Unreachable as error:
                log.info("is refused, a source cannot be read", url=error.url[:200], reason=str(error))
                found: list[SourceFile] | Failure = _failure(error)
            else:
                log.info("has read every source", bytes=sum(file.size_bytes for file in files))
                found = files
        return Command(Probed(request.submission_id, found, self._clock()), asked.event_id, asked.correlation_id)


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
