"""CloudEvents 1.0 in Kafka's binary mode: the value is the bare protobuf message, the headers say what it is.

Source of the mapping: the CloudEvents Kafka protocol binding, section 3.2, with the extensions correlation and sequence.
"""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

_MODULES = (
    "cluster.v1.cluster_pb2",
    "dataset.v1.dataset_pb2",
    "endpoint.v1.endpoint_pb2",
    "endpoint.v1.inference_pb2",
    "environment.v1.environment_pb2",
    "event.v1.artifact_pb2",
    "event.v1.dead_letter_pb2",
    "job.v1.job_pb2",
    "job.v1.telemetry_pb2",
    "model.v1.model_pb2",
)
Headers = Sequence[tuple[str, bytes | None]]
# What an event hands on to those that follow from it: unbounded, an answer would be larger than any topic takes.
_LONGEST_KEY = 1024
_LONGEST = {"ce_id": 200, "ce_correlationid": _LONGEST_KEY, "ce_causationid": 200, "traceparent": 200}
# Names under which ids of events are derived from their causes; never to be changed.
_NAMESPACE = uuid.UUID("6f9b7e0c-4b3f-5f7e-9a41-7d0b1c6d2e55")


class Undecodable(Exception):
    """The record is no event: what is wrong, in words."""


class UnknownType(Exception):
    """A well-formed event of a type that this version does not know: written by a newer one, to be ignored and counted."""


@dataclass(frozen=True)
class Outgoing:
    """An event on its way: where to, and what it says."""

    topic: str
    key: str
    message: Message
    event_id: str
    source: str
    time: datetime
    causation_id: str = ""
    correlation_id: str = ""
    traceparent: str = ""
    sequence: int = 0
    """Grows with every event of one source, whatever its topic; 0: the source does not count."""

    def headers(self) -> list[tuple[str, bytes]]:
        fields = {
            "ce_specversion": "1.0",
            "ce_id": self.event_id,
            "ce_source": self.source,
            "ce_type": self.message.DESCRIPTOR.full_name,
            "ce_time": self.time.astimezone(UTC).isoformat(),
            "ce_subject": self.key,
            "ce_causationid": self.causation_id,
            "ce_correlationid": self.correlation_id,
            "ce_sequence": f"{self.sequence:020d}" if self.sequence else "",
            "traceparent": self.traceparent,
            "content-type": "application/protobuf",
        }
        return [(name, text.encode()) for name, text in fields.items() if text]

    def value(self) -> bytes:
        return self.message.SerializeToString(deterministic=True)


@dataclass(frozen=True)
class Received:
    """An event as it came, and where it lay."""

    topic: str
    partition: int
    offset: int
    key: str
    event_id: str
    type: str
    source: str
    time: datetime
    message: Message
    causation_id: str = ""
    correlation_id: str = ""
    traceparent: str = ""


def derived_id(cause_id: str, event_type: str, ordinal: int) -> str:
    """The id of the ordinal-th event of that type that follows from a cause: the same whenever it is worked out again."""
    return str(uuid.uuid5(_NAMESPACE, f"{cause_id}/{event_type}/{ordinal}"))


@cache
def message_class(full_name: str) -> type[Message]:
    """Raises UnknownType."""
    _load()
    try:
        found: type[Message] = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(full_name))
    except KeyError as error:
        raise UnknownType(f"no message type {full_name}") from error
    return found


@cache
def _load() -> None:
    for module in _MODULES:
        importlib.import_module(f"trainyard.{module}")


def decode(topic: str, partition: int, offset: int, key: bytes | None, value: bytes | None, headers: Headers | None) -> Received:
    """Raises Undecodable or UnknownType."""
    if value is None:
        raise Undecodable("the record has no value")
    fields: dict[str, str] = {}
    try:
        text_key = (key or b"").decode()
        for name, raw in headers or ():
            fields.setdefault(name.lower(), (raw or b"").decode())
    except UnicodeDecodeError as error:
        raise Undecodable(f"key or headers are not UTF-8: {error}") from error
    full_name, event_id = fields.get("ce_type", ""), fields.get("ce_id", "")
    if not full_name or not event_id:
        raise Undecodable(f"no CloudEvent: the header {'ce_id' if full_name else 'ce_type'} is missing")
    if not full_name.startswith("trainyard."):
        raise Undecodable(f"ce_type {full_name[:200]!r} is none of Trainyard's")
    if not event_id.isprintable():
        raise Undecodable("ce_id has characters that cannot be printed")
    for name, longest in _LONGEST.items():
        if len(fields.get(name, "")) > longest:
            raise Undecodable(f"{name} is longer than {longest} characters")
    if len(text_key) > _LONGEST_KEY:
        raise Undecodable(f"the key is longer than {_LONGEST_KEY} characters")
    content = fields.get("content-type", "application/protobuf")
    if content.partition(";")[0].strip() != "application/protobuf":
        raise Undecodable(f"content-type is {content[:200]!r}, not application/protobuf")
    kind = message_class(full_name)
    try:
        message = kind.FromString(value)
    except DecodeError as error:
        raise Undecodable(f"the value is no {full_name}: {error}") from error
    return Received(
        topic=topic,
        partition=partition,
        offset=offset,
        key=text_key,
        event_id=event_id,
        type=full_name,
        source=fields.get("ce_source", ""),
        time=_time(fields.get("ce_time", "")),
        message=message,
        causation_id=fields.get("ce_causationid", ""),
        correlation_id=fields.get("ce_correlationid", ""),
        traceparent=fields.get("traceparent", ""),
    )


def _time(text: str) -> datetime:
    if not text:
        return datetime.fromtimestamp(0, UTC)
    try:
        when = datetime.fromisoformat(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Undecodable(f"ce_time {text[:100]!r} is no RFC 3339 time") from error
