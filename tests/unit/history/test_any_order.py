"""History is a function of the set of records: in whatever order topics come, however they are cut into batches, it says the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from services.history import tables, views
from services.history.databases import Database, SqliteDatabases
from services.history.projecting import apply, apply_with_care, fold_all
from services.history.reading import Batch, take
from tests.history_dump import dump
from tests.history_log import GARBAGE, JOBS, METRICS, Log, Raw, a_gang, a_model_of, a_pool, a_whole_run, batch, garbage, interleaved, opened
from trainyard.job.v1 import job_pb2 as job


def in_memory() -> Database:
    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool, connect_args={"check_same_thread": False})
    return Database(0, engine, None, lambda _: None)


def a_log() -> Log:
    log = Log()
    a_whole_run(log, "one", 1)
    garbage(log)
    a_whole_run(log, "two", 2, end="failed")
    log.again(next(raw for raw in log.records if raw.topic == METRICS))
    a_model_of(log, "one")
    a_gang(log, "gang", 4)
    a_pool(log)
    log.say(JOBS, "child", opened("child", number=3, parent="one"))
    for raw in list(log.records[:8]) + [raw for raw in log.records if raw.key in (b"gang", b"cpu", b"policy")][::5]:
        log.again(raw)
    log.say(METRICS, "one", batch("one", 0.5, epoch=2))
    log.say(JOBS, "child", job.CloseRun(run_id="child"))
    return log


def filled(records: list[Raw], size: int) -> Database:
    database = in_memory()
    for start in range(0, len(records), size):
        apply_with_care(database, records[start : start + size])
    return database


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 30), size=st.integers(1, 40))
def test_any_interleaving_of_topics_in_batches_of_any_size_gives_the_same_tables(seed: int, size: int) -> None:
    records = a_log().records

    found = dump(filled(interleaved(records, seed), size))

    assert found == dump(filled(records, len(records)))


def test_folding_all_runs_at_the_end_gives_the_same_tables_as_folding_them_along_the_way() -> None:
    records = a_log().records
    late = in_memory()

    for raw in records:
        apply_with_care(late, [raw], fold=False)
    with late.writing() as connection:
        fold_all(connection)

    assert dump(late) == dump(filled(records, 3))


def test_records_that_were_applied_change_nothing_when_they_come_again() -> None:
    records = a_log().records
    database = filled(records, 7)
    before = dump(database)

    apply_with_care(database, records)

    assert dump(database) == before


def test_what_cannot_be_read_is_counted_with_its_reason_and_holds_nothing_up() -> None:
    log = Log()
    garbage(log)
    a_whole_run(log, "after")

    database = filled(log.records, 5)

    with database.reading() as connection:
        reasons = connection.execute(sa.select(tables.refused.c.why)).scalars().all()
        view = views.run_view(connection, "after", None)
    assert len(reasons) == GARBAGE
    assert sum(reason.startswith("unknown type") for reason in reasons) == 1
    assert view is not None and view.run.status == job.RUN_STATUS_COMPLETED


def test_a_record_that_the_database_does_not_take_is_refused_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    a_whole_run(log, "fine")
    bad = log.say(JOBS, "bad", opened("bad"))

    database = in_memory()
    real = apply

    def picky(connection: sa.Connection, found: Batch, *, fold: bool = True) -> None:
        if any(row["run_id"] == "bad" for row in found.facts):
            raise OverflowError("too large")
        real(connection, found, fold=fold)

    monkeypatch.setattr("services.history.projecting.apply", picky)
    apply_with_care(database, log.records)

    with database.reading() as connection:
        refused = connection.execute(sa.select(tables.refused)).all()
        assert [(row.offset, row.partition) for row in refused] == [(bad.offset, bad.partition)]
        assert views.run_view(connection, "fine", None) is not None
    taken = Batch()
    take(taken, log.records)
    assert dict(database.positions()) == taken.positions


def test_a_database_of_an_earlier_version_is_filled_up_from_the_log_and_then_says_the_same(tmp_path: Path) -> None:
    records = a_log().records
    databases = SqliteDatabases(f"sqlite:///{tmp_path / 'history.db'}")
    old = databases.current()
    apply_with_care(old, records)
    with old.writing() as connection:
        for table in (tables.ranks, tables.pool_facts, tables.metric_ranks):
            table.drop(connection)
    old.close()

    new = databases.current()
    before = dict(new.positions())
    apply_with_care(new, records)

    assert before == {}
    assert dump(new) == dump(filled(records, len(records)))
    new.close()
    again = databases.current()
    assert again.positions()
    again.close()
