"""`events tail`: order and wording."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.json_format import MessageToDict, SerializeToJsonError

from trainyard._kafka import Events, Raw, in_causal_order

# Live, an event waits this long for an earlier one from another partition.
_SETTLE = timedelta(milliseconds=400)
_TEXT_LIMIT = 200
_KEY_LIMIT = 128
_ID_SHOWN = 8


def ordered_stream(
    reader: Events, topics: Sequence[str], *, since: datetime | None, from_end: bool, follow: bool, until_idle: float | None
) -> Iterator[Raw]:
    """What is there, sorted as a whole; then what comes, each a moment later."""
    if not from_end:
        backlog: list[Raw] = []
        reached: dict[tuple[str, int], int] = {}
        for batch in reader.read(topics, since=since):
            backlog += batch
        for record in backlog:
            place = (record.topic, record.partition)
            reached[place] = max(reached.get(place, -1), record.offset)
        yield from in_causal_order(backlog)
    else:
        reached = {}
    if not follow and until_idle is None:
        return
    last_news = time.monotonic()
    waiting: list[tuple[float, Raw]] = []
    going_on = lambda: until_idle is None or bool(waiting) or time.monotonic() - last_news < until_idle  # noqa: E731
    for batch in reader.read(topics, since=since, from_end=from_end, after=reached, follow=going_on):
        now = time.monotonic()
        if batch:
            last_news = now
        waiting += [(now, record) for record in batch]
        if waiting and now - waiting[0][0] >= _SETTLE.total_seconds():
            settled = in_causal_order([record for _, record in waiting])
            waiting = []
            yield from settled
    yield from in_causal_order([record for _, record in waiting])


def concerns(record: Raw, run_id: str) -> bool:
    if record.event is None:
        return record.key == run_id.encode()
    return record.event.key == run_id or record.event.correlation_id == run_id or getattr(record.event.message, "run_id", None) == run_id


def _iso(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_object(record: Raw) -> dict[str, Any]:
    place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    event = record.event
    if event is None:
        return {
            "time": _iso(record.at),
            **place,
            "key": record.key.decode("utf-8", "replace"),
            "unreadable": record.trouble,
        }
    return {
        "time": _iso(event.time),
        "type": event.type,
        "key": event.key,
        "id": event.event_id,
        "causation": event.causation_id,
        "correlation": event.correlation_id,
        "source": event.source,
        **place,
        **_data(event.message),
    }


def _data(message: Any) -> dict[str, Any]:
    """JSON has no form for some values that the wire has, a duration of a million years among them: such an event is told as text."""
    try:
        return {"data": MessageToDict(message, preserving_proto_field_name=True)}
    except (SerializeToJsonError, ValueError, TypeError) as error:
        return {"data": None, "text": str(message), "unreadable": f"{type(error).__name__}: {error}"}


def one_line(text: str) -> str:
    """What a terminal would obey rather than show stands there as an escape: anybody may write to the log."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def as_text(record: Raw) -> str:
    """One line: when, what, about whom, the gist, its id and the id of its cause."""
    return one_line(_told(record))


def _told(record: Raw) -> str:
    clock = f"{record.at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]
    event = record.event
    if event is None:
        key = _cut(record.key.decode("utf-8", "replace"), _KEY_LIMIT)
        return f"{clock}  {'(unreadable)':<24} {key}  {record.topic}/{record.partition}@{record.offset}  {record.trouble}"
    cause = event.causation_id[:_ID_SHOWN] or "-"
    return f"{clock}  {event.type.rpartition('.')[2]:<24} {_cut(event.key, _KEY_LIMIT)}  {gist(event.message)}  [{event.source}] {event.event_id[:_ID_SHOWN]} <- {cause}"


def gist(message: Any) -> str:
    """The small fields; of big ones how big they are."""
    parts: list[str] = []
    for field, value in message.ListFields():
        if field.name in ("run_id", "submission_id"):
            continue
        repeated = getattr(field, "is_repeated", None)
        if repeated is None:
            repeated = field.label == field.LABEL_REPEATED
        if field.name == "lines":
            parts.append(f"{value[0]!r}" + (f" and {len(value) - 1} more lines" if len(value) > 1 else ""))
        elif repeated:
            simple = field.message_type is None and sum(len(str(item)) for item in value) < 80
            parts.append(f"{field.name}=" + (",".join(str(item) for item in value) if simple else f"({len(value)})"))
        elif field.message_type is None:
            text = field.enum_type.values_by_number[value].name if field.enum_type is not None else str(value)
            text = text[:_ID_SHOWN] if field.name == "incarnation" else text
            parts.append(f"{field.name}={text!r}" if " " in text else f"{field.name}={text}")
        elif field.message_type.full_name == "trainyard.event.v1.Failure":
            parts.append(f"failure={value.code}: {value.message}")
        elif field.message_type.full_name == "trainyard.event.v1.ArtifactSet":
            parts.append(f"{field.name}=({len(value.files)} files)")
        elif field.message_type.full_name == "trainyard.job.v1.RunSpec":
            parts.append(f"script={value.entry_script} target={value.compute_target}")
    return _cut(" ".join(parts).replace("\n", " "), _TEXT_LIMIT)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
