"""Metrics that the log has let go, from what agents have archived at the ends of their attempts. Only a rebuild reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
import structlog
from google.protobuf.message import DecodeError

from services.history import tables
from services.history.databases import Database
from services.history.projecting import apply, apply_with_care
from services.history.reading import METRICS, Batch
from trainyard._errors import PlatformUnavailableException, TrainyardException
from trainyard._objects import Objects
from trainyard.cluster.v1.cluster_pb2 import OutputsUploaded
from trainyard.event.v1.artifact_pb2 import Artifact
from trainyard.history.v1.archive_pb2 import ArchivedBatch, MetricArchive
from trainyard.job.v1.telemetry_pb2 import MetricBatch

log = structlog.get_logger()
_MOST_BYTES = 1 << 30
_AT_ONCE = 5000


def restore(made: Database, objects: Objects) -> int:
    """Adds what the database lacks of the metrics that its runs' agents have archived; how many records that is.

    They lie before all records of the log, in the order in which they were sent. An archive that is gone, altered or none at all is told
    and left out. Raises PlatformUnavailableException.
    """
    positions = made.positions()
    with made.reading() as connection:
        archives = _archives(connection)
    count = 0
    for run_id, artifacts in archives.items():
        lost = _lacking(made, sorted(_batches(objects, run_id, artifacts), key=lambda pair: pair[0].at_ms))
        raws = [_record(index - len(lost), *pair) for index, pair in enumerate(lost)]
        for begin in range(0, len(raws), _AT_ONCE):
            apply_with_care(made, raws[begin : begin + _AT_ONCE], fold=False)
        count += len(raws)
    with made.writing() as connection:
        apply(connection, Batch(positions=dict(positions)))
    return count


def _archives(connection: sa.Connection) -> dict[str, list[Artifact]]:
    """By run, each once however often it was told."""
    query = sa.select(tables.facts.c.run_id, tables.facts.c.value).where(tables.facts.c.type == OutputsUploaded.DESCRIPTOR.full_name)
    found: dict[str, dict[str, Artifact]] = {}
    for run_id, value in connection.execute(query):
        artifact = OutputsUploaded.FromString(bytes(value)).metrics
        if artifact.object_key:
            found.setdefault(run_id, {})[artifact.object_key] = artifact
    return {run_id: [by_key[key] for key in sorted(by_key)] for run_id, by_key in sorted(found.items())}


def _batches(objects: Objects, run_id: str, artifacts: Sequence[Artifact]) -> Iterator[tuple[ArchivedBatch, MetricBatch]]:
    for artifact in artifacts:
        try:
            yield from _read(objects, run_id, artifact)
        except PlatformUnavailableException:
            raise
        except (TrainyardException, DecodeError, ValueError) as error:
            log.warning("an archive of metrics cannot be used", run=run_id, key=artifact.object_key[:300], reason=str(error)[:300])


def _read(objects: Objects, run_id: str, artifact: Artifact) -> list[tuple[ArchivedBatch, MetricBatch]]:
    key = artifact.object_key
    # Whoever may write to the log may name any object.
    if not key.startswith(f"runs/{run_id}/") or ".." in key.split("/"):
        raise ValueError("it lies in no folder of its run")
    if (size := objects.size(key)) > _MOST_BYTES:
        raise ValueError(f"it has {size} bytes, and {_MOST_BYTES} is the most")
    content = objects.get_bytes(key)
    if hashlib.sha256(content).hexdigest() != artifact.sha256:
        raise ValueError("its digest differs")
    return [(one, MetricBatch.FromString(one.value)) for one in MetricArchive.FromString(content).batches]


def _lacking(made: Database, pairs: Sequence[tuple[ArchivedBatch, MetricBatch]]) -> list[tuple[ArchivedBatch, MetricBatch]]:
    """Those that the database has not: a child's metrics lie in its parent's archive."""
    table = tables.metrics
    with made.reading() as connection:
        known = {
            run_id: set(connection.execute(sa.select(table.c.event_id).where(table.c.run_id == run_id)).scalars())
            for run_id in {batch.run_id for _, batch in pairs}
        }
    return [(one, batch) for one, batch in pairs if one.event_id not in known[batch.run_id]]


def _record(offset: int, one: ArchivedBatch, batch: MetricBatch) -> Any:
    """As it came from the log. Its own offset is not known; what matters is that it is lower than any of the log's."""
    headers = [("ce_type", MetricBatch.DESCRIPTOR.full_name.encode()), ("ce_id", one.event_id.encode())]
    return SimpleNamespace(
        topic=METRICS, partition=0, offset=offset, timestamp=one.at_ms, key=batch.run_id.encode(), value=one.value, headers=headers
    )
