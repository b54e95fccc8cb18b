"""The request log: what servers have sampled goes to trainyard.inference, in the background. While Kafka is away it stays where it is."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from services.chassis.records import NewRecord, Publisher, Unavailable
from services.chassis.store import Store
from services.serving.adapters.sample_spools import SampleSpools, SpoolFolder
from services.serving.domain.endpoint import wanted
from services.serving.sampling import spool
from services.serving.sampling.call import Payload, Sample, parsed
from services.serving.shelf import Shelf
from trainyard._cloudevents import Outgoing
from trainyard.endpoint.v1 import inference_pb2 as pb

log = structlog.get_logger()
TOPIC = "trainyard.inference"
_SOURCE = "trainyard/serving"
_LOOK_SECONDS = 0.5
_AT_ONCE = 64
_FILES_A_LOOK = 64  # of a folder, so that none keeps the others waiting
_TIDY_EVERY = 60
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


class RequestLog:
    """What cannot be published, or was and cannot be removed, stays where it is: passed over until the service starts again, and told once
    a deployment."""

    def __init__(self, spools: SampleSpools, publisher: Publisher, store: Store) -> None:
        self._spools = spools
        self._publisher = publisher
        self._store = store
        # A broker that is away holds this thread, and nobody else's.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="request-log")
        self._looks = 0
        self._aside: dict[Path, set[Path]] = {}
        self._told: set[Path] = set()

    async def run(self) -> None:
        """Until cancelled."""
        waits = False
        while True:
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._look)
                waits = False
            except Exception as error:  # whatever it meets ends no endpoint
                if not waits:
                    unforeseen = not isinstance(error, Unavailable | OSError)
                    log.warning("the request log waits", reason=str(error), exc_info=unforeseen)
                waits = True
            await asyncio.sleep(_LOOK_SECONDS)

    def publish(self) -> int:
        """What servers have handed over by now, the oldest first, so many files of each; how many calls that were. A crash sends some
        again, under the same ids.

        Raises Unavailable, and OSError where there is no way to the folders.
        """
        count = 0
        for folder in self._spools.folders():
            try:
                count += self._publish_all(folder)
            except Unavailable:
                raise
            except Exception as error:
                self._tell(folder, error)
        return count

    def _look(self) -> None:
        if self._looks % _TIDY_EVERY == 0:
            self._tidy()
        self._looks += 1
        self.publish()

    def _publish_all(self, folder: SpoolFolder) -> int:
        count = 0
        there = spool.closed(folder.path)
        aside = self._aside[folder.path] = self._aside.get(folder.path, set()).intersection(there)
        for path in [it for it in there if it not in aside][:_FILES_A_LOOK]:
            try:
                with spool.taken(path) as data:
                    count += self._publish(folder, data or b"")
            except Unavailable:
                raise
            except Exception as error:
                aside.add(path)
                self._tell(folder, error)
        return count

    def _tell(self, folder: SpoolFolder, error: Exception) -> None:
        if folder.path not in self._told:
            self._told.add(folder.path)
            why = f"{type(error).__name__}: {error}"
            log.warning("sampled calls are passed over", endpoint=folder.endpoint, deployment=folder.deployment, reason=why)

    def _publish(self, folder: SpoolFolder, data: bytes) -> int:
        samples = list(parsed(data))
        records = [_record(folder, sample) for sample in samples if sample is not None]
        if len(records) < len(samples):
            log.warning("sampled calls are cut short", endpoint=folder.endpoint, deployment=folder.deployment, read=len(records))
        for start in range(0, len(records), _AT_ONCE):
            self._publisher.publish(records[start : start + _AT_ONCE])
        return len(records)

    def _tidy(self) -> None:
        with self._store.reading() as documents:
            endpoints = Shelf(documents).endpoints(deleted=True)
        for endpoint in endpoints:
            self._spools.know(endpoint)
        self._spools.forget_all_but({(it.name, deployment.number) for it in endpoints for deployment in wanted(it)})


def _record(folder: SpoolFolder, sample: Sample) -> NewRecord:
    message = _message(folder, sample)
    event = Outgoing(TOPIC, folder.endpoint, message, sample.sample_id, _SOURCE, message.at.ToDatetime(UTC))
    return NewRecord(TOPIC, folder.endpoint.encode(), event.value(), tuple(event.headers()))


def _message(folder: SpoolFolder, sample: Sample) -> pb.InferenceSampled:
    """Whose it is says the folder: a server of a user's is believed for nobody else."""
    message = pb.InferenceSampled(
        sample_id=sample.sample_id,
        endpoint=folder.endpoint,
        deployment=folder.deployment,
        model=folder.model,
        version=folder.version,
        protocol=pb.InferenceProtocol.Name(sample.protocol),
        method=sample.method,
        path=sample.path,
        request=_payload(sample.request),
        response=_payload(sample.response),
        status=sample.status,
    )
    message.latency.FromNanoseconds(sample.latency_ns)
    now = datetime.now(UTC)
    at = datetime.fromtimestamp(sample.at_ns / 1e9, UTC)
    message.at.FromDatetime(at if _EARLIEST < at < now + timedelta(days=1) else now)
    return message


def _payload(payload: Payload) -> pb.Payload:
    return pb.Payload(
        content=payload.content,
        size_bytes=payload.size_bytes,
        sha256=payload.sha256,
        content_type=payload.content_type,
        json_bytes=payload.json_bytes,
        content_encoding=payload.content_encoding,
    )
