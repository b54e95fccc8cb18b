"""A run's attempts: gangs, rounds, outcomes, first causes, checkpoints; and what late words change, which is nothing."""

from __future__ import annotations

import sqlalchemy as sa

from services.history import pool_views, telemetry, views
from services.history.databases import Database
from services.history.domain.attempts import first_cause
from services.history.domain.moment import Moment, Spot
from services.history.projecting import apply_with_care
from tests.history_log import JOBS, Log, Raw, a_gang, a_pool, exited, formed, queued
from trainyard._gang import driver_log
from trainyard.history.v1.history_pb2 import Attempt, RunView
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1.spec_pb2 import Distribution, TensorflowCluster


def in_memory(log: Log) -> Database:
    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool, connect_args={"check_same_thread": False})
    database = Database(0, engine, None, lambda _: None)
    apply_with_care(database, log.records)
    return database


def shown(log: Log, moment: Moment | None = None) -> RunView:
    with in_memory(log).reading() as connection:
        view = views.run_view(connection, "gang", moment)
    assert view is not None
    return view


def just_before(raw: Raw) -> Moment:
    return Moment(raw.timestamp - 1, Spot(raw.timestamp - 1, raw.topic, raw.partition, raw.offset - 1))


def a_log() -> Log:
    log = Log()
    a_gang(log, "gang")
    return log


def test_each_attempt_has_its_outcome_its_gang_and_its_ranks() -> None:
    first, second, third = shown(a_log()).attempts

    assert [it.outcome for it in (first, second, third)] == [
        Attempt.OUTCOME_PREEMPTED,
        Attempt.OUTCOME_RESTARTED,
        Attempt.OUTCOME_COMPLETED,
    ]
    assert [(it.agent_id, list(it.ranks)) for it in first.members] == [("agent-10", [0, 1]), ("agent-11", [2, 3])]
    assert (third.rounds, [it.agent_id for it in third.members]) == (2, ["agent-30", "agent-31", "agent-9"])
    assert [(it.rank, it.exit_code) for it in third.ranks] == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert first.began_at.ToMilliseconds() < first.ended_at.ToMilliseconds() <= second.began_at.ToMilliseconds()


def test_the_first_cause_is_who_failed_first_and_never_who_was_stopped_for_it() -> None:
    second = shown(a_log()).attempts[1]

    assert (second.failure.rank, second.failure.exit_code, list(second.failure.last_lines)) == (2, 3, ["rank 2 says goodbye"])
    assert second.failure.message == second.why == "rank 2 exited with code 3"
    assert [(it.rank, it.stopped) for it in second.ranks if it.HasField("exit_code")] == [(0, True), (2, False), (3, False)]
    assert first_cause([exited("r", 1, "a", 0, 0, at=1)]) is None


def test_words_that_come_after_an_attempts_end_change_nothing_of_it() -> None:
    first = shown(a_log()).attempts[0]

    assert [it.rank for it in first.ranks if it.HasField("exit_code")] == []
    assert (first.checkpoints, first.checkpoint.number, first.checkpoint.files, first.checkpoint.bytes) == (2, 2, 2, 20)
    assert first.why == "preempted by other"


def test_a_restart_counts_and_a_preemption_does_not() -> None:
    run = shown(a_log()).run

    assert (run.restarts, run.epoch, run.status) == (1, 3, job.RUN_STATUS_COMPLETED)
    assert [member.agent_id for member in run.members] == ["agent-30", "agent-31", "agent-9"]


def test_an_earlier_moment_knows_no_later_rank_or_checkpoint() -> None:
    log = a_log()
    requeued = [raw for raw in log.records if (b"trainyard.job.v1.RunRequeued" in [value for _, value in raw.headers])][0]

    (attempt,) = shown(log, just_before(requeued)).attempts

    assert (attempt.outcome, attempt.HasField("ended_at"), attempt.checkpoints) == (Attempt.OUTCOME_PREEMPTED, False, 2)
    assert [it.HasField("exited_at") for it in attempt.ranks] == [False] * 4


def test_a_shape_of_an_earlier_round_does_not_come_back_and_no_secret_is_shown() -> None:
    log = Log()
    log.say(JOBS, "gang", queued("gang"))
    log.say(JOBS, "gang", formed("gang", 1, ["a", "b"], round_=2))
    log.say(JOBS, "gang", formed("gang", 1, ["a", "b", "c"], round_=1))
    log.say(JOBS, "gang", job.GangWaiting(run_id="gang", epoch=1, why="1 of 2 nodes"))

    view = shown(log)

    assert [it.agent_id for it in view.attempts[0].members] == [it.agent_id for it in view.run.members] == ["a", "b"]
    assert (view.run.why, view.attempts[0].why) == ("1 of 2 nodes", "1 of 2 nodes")
    assert b"hidden" not in view.SerializeToString()


def test_a_lost_attempt_that_nobody_heard_of_before_its_end_is_not_made_by_late_words() -> None:
    log = Log()
    log.say(JOBS, "gang", queued("gang"))
    log.say(JOBS, "gang", job.RunRequeued(run_id="gang", lost_epoch=1, why="declined"))
    log.say(JOBS, "gang", job.RunPreparing(run_id="gang", epoch=1, agent_ids=["late"]))

    assert list(shown(log).attempts) == []


def test_rank_zero_is_preferred_and_of_a_name_it_never_logged_the_lowest_rank() -> None:
    with in_memory(a_log()).reading() as connection:
        preferred = telemetry.preferred_ranks(connection, "gang", None)
        parts = list(telemetry.parts(connection, "gang", None, 3, (), "", telemetry.At(), preferred))
        found = [(point.name, part.batch.rank) for part in parts for point in part.batch.points]

    assert found == [("loss", 0), ("only-3", 3)]


def test_a_pool_is_told_by_its_facts_and_the_policy_by_its_own() -> None:
    log = Log()
    a_pool(log)
    a_pool(log, "policy")
    with in_memory(log).reading() as connection:
        pool, namesake = pool_views.pool_view(connection, "cpu", None), pool_views.pool_view(connection, "policy", None)
        policy = pool_views.policy_view(connection, None)

    assert pool is not None and namesake is not None
    assert (pool.created.min_nodes, pool.created.max_nodes, list(pool.agent_ids)) == (1, 8, ["agent-0", "agent-1"])
    assert [turn.what for turn in pool.turns] == ["PoolCreated", "PoolResized", "PoolUpdated", "PoolRejected"]
    assert [turn.what for turn in namesake.turns] == [turn.what for turn in pool.turns]
    assert [turn.what for turn in policy.turns] == ["PolicyChanged", "PolicyChanged"]


def test_facts_that_name_no_attempt_and_gangs_beyond_all_measure_are_taken_as_they_come() -> None:
    log = Log()
    cluster = TensorflowCluster(worker_count=4_000_000_000, parameter_server_count=4_000_000_000)
    log.say(JOBS, "gang", queued("gang", distribution=Distribution(tensorflow=cluster)))
    log.say(JOBS, "gang", formed("gang", 0, ["a"]))
    log.say(JOBS, "gang", job.RunPreempted(run_id="gang", epoch=7, why="of nothing"))

    view = shown(log)

    assert list(view.attempts) == []
    assert driver_log(view.run.spec.distribution, 4_000_000_001) == "azureml-logs/70_driver_log_ps_1.txt"
