"""A service for the fault tests, run as a process of its own: counts how often each event took effect, and answers every request.

python -m tests.component.chassis.counting_service NAME TOPIC [RECORDS]    with RECORDS its loop falls silent after so many
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from services.chassis import topics
from services.chassis.handler import Command, Emit
from services.chassis.loop.faust_loop import FaustLoop
from services.chassis.records import Deliver, Record
from services.chassis.service import Service
from services.chassis.settings import Settings
from services.chassis.store import Documents
from trainyard._cloudevents import Received
from trainyard.job.v1.job_pb2 import CancelRun, RunCancelRequested, RunQueued, RunWarned

EFFECT, ASKED = "effect", "asked"


class CountingHandler:
    """A document for each event that took effect, with how often. An answer tells how many requests its run has had."""

    answers = (CancelRun,)

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def react(self, event: Received, documents: Documents) -> Iterable[Emit]:
        request = event.message
        if not isinstance(request, CancelRun):
            return []
        if request.reason == "hang":
            time.sleep(3600)
        number = int(documents.get(ASKED, request.run_id) or b"0") + 1
        return [
            Emit(self._topic, request.run_id, RunCancelRequested(run_id=request.run_id, reason=str(number))),
            Emit(self._topic, request.run_id, RunWarned(run_id=request.run_id, message=str(number))),
        ]

    def apply(self, event: Received, documents: Documents) -> None:
        if isinstance(event.message, (CancelRun, RunQueued)):
            documents.put(EFFECT, event.event_id, b"%d" % (int(documents.get(EFFECT, event.event_id) or b"0") + 1))
        if isinstance(event.message, CancelRun):
            run_id = event.message.run_id
            documents.put(ASKED, run_id, b"%d" % (int(documents.get(ASKED, run_id) or b"0") + 1))

    def command(self, command: Command, documents: Documents) -> Iterable[Emit]:
        return []

    def reset(self, documents: Documents) -> None:
        """Nothing is kept in memory."""


def fall_silent_after(records: int) -> None:
    """faust goes on consuming and acknowledging, and nothing of it arrives any more."""
    run = FaustLoop.run
    left = records

    async def run_for_a_while(self: FaustLoop, deliver: Deliver, ready: Callable[[], None]) -> None:
        async def deliver_some(*records: Record) -> None:
            nonlocal left
            some, left = records[:left], max(0, left - len(records))
            await deliver(*some)

        await run(self, deliver_some, ready)

    FaustLoop.run = run_for_a_while  # type: ignore[method-assign]


def main() -> None:
    name, topic, *silence = sys.argv[1:]
    if silence:
        fall_silent_after(int(silence[0]))
    settings = Settings.load(name)
    # Topics of the test's own, so that tests that share a broker never meet.
    topics.FILE = Path(settings.home) / "topics.yaml"
    Service(name, settings).listens(topic, to=CountingHandler(topic)).run()


if __name__ == "__main__":
    main()
