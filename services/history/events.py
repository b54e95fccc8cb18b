"""EventService: the log as it lies there, from any moment, to the end or for as long as wanted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc

from services.chassis.choices import close_to, told
from services.chassis.grpc_server import Code, refuse
from services.chassis.loop.kafka_feed import KafkaFeed
from services.chassis.records import Place
from services.chassis.topics import topics
from services.history import asking
from services.history.applying import TOPICS
from services.history.merging import TimeMerge
from trainyard._kafka import partition_of
from trainyard.history.v1 import history_pb2 as pb
from trainyard.history.v1 import history_pb2_grpc

_POLL_MS = 200
_AT_ONCE = 500
_BYTES_AT_ONCE = 1 << 20
# One partition may run so far ahead of the others before it is held.
_AHEAD = 5000
_AHEAD_OF_THE_CALLER = 4
_SUBSCRIBERS = 64


@dataclass(frozen=True)
class Wanted:
    """A subscription, checked."""

    topics: Sequence[str]
    types: Collection[bytes]
    key: str
    since: int | None
    """Milliseconds; None: from the beginning, or from now."""
    first: tuple[Place, int] | None
    """A record to begin at in its own partition."""
    from_now: bool
    follow: bool


class EventServicer(history_pb2_grpc.EventServiceServicer):
    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._threads = ThreadPoolExecutor(_SUBSCRIBERS, "subscriber")
        self._count = 0

    async def Subscribe(self, request: pb.SubscribeRequest, _: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[pb.SubscribeResponse]:
        """Begins to read before it returns its first answer, so that what is written after the call came is never missed."""
        wanted = _checked(request)
        if self._count >= _SUBSCRIBERS:
            raise refuse(Code.RESOURCE_EXHAUSTED, "TooManySubscribers", f"{_SUBSCRIBERS} subscriptions are open; close one first.")
        self._count += 1
        loop = asyncio.get_running_loop()
        stop = threading.Event()
        ready: asyncio.Queue[pb.SubscribeResponse | Exception | None] = asyncio.Queue()
        room = threading.Semaphore(_AHEAD_OF_THE_CALLER)

        def read() -> None:
            end: Exception | None = None
            try:
                for answer in read_events(self._bootstrap, wanted, stop):
                    while not room.acquire(timeout=1.0):
                        if stop.is_set():
                            return
                    loop.call_soon_threadsafe(ready.put_nowait, answer)
            except Exception as error:
                end = error
            finally:
                loop.call_soon_threadsafe(ready.put_nowait, end)

        work = loop.run_in_executor(self._threads, read)
        try:
            while (answer := await ready.get()) is not None:
                if isinstance(answer, Exception):
                    raise answer
                room.release()
                yield answer
        finally:
            stop.set()
            self._count -= 1
            work.cancel()


def _checked(request: pb.SubscribeRequest) -> Wanted:
    known = topics()
    for name in request.topics:
        if name not in known:
            close = close_to(name, known)
            raise asking.wrong(f"There is no topic {name[:200]!r}; there is: {told(close, known)}.", "topics")
    if request.from_now and request.HasField("from"):
        raise asking.wrong("from and from_now exclude each other.", "from")
    begin = getattr(request, "from")
    which = begin.WhichOneof("moment")
    return Wanted(
        topics=list(dict.fromkeys(request.topics)) or list(TOPICS),
        types={name.encode() for name in request.types},
        key=request.key,
        since=asking.time_of(begin) if which == "time" else None,
        first=asking.place_of(begin) if which == "place" else None,
        from_now=request.from_now,
        follow=request.follow,
    )


def read_events(bootstrap: str, wanted: Wanted, stop: threading.Event) -> Iterator[pb.SubscribeResponse]:
    """Until the end as it was, or until `stop`."""
    feed = KafkaFeed(bootstrap)
    try:
        places = _places(feed, wanted)
        ends, begins = feed.ends(places), feed.begins(places)
        at = _start(feed, wanted, places, begins, ends)
        feed.assign(at)
        merge = TimeMerge(place for place in places if at[place] < ends[place])
        held: set[Place] = set()
        behind = {place for place in places if at[place] < ends[place]}
        while not stop.is_set() and (behind or wanted.follow):
            for raws in feed.poll(_POLL_MS):
                place = Place(raws[0].topic, raws[0].partition)
                merge.add(raw for raw in raws if wanted.follow or raw.offset < ends[place])
                if place in behind and raws[-1].offset + 1 >= ends[place]:
                    behind.discard(place)
                    merge.at_end(place)
            yield from _packed(raw for raw in merge.ready() if _fits(raw, wanted))
            for place in places:
                ahead = merge.waiting(place) > _AHEAD
                if ahead != (place in held):
                    feed.hold(place, ahead)
                    held ^= {place}
    finally:
        feed.close()


def _places(feed: KafkaFeed, wanted: Wanted) -> list[Place]:
    places = feed.places(wanted.topics)
    if not wanted.key:
        return places
    counts = {name: sum(place.topic == name for place in places) for name in wanted.topics}
    return [Place(name, partition_of(wanted.key, count)) for name, count in counts.items()]


def _start(feed: KafkaFeed, wanted: Wanted, places: list[Place], begins: Any, ends: Any) -> dict[Place, int]:
    if wanted.from_now:
        return dict(ends)
    since = wanted.since
    if wanted.first is not None:
        since = _time_of(feed, *wanted.first)
    if since is None:
        return dict(begins)
    found = feed.at_time(places, since)
    at = {place: found.get(place, ends[place]) for place in places}
    if wanted.first is not None and wanted.first[0] in at:
        at[wanted.first[0]] = wanted.first[1]
    return at


def _time_of(feed: KafkaFeed, place: Place, offset: int) -> int:
    begin, end = feed.begins([place])[place], feed.ends([place])[place]
    if not begin <= offset < end:
        raise asking.no_such_record(place, offset, end)
    feed.assign({place: offset})
    for _ in range(50):
        for raws in feed.poll(_POLL_MS):
            return int(raws[0].timestamp)
    raise asking.no_such_record(place, offset, end)


def _fits(raw: Any, wanted: Wanted) -> bool:
    if wanted.key and raw.key != wanted.key.encode():
        return False
    return not wanted.types or any(name == "ce_type" and value in wanted.types for name, value in raw.headers or ())


def _packed(raws: Iterator[Any]) -> Iterator[pb.SubscribeResponse]:
    answer, size = pb.SubscribeResponse(), 0
    for raw in raws:
        event = _event(raw)
        answer.events.append(event)
        size += event.ByteSize()
        if len(answer.events) >= _AT_ONCE or size > _BYTES_AT_ONCE:
            yield answer
            answer, size = pb.SubscribeResponse(), 0
    if answer.events:
        yield answer


def _event(raw: Any) -> pb.Event:
    """As it lies there; text that is no UTF-8 is shown as far as it is."""
    headers = {name: (value or b"").decode("utf-8", "replace") for name, value in reversed(raw.headers or ())}
    event = pb.Event(
        place=pb.Place(topic=raw.topic, partition=raw.partition, offset=raw.offset),
        key=(raw.key or b"").decode("utf-8", "replace"),
        id=headers.get("ce_id", ""),
        type=headers.get("ce_type", ""),
        source=headers.get("ce_source", ""),
        cause_id=headers.get("ce_causationid", ""),
        correlation_id=headers.get("ce_correlationid", ""),
        value=raw.value or b"",
    )
    event.recorded_at.FromMilliseconds(raw.timestamp)
    return event
