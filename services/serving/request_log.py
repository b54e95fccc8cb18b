"""The request log: what servers have sampled goes to trainyard.inference, in the background. While Kafka is away it stays where it is."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

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
_TIDY_EVERY = 60
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


class RequestLog:
    def __init__(self, spools: SampleSpools, publisher: Publisher, store: Store) -> None:
        self._spools = spools
        self._publisher = publisher
        self._store = store
        # A broker that is away holds this thread, and nobody else's.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="request-log")

    async def run(self) -> None:
        """Until cancelled."""
        looks, waits = 0, False
        while True:
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self.publish)
                waits = False
            except Unavailable as error:
                if not waits:
                    log.warning("the request log waits", reason=str(error))
                waits = True
            except OSError as error:
                log.warning("the request log cannot be read", reason=str(error))
            if looks % _TIDY_EVERY == 0:
                self._tidy()
            looks += 1
            await asyncio.sleep(_LOOK_SECONDS)

    def publish(self) -> int:
        """All that servers have handed over by now; how many calls that were. A crash sends some again, under the same ids.

        Raises Unavailable.
        """
        count = 0
        for folder in self._spools.folders():
            for path in spool.closed(folder.path):
                with spool.taken(path) as data:
                    count += self._publish(folder, data or b"")
        return count

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
            kept = {(it.name, deployment.number) for it in Shelf(documents).endpoints() for deployment in wanted(it)}
        try:
            self._spools.forget_all_but(kept)
        except OSError as error:
            log.warning("old samples stay", reason=str(error))


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
