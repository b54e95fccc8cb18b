"""Sampled calls of an endpoint, from Kafka, each once."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from trainyard._errors import UserErrorException
from trainyard._kafka import partition_of

if TYPE_CHECKING:
    from trainyard._kafka import Events

TOPIC = "trainyard.inference"


@dataclass(frozen=True)
class Range:
    """Which calls: those that came from `since` to before `until`, or lie at `offset` and after it, and that this deployment answered;
    None: no bound, 0: any."""

    since: datetime | None = None
    until: datetime | None = None
    offset: int | None = None
    deployment: int = 0


def samples(events: Events, endpoint: str, wanted: Range) -> Generator[Any, None, None]:
    """InferenceSampled messages in the order in which they were published, up to the log's end as it is now.

    Raises UserErrorException where there is no such topic, and PlatformUnavailableException.
    """
    from trainyard.endpoint.v1.inference_pb2 import InferenceSampled

    count = events.partitions(TOPIC)
    if not count:
        raise UserErrorException(f"There is no topic {TOPIC}.", target=TOPIC, hint="`make up` makes those that are missing")
    after = None if wanted.offset is None else {(TOPIC, partition_of(endpoint, count)): wanted.offset - 1}
    given: set[str] = set()
    for batch in events.read([TOPIC], key=endpoint, since=wanted.since, after=after):
        for record in batch:
            message = record.event.message if record.event is not None else None
            if not isinstance(message, InferenceSampled) or message.endpoint != endpoint or message.sample_id in given:
                continue
            if _is_wanted(message, wanted):
                given.add(message.sample_id)
                yield message


def _is_wanted(message: Any, wanted: Range) -> bool:
    at = message.at.ToNanoseconds()
    in_time = (wanted.since is None or at >= _nanoseconds(wanted.since)) and (wanted.until is None or at < _nanoseconds(wanted.until))
    return in_time and wanted.deployment in (0, message.deployment)


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1000
