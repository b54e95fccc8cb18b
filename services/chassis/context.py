"""What a service's own code may ask of the chassis: requests that return once they have taken effect, and reads that see them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from google.protobuf.message import Message

from services.chassis.engine import Engine
from services.chassis.grpc_server import Code, refuse
from services.chassis.records import LogReader, NewRecord, Place, Publisher, Unavailable
from services.chassis.refusals import Refusal
from services.chassis.settings import Settings
from services.chassis.store import Documents, Store
from services.chassis.topics import MAX_MESSAGE_BYTES
from trainyard._cloudevents import Outgoing

_APPLY_SECONDS = 30.0
_TELL_SECONDS = 10.0
_LONGEST_CALL_SECONDS = 3600.0
_CALLS_AT_ONCE = 4
A = TypeVar("A")
T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """What servicers and background tasks are given.

    Calls publish by `requests`, in threads of their own: while the log is away they wait for each other, and pulses and the
    outbox for none of them.
    """

    settings: Settings
    store: Store
    engine: Engine
    publisher: Publisher
    reader: LogReader
    requests: Publisher
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_CALLS_AT_ONCE, thread_name_prefix="calls"))

    async def request(self, topic: str, key: str, message: Message) -> str:
        """Publishes a request as any client could, waits until it has taken effect here, and returns its event id.

        What follows from it at once lies in the log by then: whoever acts on the answer may look there, or ask another service.
        Raises Refused, with the reason of the dead letter where it became one, and Unavailable.
        """
        event_id = str(uuid.uuid4())
        outgoing = Outgoing(topic, key, message, event_id, f"trainyard/{self.settings.service}/grpc", datetime.now(UTC))
        value = outgoing.value()
        if len(value) > MAX_MESSAGE_BYTES:
            what = f"The request has {len(value)} bytes; a message has {MAX_MESSAGE_BYTES} at most."
            raise refuse(Code.INVALID_ARGUMENT, "RequestTooLarge", what, key)
        record = NewRecord(topic, key.encode(), value, tuple(outgoing.headers()))
        with self.engine.refusals.awaited(event_id) as refusal:
            ((place, offset),) = await self._in_thread(self.requests.publish, [record])
            if not await self.engine.applied(place, offset, _APPLY_SECONDS):
                raise refuse(
                    Code.DEADLINE_EXCEEDED, "Unavailable", f"The request lies in the log and was not handled within {_APPLY_SECONDS:.0f} s."
                )
            _raise(refusal(), event_id, key)
        await self.told()
        return event_id

    async def answer(self, look: Callable[[Documents], T | None], seconds: float | None) -> T | None:
        """What `look` finds in the documents as soon as it finds something, and once it lies in the log; None when the time is up.

        `seconds` None: the caller has set no deadline.
        """

        def found() -> T | None:
            with self.store.reading() as documents:
                return look(documents)

        await self.engine.until(lambda: found() is not None, _LONGEST_CALL_SECONDS if seconds is None else seconds)
        answer = found()
        if answer is not None:
            await self.told()
        return answer

    async def told(self) -> None:
        """Waits until all that follows from what was handled so far lies in the log; a broker that is away delays an answer only so long."""
        await self.engine.told(_TELL_SECONDS)

    async def caught_up(self, topic: str, key: str, timeout: float = _APPLY_SECONDS) -> None:
        """Waits until all that lies in the key's partition now has taken effect here. Raises Unavailable."""
        from trainyard._kafka import partition_of

        ends = await self._in_thread(self.reader.ends, [topic])
        place = Place(topic, partition_of(key, len(ends)))
        if ends[place] and not await self.engine.applied(place, ends[place] - 1, timeout):
            raise Unavailable(f"this service lags behind {topic}")

    async def caught_up_whole(self, topic: str, timeout: float = _APPLY_SECONDS) -> None:
        """As `caught_up`, of every partition: where what counts may lie under any key."""
        for place, end in (await self._in_thread(self.reader.ends, [topic])).items():
            if end and not await self.engine.applied(place, end - 1, timeout):
                raise Unavailable(f"this service lags behind {topic}")

    async def in_log(self, timeout: float = _TELL_SECONDS) -> None:
        """As `told`, for whoever must not go on before: raises Unavailable."""
        if not await self.engine.told(timeout):
            raise Unavailable("what was decided does not lie in the log yet")

    async def _in_thread(self, work: Callable[[A], T], argument: A) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, argument)


def _raise(refusal: Refusal | None, event_id: str, key: str) -> None:
    if refusal is None:
        return
    if refusal.is_the_messages_fault:
        raise refuse(Code.INVALID_ARGUMENT, "UserError", f"The request cannot be taken: {refusal.reason}.", key)
    what = f"The service failed on the request {event_id}; the dead letter, and its log, have the reason."
    raise refuse(Code.INTERNAL, "InternalError", what, event_id)
