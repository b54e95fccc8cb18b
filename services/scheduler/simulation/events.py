"""Recorded events: from Kafka, or from a file that `trainyard events tail --json` has written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message

from trainyard._cloudevents import UnknownType, message_class
from trainyard._kafka import Events, in_causal_order

TOPICS = ("trainyard.jobs", "trainyard.tasks", "trainyard.agents")
_PLACE = re.compile(r"([A-Za-z0-9._-]+)/(\d+)@(\d+)\Z")


@dataclass(frozen=True)
class Recorded:
    at: datetime
    message: Message
    place: tuple[str, int, int] = ("", 0, 0)
    """Topic, partition, offset."""


def of_kafka(bootstrap: str) -> list[Recorded]:
    """All that these topics hold, in causal order. What cannot be read is left out, as the scheduler does. Raises PlatformUnavailableException."""
    records = in_causal_order(Events(bootstrap).read_all(TOPICS))
    told = [Recorded(_whole(it.at), it.event.message, (it.topic, it.partition, it.offset)) for it in records if it.event is not None]
    return _in_time(told)


def of_file(path: Path) -> list[Recorded]:
    """Raises OSError, and ValueError with the line at fault."""
    with path.open(encoding="utf-8") as lines:
        return _in_time([event for number, line in enumerate(lines, 1) if line.strip() and (event := _of_line(path, number, line))])


def to_lines(events: Iterable[Recorded]) -> Iterator[str]:
    """As `of_file` takes them."""
    for event in events:
        topic, partition, offset = event.place
        shown = {
            "time": event.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "type": event.message.DESCRIPTOR.full_name,
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "data": MessageToDict(event.message, preserving_proto_field_name=True),
        }
        yield json.dumps(shown, sort_keys=True, separators=(",", ":")) + "\n"


def moment(events: Iterable[Recorded], text: str) -> datetime:
    """An ISO time, UTC where it names no zone; or TOPIC/PARTITION@OFFSET: when that event was. Raises ValueError."""
    if found := _PLACE.match(text):
        place = (found[1], int(found[2]), int(found[3]))
        for event in events:
            if event.place == place:
                return event.at
        raise ValueError(f"{text!r} is no event of {', '.join(TOPICS)}")
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is neither an ISO time nor TOPIC/PARTITION@OFFSET") from error
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC)


def _of_line(path: Path, number: int, line: str) -> Recorded | None:
    """None for what is no event of these topics, or of a type that this version does not know."""
    try:
        shown: Any = json.loads(line)
        if shown.get("topic") not in TOPICS or shown.get("data") is None:
            return None
        message = ParseDict(shown["data"], message_class(shown["type"])(), ignore_unknown_fields=True)
        at = datetime.fromisoformat(shown["time"])
        at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
        return Recorded(_whole(at), message, (shown["topic"], int(shown["partition"]), int(shown["offset"])))
    except UnknownType:
        return None
    except (ValueError, ParseError, KeyError, TypeError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"[:300]
        raise ValueError(f"{path}, line {number}, is no event as `trainyard events tail --json` writes it: {what}") from error


def _in_time(events: list[Recorded]) -> list[Recorded]:
    """Clocks differ a little and causes do not: nobody is before what comes before him in the causal order."""
    told: list[Recorded] = []
    for event in events:
        late = told and event.at < told[-1].at
        told.append(Recorded(told[-1].at, event.message, event.place) if late else event)
    return told


def _whole(at: datetime) -> datetime:
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
