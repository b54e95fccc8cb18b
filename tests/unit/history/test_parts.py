"""Merging by time, sequence, freshness, generations: what holds history together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from services.chassis.engine import LogReplaced
from services.chassis.grpc_server import Code, Refused
from services.chassis.records import Place
from services.history import tables
from services.history.applying import Applied, LogHole, check_log, in_sequence
from services.history.asking import read_token, token
from services.history.databases import Database, SqliteDatabases
from services.history.domain.moment import Moment, Spot
from services.history.merging import TimeMerge
from services.history.projecting import apply_with_care
from services.history.rebuilding import AlreadyRebuilding, Rebuilder, Step
from services.history.waiting import Freshness
from tests.history_log import JOBS, METRICS, TASKS, Log, Raw, a_whole_run
from trainyard._objects import MemoryObjects

A, B = Place(JOBS, 0), Place(TASKS, 0)


def raw(place: Place, offset: int, at: int = 0) -> Raw:
    return Raw(place.topic, place.partition, offset, at, b"k", b"")


# -- merging


def test_records_are_given_by_time_once_no_partition_can_bring_an_earlier_one() -> None:
    merge = TimeMerge([A, B])

    merge.add([raw(A, 0, 10), raw(A, 1, 30)])
    before = list(merge.ready())
    merge.add([raw(B, 0, 20)])
    between = [it.timestamp for it in merge.ready()]
    merge.at_end(B)
    merge.at_end(A)

    assert before == []
    assert between == [10, 20]
    assert [it.timestamp for it in merge.ready()] == [30]


def test_what_comes_after_the_ends_is_given_as_it_comes() -> None:
    merge = TimeMerge([])

    merge.add([raw(A, 5, 50)])

    assert [it.offset for it in merge.ready()] == [5]
    assert merge.waiting(A) == 0


# -- sequence


def test_repeats_are_left_out_and_a_hole_in_a_topic_that_is_kept_for_ever_is_an_error() -> None:
    at = {A: 2}

    taken = in_sequence([[raw(A, 0), raw(A, 1), raw(A, 2), raw(A, 3)]], at)

    assert [it.offset for it in taken] == [2, 3]
    assert at == {A: 4}
    with pytest.raises(LogHole, match="gave 6 where 4 was due"):
        in_sequence([[raw(A, 6)]], at)


def test_a_hole_where_old_records_are_dropped_is_passed_over() -> None:
    place = Place(METRICS, 0)
    at = {place: 0}

    assert [it.offset for it in in_sequence([[raw(place, 7), raw(place, 9)]], at)] == [7, 9]
    assert at == {place: 10}


def test_a_log_that_ends_before_what_was_applied_is_refused() -> None:
    with pytest.raises(LogReplaced, match="remove the database of history"):
        check_log({A: 5}, {A: 4})


# -- read your writes


class Ends:
    """A log that says where it ends, and counts how often it was asked."""

    def __init__(self, ends: Mapping[Place, int]) -> None:
        self.now, self.asked = dict(ends), 0

    def ends(self, _: Any) -> Mapping[Place, int]:
        self.asked += 1
        return dict(self.now)

    def read(self, *_: Any) -> Any:
        raise AssertionError

    def close(self) -> None: ...


async def test_a_call_waits_until_what_lay_in_the_log_is_applied() -> None:
    applied = Applied({A: 1})
    freshness = Freshness(Ends({A: 3}), applied)

    waiting = asyncio.create_task(freshness.caught_up(None))
    applied.advance({A: 2})
    await asyncio.sleep(0)
    assert not waiting.done()
    applied.advance({A: 3})

    await asyncio.wait_for(waiting, 5)


async def test_history_that_lags_for_longer_than_the_caller_has_says_how_far() -> None:
    freshness = Freshness(Ends({A: 3, B: 9}), Applied({A: 3}))

    with pytest.raises(Refused, match=r"9 records behind .* 9 of them in trainyard\.tasks/0") as caught:
        await freshness.caught_up(0.1)

    assert (caught.value.status, caught.value.failure.code) == (Code.UNAVAILABLE, "HistoryBehind")


async def test_calls_that_come_together_ask_the_log_once() -> None:
    log = Ends({A: 0})
    freshness = Freshness(log, Applied({}))

    await asyncio.gather(*(freshness.caught_up(None) for _ in range(50)))

    assert log.asked == 1


# -- generations


def filled(databases: SqliteDatabases) -> None:
    log = Log()
    a_whole_run(log, "r")
    database = databases.current()
    apply_with_care(database, log.records)
    database.close()


def run_ids(databases: SqliteDatabases) -> list[str]:
    database = databases.current()
    with database.reading() as connection:
        found = list(connection.execute(sa.select(tables.runs.c.run_id)).scalars())
    database.close()
    return found


@pytest.mark.parametrize("step", ["begin", "settle", "pointer", "swap"])
def test_a_crash_at_any_step_of_a_rebuild_leaves_a_whole_database(tmp_path: Path, step: str) -> None:
    url = f"sqlite:///{tmp_path / 'history.db'}"
    databases = SqliteDatabases(url)
    filled(databases)

    made = databases.begin()
    if step != "begin":
        made = databases.settle(made)
    if step == "pointer":
        (tmp_path / "history.db.current.new").write_text("1")
    if step == "swap":
        databases.swap(made)
    made.close()
    after = SqliteDatabases(url)
    after.sweep()

    assert run_ids(after) == ([] if step == "swap" else ["r"])
    left = {path.name for path in tmp_path.iterdir() if not path.name.endswith((".current", ".new", "-wal", "-shm"))}
    assert left == {"history.db.g1" if step == "swap" else "history.db"}


def test_a_retired_database_goes_with_its_last_reader(tmp_path: Path) -> None:
    databases = SqliteDatabases(f"sqlite:///{tmp_path / 'history.db'}")
    filled(databases)
    old = databases.current()

    with old.reading() as connection:
        databases.swap(databases.settle(databases.begin()))
        old.retire()
        still = connection.execute(sa.select(tables.runs.c.run_id)).scalars().all()

    assert still == ["r"]
    assert not (tmp_path / "history.db").exists()
    assert run_ids(databases) == []


# -- moments in SQL


@pytest.mark.parametrize("moment", [Moment(1_700_000_000_010), Moment(1_700_000_000_010, Spot(1_700_000_000_010, JOBS, 0, 2))])
def test_a_moment_means_the_same_in_sql_and_in_python(tmp_path: Path, moment: Moment) -> None:
    log = Log()
    for number in range(8):
        a_whole_run(log, f"r{number}")
    database = SqliteDatabases(f"sqlite:///{tmp_path / 'history.db'}").current()
    apply_with_care(database, log.records)

    with database.reading() as connection:
        every = connection.execute(sa.select(tables.facts)).all()
        chosen = connection.execute(sa.select(tables.facts).where(tables.up_to(tables.facts, moment))).all()
    database.close()

    included = [row for row in every if moment.includes(Spot(row.at, row.topic, row.partition, row.offset))]
    assert chosen == included
    assert 0 < len(chosen) < len(every)


# -- pages


def test_a_page_token_comes_back_as_it_was_given_and_nothing_else_is_taken() -> None:
    assert read_token(token(5, "run"), int, str) == [5, "run"]
    assert read_token("", int, str) is None
    for bad in ("nonsense", token("run", 5), token(5), token(1 << 80, "run"), token(True, "run")):
        with pytest.raises(Refused, match="page_token"):
            read_token(bad, int, str)


# -- rebuilds


class Still:
    """A live side that does nothing."""

    def __init__(self, database: Database) -> None:
        self.database = database


class Generations(SqliteDatabases):
    """Remembers the generation that it began."""

    made: Database

    def begin(self) -> Database:
        self.made = super().begin()
        return self.made


def a_rebuilder(tmp_path: Path) -> tuple[Rebuilder, Generations, Still]:
    databases = Generations(f"sqlite:///{tmp_path / 'history.db'}")
    filled(databases)
    still = Still(databases.current())
    return Rebuilder("127.0.0.1:1", databases, still, MemoryObjects()), databases, still  # type: ignore[arg-type]


def test_one_rebuild_goes_on_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rebuilder, _, still = a_rebuilder(tmp_path)
    refused: list[type] = []

    def fill(*_: object) -> Step:
        try:
            rebuilder.run(lambda step: None)
        except AlreadyRebuilding as error:
            refused.append(type(error))
        return Step(0, 0)

    monkeypatch.setattr(rebuilder, "_fill", fill)
    monkeypatch.setattr(rebuilder, "_take_its_place", lambda made: None)
    rebuilder.run(lambda step: None)

    assert refused == [AlreadyRebuilding]
    assert not rebuilder.going_on
    still.database.close()


@pytest.mark.parametrize("swapped", [False, True])
def test_a_rebuild_that_fails_removes_its_own_database_and_never_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: bool
) -> None:
    rebuilder, databases, still = a_rebuilder(tmp_path)
    still.database.close()

    def fail(made: Database) -> None:
        if swapped:
            databases.swap(made)
            still.database = made
        raise OSError("no space left on device")

    monkeypatch.setattr(rebuilder, "_fill", lambda *_: Step(0, 0))
    monkeypatch.setattr(rebuilder, "_take_its_place", fail)
    with pytest.raises(OSError, match="no space"):
        rebuilder.run(lambda step: None)

    assert run_ids(databases) == ([] if swapped else ["r"])
    assert (tmp_path / "history.db.g1").exists() == swapped
    still.database.close()
