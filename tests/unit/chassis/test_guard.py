"""Liveness by progress: when the guard fetches, when it ends the process, and when it holds its hand."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping, Sequence

import pytest

from services.chassis.guard import EXIT_CODE, Progress, ProgressGuard, Verdict
from services.chassis.loop.memory import MemoryLog, MemoryReader
from services.chassis.records import NewRecord, Place, Unavailable

ONE, OTHER = Place("jobs", 0), Place("jobs", 1)
FINE, FETCH, EXIT = Verdict.FINE, Verdict.FETCH, Verdict.EXIT


def a_progress() -> Progress:
    """One that has looked at a quiet log at second 0."""
    progress = Progress(fetch_after=2, exit_after=10)
    progress.judge({ONE: 0, OTHER: 0}, {}, 0)
    return progress


def verdicts(progress: Progress, seconds: Sequence[float], ends: Mapping[Place, int], positions: Mapping[Place, int]) -> list[Verdict]:
    return [progress.judge(ends, positions, second) for second in seconds]


def test_where_nothing_waits_all_is_fine_for_ever() -> None:
    assert verdicts(a_progress(), range(1, 100), {ONE: 5}, {ONE: 5}) == [FINE] * 99


def test_records_that_wait_and_stand_still_are_fetched_again_and_again_and_then_the_process_ends() -> None:
    told = verdicts(a_progress(), range(1, 12), {ONE: 5}, {ONE: 4})

    assert told == [FINE, FINE, FETCH, FINE, FETCH, FINE, FETCH, FINE, FETCH, FINE, EXIT]


def test_a_partition_that_nothing_was_read_of_yet_waits_too() -> None:
    assert verdicts(a_progress(), [1, 3], {ONE: 1}, {}) == [FINE, FETCH]


def test_a_partition_that_moves_is_left_alone_however_far_it_lags() -> None:
    progress = a_progress()

    told = [progress.judge({ONE: 1000}, {ONE: second}, second) for second in range(1, 30)]

    assert told == [FINE] * 29


def test_a_partition_that_stands_still_is_fetched_while_others_move_and_does_not_end_the_process() -> None:
    progress = a_progress()

    told = [progress.judge({ONE: 1, OTHER: 1000}, {ONE: 0, OTHER: second}, second) for second in range(1, 30)]

    assert FETCH in told[:4]
    assert EXIT not in told


def test_progress_after_a_long_standstill_counts_as_progress() -> None:
    progress = a_progress()
    verdicts(progress, range(1, 10), {ONE: 5}, {ONE: 3})

    told = verdicts(progress, [10, 11], {ONE: 5}, {ONE: 4})

    assert told == [FINE, FINE]


def test_what_begins_to_wait_now_has_all_of_its_time() -> None:
    progress = a_progress()
    verdicts(progress, range(1, 60), {ONE: 5}, {ONE: 5})

    assert verdicts(progress, [60, 61, 62], {ONE: 6}, {ONE: 5}) == [FINE, FINE, FETCH]


def test_while_the_log_is_away_no_time_passes() -> None:
    progress = a_progress()
    verdicts(progress, range(1, 10), {ONE: 5}, {ONE: 4})

    progress.unknown()

    assert verdicts(progress, [10, 11, 12], {ONE: 5}, {ONE: 4}) == [FINE, FINE, FETCH]


def test_a_process_that_was_suspended_is_given_time_to_go_on() -> None:
    progress = a_progress()
    progress.judge({ONE: 5}, {ONE: 4}, 1)

    assert progress.judge({ONE: 5}, {ONE: 4}, 3600) is FINE


class Stalled:
    """A service whose positions stand still, with a guard over it."""

    def __init__(self, reader: MemoryReader | None = None, fetch_heals: bool = False) -> None:
        self.log = MemoryLog({"jobs": 1})
        self.reader = reader or MemoryReader(self.log)
        self.positions: dict[Place, int] = {}
        self.told: queue.Queue[int | str] = queue.Queue()
        self._fetch_heals = fetch_heals

    def fetch(self) -> None:
        if self._fetch_heals:
            self.positions[ONE] = 1
        self.told.put("fetch")

    def guard(self, fetch_after: float = 0.02, exit_after: float = 0.2) -> ProgressGuard:
        progress = Progress(fetch_after, exit_after)
        return ProgressGuard(self.reader, ["jobs"], lambda: self.positions, self.fetch, progress=progress, every=0.005, exit=self.told.put)


def test_the_guard_fetches_first_and_then_ends_the_process_with_its_stacks_told(capfd: pytest.CaptureFixture[str]) -> None:
    service = Stalled()
    service.log.append(NewRecord("jobs", b"k", b""))
    guard = service.guard()

    guard.start()
    guard.join(30)

    told = list(service.told.queue)
    assert told[0] == "fetch"
    assert told[-1] == EXIT_CODE == 70
    assert "test_guard.py" in capfd.readouterr().err


def test_a_fetch_that_heals_lets_the_process_live() -> None:
    class Counting(MemoryReader):
        looks = 0
        enough = threading.Event()

        def ends(self, topics: Sequence[str]) -> Mapping[Place, int]:
            self.looks += 1
            if self.looks == 100:
                self.enough.set()
            return {ONE: 1}

    reader = Counting(MemoryLog({"jobs": 1}))
    service = Stalled(reader, fetch_heals=True)
    guard = service.guard()

    guard.start()
    assert reader.enough.wait(30)
    guard.stop()
    guard.join(30)

    assert list(service.told.queue) == ["fetch"]


@pytest.mark.parametrize("trouble", [Unavailable("away"), ValueError("a bug")])
def test_a_log_that_is_away_and_a_failure_of_its_own_do_not_end_the_guard(trouble: Exception) -> None:
    class Troubled(MemoryReader):
        asked = 0

        def ends(self, topics: Sequence[str]) -> Mapping[Place, int]:
            self.asked += 1
            if self.asked < 60:
                raise trouble
            return {ONE: 1}

    service = Stalled(Troubled(MemoryLog({"jobs": 1})))
    guard = service.guard()

    guard.start()
    guard.join(30)

    told = list(service.told.queue)
    assert told[0] == "fetch"
    assert told[-1] == EXIT_CODE


def test_a_guard_that_is_stopped_ends_nothing() -> None:
    service = Stalled()
    service.log.append(NewRecord("jobs", b"k", b""))
    guard = service.guard(fetch_after=1000, exit_after=1000)
    guard.start()

    guard.stop()
    guard.join(30)

    assert not guard.is_alive()
    assert service.told.empty()
