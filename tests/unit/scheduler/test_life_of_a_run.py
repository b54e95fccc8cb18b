"""Given these events, when this is told, then these facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from services.scheduler.domain import Holding, Tick, Unheld
from services.scheduler.domain.failures import last_word
from services.scheduler.domain.holding import MISSES
from tests.unit.scheduler.story import Story, a_failure, a_submission, names, some_outputs
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.job.v1 import job_pb2 as job


def test_a_run_is_queued_and_its_pool_grows_from_zero() -> None:
    story = Story().with_pool()

    told = story.tell(a_submission())

    assert names(told) == ["RunQueued", "PoolResized", "RunScaling"]
    assert list(told[1].agent_ids) == ["agent-0"]
    assert (told[2].nodes_now, told[2].nodes_wanted) == (0, 1)
    assert story.run().status == job.RUN_STATUS_PROVISIONING


def test_a_node_that_registers_is_offered_the_waiting_run() -> None:
    story = Story().with_pool()
    story.tell(a_submission())

    story.with_agent()

    (offer,) = story.said(cluster.LeaseOffered)
    assert (offer.run_id, offer.epoch, offer.agent_id, offer.incarnation) == ("run", 1, "agent-0", "first")
    assert story.facts[-1].topic == "trainyard.leases"


def test_an_idle_node_is_offered_a_new_run_at_once() -> None:
    story = Story().with_pool(min_nodes=1).with_agent()

    told = story.tell(a_submission())

    assert names(told) == ["RunQueued", "LeaseOffered"]


@pytest.mark.parametrize("seconds", [10**15, -(10**15)])
def test_a_time_that_no_calendar_has_is_taken_for_the_events_own(seconds: int) -> None:
    story = Story().with_run_running()

    story.tell(job.RunFailed(run_id="run", epoch=1, ended_at=Timestamp(seconds=seconds)))

    assert story.run().ended_at == story.world.now


def test_a_run_goes_from_offer_to_completion_and_each_step_is_said_once() -> None:
    story = Story().with_run_completed()

    assert [fact.message.DESCRIPTOR.name for fact in story.facts if fact.topic == "trainyard.jobs"] == [
        "RunQueued", "RunScaling", "RunPreparing", "GangFormed", "RunStarted", "RunFinalizing", "RunCompleted",
    ]  # fmt: skip
    (end,) = story.said(job.RunCompleted)
    assert [file.path for file in end.outputs.files] == ["outputs/a"]
    assert story.run().status == job.RUN_STATUS_COMPLETED


def test_the_gang_is_told_to_the_run_and_to_its_members() -> None:
    story = Story().with_run_prepared()

    gangs = [fact for fact in story.facts if isinstance(fact.message, job.GangFormed)]

    assert [(fact.topic, fact.key) for fact in gangs] == [("trainyard.jobs", "run"), ("trainyard.leases", "agent-0")]


def test_a_repeated_submission_changes_nothing_even_after_the_end() -> None:
    story = Story().with_run_completed()

    assert story.tell(a_submission()) == []


def test_every_report_that_comes_twice_changes_nothing() -> None:
    story = Story().with_run_finalizing()
    count = len(story.facts)

    for message in (cluster.LeaseAccepted(), cluster.TaskPrepared(), cluster.TaskStarted(), cluster.TaskExited()):
        story.report(message)

    assert len(story.facts) == count


def test_a_script_that_fails_fails_the_run_with_its_rank_code_and_last_lines() -> None:
    story = Story().with_run_finalizing(exit_code=3)

    told = story.report(some_outputs())

    (failed,) = told
    assert isinstance(failed, job.RunFailed)
    assert (failed.failure.code, failed.failure.rank, failed.failure.exit_code) == ("ScriptFailed", 0, 3)
    assert list(failed.failure.last_lines) == ["Traceback", "ValueError: boom"]
    first = "train.py (rank 0) exited with code 3: ValueError: boom"
    assert failed.failure.message == f"{first}\nThe end of azureml-logs/70_driver_log.txt:\n  Traceback\n  ValueError: boom"
    assert story.run().why == first


@pytest.mark.parametrize(
    ("lines", "below"),
    [
        ([f"line {number}" for number in range(15)], [f"  line {number}" for number in range(5, 15)]),
        (["first", "", "  step 1\rstep 2", "\n"], ["  first", "    step 1 step 2"]),
        (["x" * 1000] * 20, ["  " + "x" * 997, "  " + "x" * 1000]),
    ],
)
def test_a_failures_message_has_the_end_of_its_log_and_stays_bounded(lines: list[str], below: list[str]) -> None:
    told = last_word(Story().with_run_offered().run(), Failure(message="it failed" + "!" * 3000, last_lines=lines, rank=0, exit_code=1))

    first, log, *shown = told.message.split("\n")
    assert first.startswith("it failed!") and log == "The end of azureml-logs/70_driver_log.txt:"
    assert shown[-len(below) :] == below and len(shown) <= 10
    assert len(told.message) <= 3000 and list(told.last_lines) == lines


def test_a_script_that_said_nothing_has_its_log_named_all_the_same() -> None:
    told = last_word(Story().with_run_offered().run(), Failure(message="it failed", last_lines=["", " "], rank=0, exit_code=1))

    assert told.message == "it failed\nIts log is azureml-logs/70_driver_log.txt."


def test_a_preparation_that_fails_ends_the_run_once_its_logs_are_saved() -> None:
    story = Story().with_run_offered()
    story.report(cluster.LeaseAccepted())

    assert names(story.report(cluster.TaskFailed(failure=a_failure()))) == ["RunFinalizing"]
    (failed,) = story.report(some_outputs("azureml-logs/20_image_build_log.txt"))

    assert (failed.failure.code, failed.failure.target) == ("EnvironmentBuildFailed", "nope")
    assert [file.path for file in failed.outputs.files] == ["azureml-logs/20_image_build_log.txt"]


def test_the_time_limit_is_named() -> None:
    story = Story().with_run_running()

    story.report(cluster.TaskExited(exit_code=-15, timed_out=True))
    (failed,) = story.report(some_outputs())

    assert failed.failure.code == "TimedOut"


def test_outputs_that_come_before_the_exit_do_not_end_the_run() -> None:
    story = Story().with_run_running()

    assert story.report(some_outputs()) == []
    told = story.report(cluster.TaskExited(exit_code=3, last_lines=["x"]))

    assert names(told) == ["RunFailed"]


def test_files_that_were_left_out_are_a_warning() -> None:
    story = Story().with_run_finalizing()
    report = some_outputs()
    report.warnings.append("'outputs/a\\b' was not saved")

    assert names(story.report(report)) == ["RunWarned", "RunCompleted"]


# -- cancel


def test_a_waiting_run_is_canceled_at_once() -> None:
    story = Story().with_pool()
    story.tell(a_submission())

    assert names(story.tell(job.CancelRun(run_id="run", reason="wrong data"))) == ["RunCancelRequested", "RunCanceled"]
    assert story.run().status == job.RUN_STATUS_CANCELED


def test_a_running_run_is_canceled_when_its_outputs_are_saved() -> None:
    story = Story().with_run_running()

    told = story.tell(job.CancelRun(run_id="run"))
    assert names(told) == ["RunCancelRequested", "LeaseRevoked"]
    assert told[1].save_outputs
    assert story.report(cluster.TaskExited(exit_code=-15)) == []
    (end,) = story.report(some_outputs())

    assert isinstance(end, job.RunCanceled)
    assert [file.path for file in end.outputs.files] == ["outputs/a"]


def test_a_run_that_is_canceled_while_its_node_dies_is_canceled_and_not_started_again() -> None:
    story = Story().with_run_running()
    story.tell(job.CancelRun(run_id="run"))

    story.with_agent(incarnation="second")

    assert story.run().status == job.RUN_STATUS_CANCELED
    assert len(story.said(cluster.LeaseOffered)) == 1


@pytest.mark.parametrize("scene", ["with_run_completed", "with_run_offered"])
def test_a_second_cancel_and_one_after_the_end_change_nothing(scene: str) -> None:
    story = getattr(Story(), scene)()
    story.tell(job.CancelRun(run_id="run"))
    count = len(story.facts)

    story.tell(job.CancelRun(run_id="run"))

    assert len(story.facts) == count


# -- lost attempts


@pytest.mark.parametrize("scene", ["with_run_offered", "with_run_prepared", "with_run_running", "with_run_finalizing"])
def test_a_new_process_of_the_node_gets_the_run_under_a_new_epoch(scene: str) -> None:
    story = getattr(Story(), scene)()

    story.with_agent(incarnation="second")

    (requeued,) = story.said(job.RunRequeued)
    assert requeued.lost_epoch == 1
    assert [(offer.epoch, offer.incarnation) for offer in story.said(cluster.LeaseOffered)] == [(1, "first"), (2, "second")]
    assert story.run().epoch == 2


def test_reports_of_a_lost_attempt_are_void() -> None:
    story = Story().with_run_running()
    story.with_agent(incarnation="second")
    count = len(story.facts)

    story.report(cluster.TaskExited(exit_code=0), epoch=1)
    story.report(some_outputs("outputs/old"), epoch=1)
    story.report(some_outputs("outputs/forged"), epoch=2, incarnation="first")

    assert len(story.facts) == count
    assert not story.run().is_terminal


def test_a_lost_attempt_leaves_nothing_behind_in_the_next_one() -> None:
    story = Story().with_run_finalizing(exit_code=3)

    story.with_agent(incarnation="second")

    run = story.run()
    assert (run.failure, run.started_at, run.formed, [member.exited for member in run.members]) == (None, None, False, [()])


def test_silence_shows_and_speech_takes_it_back() -> None:
    story = Story().with_run_running()

    assert names(story.tell(Tick(silent=("agent-0",)))) == ["RunNotResponding"]
    assert story.run().status == job.RUN_STATUS_NOT_RESPONDING
    assert story.tell(Tick(silent=("agent-0",))) == []
    assert names(story.tell(Tick(heard=("agent-0",)))) == ["RunResponding"]

    assert story.run().status == job.RUN_STATUS_RUNNING


def test_a_node_that_is_given_up_is_fenced_and_its_run_waits_for_another() -> None:
    story = Story().with_run_running()

    told = story.tell(Tick(given_up=("agent-0",)))

    assert names(told)[:4] == ["AgentLost", "AgentFenced", "LeaseRevoked", "RunRequeued"]
    assert story.run().members == ()
    assert "agent-0" not in story.state.agents


def test_an_offer_that_nobody_takes_is_withdrawn() -> None:
    story = Story().with_run_offered()

    assert story.later(3600).tell(Tick()) == []
    assert story.tell(Tick(overdue=(("run", 2), ("other", 1)))) == []
    told = story.tell(Tick(overdue=(("run", 1),)))

    assert names(told)[:2] == ["LeaseRevoked", "RunRequeued"]


def test_an_offer_that_was_taken_meanwhile_is_not_withdrawn() -> None:
    story = Story().with_run_prepared()

    assert story.tell(Tick(overdue=(("run", 1),))) == []


def test_a_run_that_loses_too_many_attempts_fails_and_says_so() -> None:
    story = Story(max_lost_attempts=2).with_run_running()

    story.with_agent(incarnation="second")
    story.report(cluster.LeaseAccepted(), incarnation="second")
    story.with_agent(incarnation="third")

    (failed,) = story.said(job.RunFailed)
    assert failed.failure.code == "AgentLost"
    assert failed.failure.message == (
        "2 attempts that had begun were lost, the last one because agent-0 began anew. Perhaps the script exhausts the node's memory."
    )


def test_offers_that_nobody_took_are_no_lost_attempts_of_the_run() -> None:
    story = Story(max_lost_attempts=2).with_run_offered()

    for epoch in range(1, 8):
        story.tell(Tick(overdue=(("run", epoch),)))
        if not story.run().members:
            story.tell(Tick())

    assert story.run().epoch > 5
    assert (story.run().lost_attempts, story.said(job.RunFailed)) == (0, [])


def test_an_attempt_that_its_agent_stopped_on_purpose_is_not_blamed_on_the_script() -> None:
    story = Story(max_lost_attempts=1).with_run_running()

    story.tell(cluster.AgentDrained(agent_id="agent-0", incarnation="first", why="maintenance"))

    (failed,) = story.said(job.RunFailed)
    assert "because agent-0 was stopped: maintenance" in failed.failure.message
    assert "memory" not in failed.failure.message


def test_a_node_that_is_stopped_on_purpose_loses_its_attempt() -> None:
    story = Story().with_run_running()

    story.tell(cluster.AgentDrained(agent_id="agent-0", incarnation="first", why="maintenance"))

    assert story.run().members == ()
    assert len(story.said(job.RunRequeued)) == 1


def test_a_good_bye_of_an_earlier_process_is_void() -> None:
    story = Story().with_run_running()
    story.with_agent(incarnation="second")

    story.tell(cluster.AgentDrained(agent_id="agent-0", incarnation="first", why="late"))

    assert story.state.agents["agent-0"].incarnation == "second"
    assert story.run().epoch == 2
    assert story.run().members


def test_a_declined_offer_goes_elsewhere() -> None:
    story = Story().with_run_offered()

    told = story.report(cluster.LeaseDeclined(why="it holds another"))

    assert names(told) == ["LeaseRevoked", "RunRequeued", "PoolResized", "RunScaling"]
    story.world = replace(story.world, declined_agents=frozenset({"agent-0"}))
    story.with_agent("agent-1")
    assert [(offer.agent_id, offer.epoch) for offer in story.said(cluster.LeaseOffered)] == [("agent-0", 1), ("agent-1", 2)]


def test_who_declined_is_not_asked_again_at_once_and_is_asked_later() -> None:
    story = Story().with_pool(max_nodes=1)
    story.tell(a_submission())
    story.with_agent()

    told = story.report(cluster.LeaseDeclined(why="it holds another"))
    later = story.tell(Tick())

    assert "LeaseOffered" not in names(told)
    assert names(later) == ["LeaseOffered"]


# -- attempts that are held by nobody


def a_beat(*held: tuple[str, int], incarnation: str = "first") -> Any:
    return cluster.AgentHeartbeat(
        agent_id="agent-0", incarnation=incarnation, held=[cluster.HeldRun(run_id=run_id, epoch=epoch) for run_id, epoch in held]
    )


def lost_after(story: Story, *beats: Any) -> list[Unheld]:
    holding, lost = Holding(), []
    for beat in beats:
        holding, found = holding.heard(story.state, beat)
        lost += found
    return lost


def test_an_accepted_attempt_that_ten_heartbeats_do_not_list_is_lost_and_requeued() -> None:
    story = Story().with_run_running()

    (lost,) = lost_after(story, *[a_beat()] * MISSES)
    told = story.tell(lost)

    assert names(told)[:2] == ["LeaseRevoked", "RunRequeued"]
    assert "agent-0 accepted it and does not hold it any more" in told[1].why


def test_a_heartbeat_that_lists_it_begins_the_count_anew() -> None:
    story = Story().with_run_running()

    assert lost_after(story, *[a_beat()] * (MISSES - 1), a_beat(("run", 1)), *[a_beat()] * (MISSES - 1)) == []


def test_only_heartbeats_of_the_process_that_accepted_it_count() -> None:
    story = Story().with_run_running()

    assert lost_after(story, *[a_beat(incarnation="other")] * 50) == []


def test_an_offer_that_is_not_accepted_yet_is_not_missed() -> None:
    assert lost_after(Story().with_run_offered(), *[a_beat()] * 50) == []


def test_an_attempt_of_which_the_end_was_told_meanwhile_is_not_missed() -> None:
    story = Story().with_run_running()
    (lost,) = lost_after(story, *[a_beat()] * MISSES)

    story.report(cluster.TaskExited())
    story.report(some_outputs())

    assert story.tell(lost) == []
    assert lost_after(story, *[a_beat()] * 50) == []


@pytest.mark.parametrize(("signal", "says_memory"), [(9, True), (15, False)])
def test_a_script_that_was_killed_outright_may_have_met_the_end_of_the_memory(signal: int, says_memory: bool) -> None:
    story = Story().with_run_finalizing(exit_code=-signal)

    failure = story.run().failure
    assert failure is not None
    assert f"was ended by signal {signal}" in failure.message
    assert ("out of memory" in failure.message) == says_memory
