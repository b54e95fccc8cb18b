"""Duplicates, losses and crashes in any order: at the end each input took effect once and each answer lies in the log."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.chassis.loop.memory import MemoryLog, MemoryPublisher
from services.chassis.records import Place, Record
from services.chassis.store import Store, Transaction
from tests.unit.chassis.small_service import JOBS, LETTERS, PULSES, TASKS, SmallService, Tally, an_event, cancel, events, letters, queued
from trainyard._cloudevents import derived_id
from trainyard.job.v1.job_pb2 import CancelRun, RunCancelRequested, RunQueued, RunWarned

RUNS = st.sampled_from(["r1", "r2"])
WHAT = st.sampled_from(["queued", "enough", "too late", "silence", "invalid", "boom", "queued boom"])
BAD = ("invalid", "boom", "queued boom")
PLACES = st.sampled_from([Place(JOBS, 0), Place(TASKS, 0)])


class Crash(BaseException):
    """The process ends here."""


class CrashingStore(Store):
    """A file whose process ends before or after its next commit, if it is told so."""

    crash = ""

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with super().transaction() as transaction:
            yield transaction
            if self.crash == "before":
                raise Crash
        if self.crash == "after":
            raise Crash


class AnyCrash(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._runner = asyncio.Runner()
        self.log = MemoryLog({JOBS: 1, TASKS: 1, PULSES: 1, LETTERS: 1})
        self.delivered: dict[Place, int] = {}
        self.inputs: dict[str, tuple[str, str]] = {}
        self._start()

    def teardown(self) -> None:
        try:
            self._at_the_end_nothing_is_lost_or_doubled()
        finally:
            self.service.store.close()
            self._runner.close()
            self._folder.cleanup()

    # -- what happens outside

    @rule(events=st.lists(st.tuples(RUNS, WHAT), min_size=1, max_size=5))
    def somebody_publishes(self, events: list[tuple[str, str]]) -> None:
        for event in events:
            event_id = f"input-{len(self.inputs)}"
            self.inputs[event_id] = event
            self._publish(event_id)

    @precondition(lambda self: self.inputs)
    @rule(chosen=st.integers(0, 1000))
    def somebody_publishes_the_same_event_again(self, chosen: int) -> None:
        self._publish(sorted(self.inputs)[chosen % len(self.inputs)])

    # -- what the loop does

    @rule(place=PLACES, count=st.integers(1, 4))
    def the_loop_delivers(self, place: Place, count: int) -> None:
        for record in self._next(place, count):
            self._run(self.service.engine.deliver(record))

    @rule(counts=st.lists(st.tuples(PLACES, st.integers(1, 4)), min_size=1, max_size=3))
    def the_loop_delivers_many_together(self, counts: list[tuple[Place, int]]) -> None:
        self._run(self.service.engine.deliver(*(record for place, count in counts for record in self._next(place, count))))

    @rule(events=st.lists(st.tuples(RUNS, WHAT), min_size=2, max_size=6), dropped=st.sets(st.integers(0, 5)), together=st.booleans())
    def the_loop_drops_some_of_what_comes(self, events: list[tuple[str, str]], dropped: set[int], together: bool) -> None:
        place = Place(JOBS, 0)
        self.delivered[place] = len(self.log.lanes([JOBS])[place])
        self.somebody_publishes(events)
        kept = [record for number, record in enumerate(self._next(place, len(events))) if number not in dropped]
        if together:
            self._run(self.service.engine.deliver(*kept))
        else:
            for record in kept:
                self._run(self.service.engine.deliver(record))

    @rule(place=PLACES, back=st.integers(1, 5))
    def the_loop_goes_back(self, place: Place, back: int) -> None:
        self.delivered[place] = max(0, self.delivered.get(place, 0) - back)

    @rule()
    def the_guard_fetches(self) -> None:
        self._run(self.service.engine.fetch_missing())

    # -- what the outbox does

    @rule(limit=st.integers(1, 5))
    def the_outbox_leaves(self, limit: int) -> None:
        MemoryPublisher(self.log).publish(self.service.engine.unsent(limit))
        self.service.engine.sent()

    @rule(limit=st.integers(1, 5), reached=st.integers(0, 5))
    def the_process_ends_while_it_sends(self, limit: int, reached: int) -> None:
        MemoryPublisher(self.log).publish(self.service.engine.unsent(limit)[:reached])
        self._restart()

    # -- how the process ends

    @rule(place=PLACES, when=st.sampled_from(["before", "after"]), count=st.integers(1, 3))
    def the_process_ends_at_a_commit(self, place: Place, when: str, count: int) -> None:
        self.store.crash = when
        try:
            self._run(self.service.engine.deliver(*self._next(place, count)))
        except Crash:
            pass
        self._restart()

    @rule(records=st.integers(1, 5))
    def the_process_ends_while_it_catches_up(self, records: int) -> None:
        self._start(catch_up=False)
        self.store.crash = "before" if records % 2 else "after"
        try:
            self._run(self.service.engine.catch_up())
        except Crash:
            pass
        self._restart()

    @precondition(lambda self: self._nothing_is_half_sent())
    @rule()
    def the_database_is_lost(self) -> None:
        """Its outbox too: answers of which none was sent must follow from the log again."""
        self.service.store.close()
        for path in Path(self._folder.name).iterdir():
            path.unlink()
        self._start()

    # -- what must hold

    @invariant()
    def no_two_records_of_one_id_differ(self) -> None:
        contents: dict[bytes, set[object]] = {}
        for record in self.log.everything():
            headers = dict(record.headers)
            # Worked out again after the database was lost it has another time and nothing else.
            told = tuple(sorted((name, value) for name, value in headers.items() if name != "ce_time"))
            contents.setdefault(headers["ce_id"] or b"", set()).add((record.key, record.value if record.topic != LETTERS else b"", told))
        assert all(len(those) == 1 for those in contents.values())

    @invariant()
    def nothing_has_taken_effect_more_often_than_it_was_published(self) -> None:
        for run_id, tally in self.service.tallies().items():
            most = self._expected()[run_id]
            assert tally.queued <= most.queued
            assert tally.requested <= most.requested
            assert tally.warned <= most.warned

    def _at_the_end_nothing_is_lost_or_doubled(self) -> None:
        self._run(self.service.settle())

        assert {run_id: tally for run_id, tally in self.service.tallies().items() if tally != Tally()} == self._expected()
        told = self.log.everything()
        answered = [event_id for event_id, (_, what) in self.inputs.items() if what in ("enough", "too late")]
        for kind, each in ((RunCancelRequested, 1), (RunWarned, 2)):
            expected = {derived_id(cause, kind.DESCRIPTOR.full_name, ordinal) for cause in answered for ordinal in range(each)}
            assert {event.event_id for event in events(told, kind)} == expected
        bad = {(it.topic, it.partition, it.offset) for it in told if self._what(it) in BAD}
        assert {(letter.topic, letter.partition, letter.offset) for letter in letters(told)} == bad

    def _expected(self) -> dict[str, Tally]:
        counts: dict[str, Counter[str]] = {}
        for run_id, what in self.inputs.values():
            counts.setdefault(run_id, Counter())[what] += 1
        tallies = {}
        for run_id, of in counts.items():
            answered = of["enough"] + of["too late"]
            tallies[run_id] = Tally(of["queued"], answered + of["silence"], answered, 2 * answered)
        return {run_id: tally for run_id, tally in tallies.items() if tally != Tally()}

    # -- how it is done

    def _start(self, *, catch_up: bool = True) -> None:
        self.store = CrashingStore(f"sqlite:///{self._folder.name}/tally.db")
        self.service = SmallService(self.log, self.store)
        if catch_up:
            self._run(self.service.engine.catch_up())

    def _restart(self) -> None:
        self.service.store.close()
        self._start()

    def _what(self, record: Record) -> str:
        event_id = (dict(record.headers)["ce_id"] or b"").decode()
        return self.inputs.get(event_id, ("", ""))[1]

    def _nothing_is_half_sent(self) -> bool:
        answers = {(event.causation_id, event.event_id) for event in events(self.log.everything()) if event.causation_id}
        return set(Counter(cause for cause, _ in answers).values()) <= {3}

    def _publish(self, event_id: str) -> None:
        run_id, what = self.inputs[event_id]
        kind, _, experiment = what.partition(" ")
        message: CancelRun | RunQueued = queued(run_id, experiment=experiment) if kind == "queued" else cancel(run_id, what)
        self.log.append(an_event(message, event_id=event_id))

    def _next(self, place: Place, count: int) -> Iterator[Record]:
        at = self.delivered.get(place, 0)
        for record in self.log.lanes([place.topic])[place][at : at + count]:
            self.delivered[place] = record.offset + 1
            yield record

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(coroutine)


AnyCrash.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_any_order_of_crashes_and_losses_leaves_each_effect_once = AnyCrash.TestCase
