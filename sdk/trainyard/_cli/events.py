"""`trainyard events`: tail reads Kafka itself; subscribe asks the history service, which needs no broker within reach."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from trainyard._cli.common import Config, Json, as_of, moment, new_group, stream, workspace
from trainyard._cli.output import emit, iso, say
from trainyard._errors import UserErrorException

group = new_group("What happens, as events.")
# Chatter: heartbeats come every second and say nothing that another event does not; sampled calls are large, and many.
_HEARTBEATS, _SAMPLES = "trainyard.heartbeats", "trainyard.inference"
Follow = Annotated[bool, typer.Option(help="go on with what comes; --no-follow ends where the topics end now")]
Topics = Annotated[list[str] | None, typer.Option(help="only this topic; may be repeated")]
Types = Annotated[
    list[str] | None, typer.Option("--type", help="only this type, e.g. trainyard.job.v1.RunQueued or RunQueued; may be repeated")
]
Count = Annotated[int, typer.Option("--limit", min=0, help="at most so many; 0 = all")]


def starting_point(text: str) -> tuple[datetime | None, bool]:
    """(since, from the end): 'beginning', 'now', an ISO time or a span like 2h."""
    if text in ("beginning", "now"):
        return None, text == "now"
    return moment(text, "--from"), False


@group.command("tail")
def tail(
    start: Annotated[str, typer.Option("--from", help="beginning, now, an ISO time, or 90s, 30m, 2h, 7d ago")] = "now",
    follow: Follow = True,
    until_idle: Annotated[float | None, typer.Option(help="end once nothing came for so many seconds")] = None,
    topic: Topics = None,
    types: Types = None,
    run: Annotated[str | None, typer.Option(help="only what is about this run")] = None,
    limit: Count = 0,
    heartbeats: Annotated[bool, typer.Option(help="heartbeats too")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Every event in order, with what caused it; sampled calls where their topic is asked for."""
    from trainyard._tail import as_object, as_text, concerns, ordered_stream

    since, from_end = starting_point(start)
    reader = workspace(config)._events
    there = reader.topics()
    unknown = sorted(set(topic or ()) - set(there))
    if unknown:
        raise UserErrorException(f"There is no topic {unknown[0]!r}; there is: {', '.join(there)}.", target=unknown[0])
    topics = list(topic or [name for name in there if name != _SAMPLES and (heartbeats or name != _HEARTBEATS)])
    records = ordered_stream(reader, topics, since=since, from_end=from_end, follow=follow, until_idle=until_idle)
    kept = (
        record
        for record in records
        if (run is None or concerns(record, run)) and _of_type(record.event.type if record.event is not None else "", types)
    )
    for record in _some(kept, limit):
        if as_json:
            emit(as_object(record))
        else:
            say(as_text(record))


@group.command("subscribe")
def subscribe(
    start: Annotated[str, typer.Option("--from", help="beginning, now, an ISO time, 2h ago, or TOPIC/PARTITION@OFFSET")] = "now",
    follow: Follow = True,
    topic: Topics = None,
    types: Types = None,
    key: Annotated[str, typer.Option(help="only this key, e.g. a run id")] = "",
    limit: Count = 0,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """The same over gRPC, from any place in the log."""
    from trainyard.history.v1 import history_pb2

    request = history_pb2.SubscribeRequest(topics=topic or [], follow=follow, key=key, from_now=start == "now")
    if start not in ("now", "beginning"):
        getattr(request, "from").CopyFrom(as_of(start))
    if types and all("." in name for name in types):
        request.types.extend(types)
    clients = workspace(config)._clients
    found = (event for answer in stream(clients.events.Subscribe(request)) for event in answer.events if _of_type(event.type, types))
    for event in _some(found, limit):
        shown = _event(event)
        if as_json:
            emit(shown)
        else:
            say(
                f"{shown['time']}  {event.type.rpartition('.')[2]:<24} {event.key}  {_gist(event)}  [{event.source}] {event.id[:8]} <- {event.cause_id[:8] or '-'}"
            )


def _of_type(name: str, wanted: list[str] | None) -> bool:
    return not wanted or name in wanted or name.rpartition(".")[2] in wanted


def _some(items: Iterable[Any], limit: int) -> Iterable[Any]:
    return itertools.islice(items, limit or None)


def _message(event: Any) -> Any:
    """None for a type that this client does not know, or bytes that are none of it."""
    from google.protobuf.message import DecodeError

    from trainyard._cloudevents import UnknownType, message_class

    try:
        return message_class(event.type).FromString(event.value)
    except (UnknownType, DecodeError):
        return None


def _gist(event: Any) -> str:
    from trainyard._tail import gist

    message = _message(event)
    return gist(message) if message is not None else f"({len(event.value)} bytes of a type that this client does not know)"


def _event(event: Any) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict

    message = _message(event)
    return {
        "time": iso(event.recorded_at) or datetime.fromtimestamp(0, UTC).isoformat(),
        "type": event.type,
        "key": event.key,
        "id": event.id,
        "causation": event.cause_id,
        "correlation": event.correlation_id,
        "source": event.source,
        "topic": event.place.topic,
        "partition": event.place.partition,
        "offset": int(event.place.offset),
        "data": MessageToDict(message, preserving_proto_field_name=True) if message is not None else {"bytes": event.value.hex()},
    }
