"""Several nodes that work as one: all or none, and one reason where they fail."""

from __future__ import annotations

from typing import Any

import pytest

from services.scheduler.domain import Tick
from tests.unit.scheduler.gang_story import GangStory, a_cluster, horovod, uploaded
from tests.unit.scheduler.story import a_failure, a_submission, names, some_outputs
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1 import spec_pb2 as spec


def of(told: list[Any], kind: type[Any]) -> list[Any]:
    return [message for message in told if isinstance(message, kind)]


def test_the_ranks_start_once_the_last_member_is_prepared() -> None:
    story = GangStory(horovod(nodes=3, each=2)).offered()

    assert names(story.says(0, cluster.LeaseAccepted())) == []
    assert names(story.says(2, cluster.LeaseAccepted())) == []
    (preparing,) = story.says(1, cluster.LeaseAccepted())
    assert story.says(2, cluster.TaskPrepared(address="10.0.0.2", ports=[7, 8])) == []
    assert story.says(0, cluster.TaskPrepared(address="10.0.0.0", ports=[1, 2, 3], secret="s")) == []
    told = story.says(1, cluster.TaskPrepared(address="10.0.0.1", ports=[5, 6]))

    assert list(preparing.agent_ids) == ["node-0", "node-1", "node-2"]
    assert names(told) == ["GangFormed"] * 4
    gang = told[0]
    assert (gang.round, gang.secret) == (1, "s")
    assert [(it.agent_id, it.address, list(it.ports), list(it.ranks)) for it in gang.members] == [
        ("node-0", "10.0.0.0", [1, 2, 3], [0, 1]),
        ("node-1", "10.0.0.1", [5, 6], [2, 3]),
        ("node-2", "10.0.0.2", [7, 8], [4, 5]),
    ]
    assert [fact.key for fact in story.facts[-4:]] == ["run", "node-0", "node-1", "node-2"]


def test_a_run_has_started_when_its_first_rank_has() -> None:
    story = GangStory().accepted()
    story.each(cluster.TaskPrepared)

    assert names(story.says(1, cluster.TaskStarted(rank=1))) == ["RunStarted"]
    assert story.says(0, cluster.TaskStarted(rank=0)) == []


def test_a_run_is_done_when_all_ranks_have_ended_and_all_outputs_are_saved() -> None:
    story = GangStory().running()

    assert story.exits(0) == []
    assert names(story.exits(1)) == ["RunFinalizing"]
    assert story.says(1, uploaded("outputs/b")) == []
    (end,) = story.says(0, uploaded("outputs/a"))

    assert isinstance(end, job.RunCompleted)
    assert [file.path for file in end.outputs.files] == ["outputs/a", "outputs/b"]


# -- failures


def test_one_failing_rank_ends_the_gang_and_the_others_are_asked_to_save() -> None:
    story = GangStory(horovod(nodes=3)).running()

    told = story.exits(1, code=3)
    again = story.exits(0, code=-15, stopped=True)

    assert names(told) == ["RunFinalizing", "LeaseRevoked", "LeaseRevoked"]
    assert [(it.agent_id, it.save_outputs) for it in told[1:]] == [("node-0", True), ("node-2", True)]
    assert again == []
    (end,) = story.uploads("outputs/a")
    assert (end.failure.code, end.failure.rank) == ("ScriptFailed", 1)
    assert end.failure.message == "train.py (rank 1 on node-1) exited with code 3: boom"


def test_the_first_cause_is_named_and_not_the_first_report() -> None:
    story = GangStory(horovod(nodes=3)).running()

    story.exits(0, code=1, after=10.2, words="connection reset by peer")
    story.exits(2, code=7, after=10.0, words="CUDA error")
    story.exits(1, code=1, after=10.1, words="connection reset by peer")
    (end,) = story.uploads()

    assert (end.failure.rank, end.failure.exit_code) == (2, 7)
    assert "CUDA error" in end.failure.message


def test_a_rank_that_the_platform_ended_is_no_cause_however_early() -> None:
    story = GangStory().running()

    assert story.exits(0, code=-15, after=1, stopped=True) == []
    story.exits(1, code=3, after=2)
    (end,) = story.uploads()

    assert end.failure.rank == 1


def test_ranks_that_were_stopped_unasked_are_a_lost_attempt_and_no_success() -> None:
    story = GangStory().running()
    story.exits(0, stopped=True)

    told = story.says(0, some_outputs())

    assert names(told) == ["LeaseRevoked", "LeaseRevoked", "RunRequeued"]
    assert "node-0 ended its part unasked" in told[-1].why


def test_a_preparation_that_fails_on_one_node_ends_it_for_all() -> None:
    story = GangStory().offered()
    story.says(0, cluster.LeaseAccepted())

    told = story.says(0, cluster.TaskFailed(failure=a_failure()))
    late = story.says(1, cluster.LeaseAccepted())

    assert names(told) == ["RunFinalizing", "LeaseRevoked"]
    assert told[1].agent_id == "node-1"
    assert late == []
    (end,) = story.uploads()
    assert end.failure.code == "EnvironmentBuildFailed"


def test_a_member_that_never_began_does_not_hide_why_the_others_failed() -> None:
    story = GangStory().offered()
    story.says(0, cluster.LeaseAccepted())
    story.says(0, cluster.TaskFailed(failure=a_failure()))
    story.says(0, some_outputs())

    told = story.says(1, cluster.LeaseDeclined(why="it is being stopped"))

    assert names(told)[:2] == ["LeaseRevoked", "RunFailed"]
    assert told[1].failure.code == "EnvironmentBuildFailed"


def test_a_time_limit_is_a_cause_though_the_agent_did_the_ending() -> None:
    story = GangStory(max_restarts=3).running()

    story.says(0, cluster.TaskExited(rank=0, exit_code=-15, timed_out=True, stopped=True))
    (end,) = story.uploads()

    assert (type(end), end.failure.code) == (job.RunFailed, "TimedOut")


def test_outputs_that_cannot_be_saved_end_the_gang() -> None:
    story = GangStory().running()
    story.exits(0)

    told = story.says(0, cluster.OutputsUploaded(failure=a_failure("OutputsLost")))

    assert names(told) == ["RunFinalizing", "LeaseRevoked"]
    (end,) = story.uploads()
    assert end.failure.code == "OutputsLost"


# -- tasks of a TensorFlow cluster


def test_a_run_is_done_without_its_parameter_servers_which_are_then_ended() -> None:
    story = GangStory(a_cluster(nodes=2, worker_count=1, parameter_server_count=1)).running()

    told = story.exits(0)
    stopped = story.exits(1, code=-15, stopped=True)
    (end,) = story.uploads()

    assert names(told) == ["RunFinalizing", "LeaseRevoked"]
    assert (told[1].agent_id, told[1].save_outputs) == ("node-1", True)
    assert stopped == []
    assert isinstance(end, job.RunCompleted)


def test_a_node_with_a_worker_and_a_server_is_ended_too() -> None:
    story = GangStory(a_cluster(nodes=1, worker_count=1, parameter_server_count=1)).running()

    assert names(story.exits(0)) == ["RunFinalizing", "LeaseRevoked"]


def test_a_server_that_breaks_when_all_workers_have_ended_harms_nobody() -> None:
    story = GangStory(a_cluster(nodes=2, worker_count=1, parameter_server_count=1)).running()
    story.exits(0)

    story.exits(1, code=1, words="workers are gone")
    (end,) = story.uploads()

    assert isinstance(end, job.RunCompleted)


def test_a_server_that_breaks_before_is_the_cause() -> None:
    story = GangStory(a_cluster(nodes=2, worker_count=1, parameter_server_count=1)).running()

    told = story.exits(1, code=1)
    story.exits(0, code=1, after=5)
    (end,) = story.uploads()

    assert names(told) == ["RunFinalizing", "LeaseRevoked"]
    assert end.failure.message.startswith("train.py (rank 1, ps 0 on node-1) exited with code 1")


def test_the_evaluator_is_waited_for() -> None:
    story = GangStory(a_cluster(nodes=3, chief=True, worker_count=1, evaluator=True)).running()

    story.exits(0)
    assert story.exits(1) == []
    assert names(story.exits(2)) == ["RunFinalizing"]


def test_a_node_without_a_process_waits_for_the_others_and_is_warned_of() -> None:
    story = GangStory(a_cluster(nodes=2, worker_count=1)).running()

    assert story.says(1, uploaded()) == []
    story.exits(0)
    (end,) = story.says(0, uploaded())

    assert isinstance(end, job.RunCompleted)
    assert "1 processes are fewer than 2 nodes" in story.run().warnings[0]


# -- offers


def test_an_offer_that_one_declines_is_taken_back_from_all_and_does_not_count() -> None:
    story = GangStory().offered()
    story.says(0, cluster.LeaseAccepted())

    told = story.says(1, cluster.LeaseDeclined(why="it is being stopped"))

    assert names(told) == ["LeaseRevoked", "LeaseRevoked", "RunRequeued"]
    assert not told[0].save_outputs
    assert told[2].why == "attempt 1 was lost: node-1 declined it: it is being stopped"
    assert story.run().lost_attempts == 0


def test_an_offer_that_one_does_not_take_in_time_is_taken_back_from_all() -> None:
    story = GangStory(horovod(nodes=3)).offered()
    story.says(0, cluster.LeaseAccepted())

    told = story.tell(Tick(overdue=(("run", 1),)))

    assert names(told) == ["LeaseRevoked"] * 3 + ["RunRequeued"]
    assert "node-1, node-2 did not take the offer in time" in told[3].why


def test_a_gang_that_does_not_form_in_time_is_lost_and_the_late_one_is_named() -> None:
    story = GangStory().accepted()
    story.says(0, cluster.TaskPrepared())
    assert story.run().is_forming

    assert story.tell(Tick(unformed=(("run", 7),))) == []
    told = story.tell(Tick(unformed=(("run", 1),)))

    assert names(told) == ["LeaseRevoked", "LeaseRevoked", "RunRequeued"]
    assert told[2].why == "attempt 1 was lost: node-1 did not get prepared in time, while 1 others waited"
    assert story.run().lost_attempts == 1


def test_one_node_alone_has_all_the_time_it_needs() -> None:
    story = GangStory(horovod(nodes=1)).accepted()

    assert not story.run().is_forming


# -- lost members


@pytest.mark.parametrize("done", [False, True])
def test_a_member_that_is_lost_loses_the_attempt_unless_all_of_it_is_saved(done: bool) -> None:
    story = GangStory().running()
    story.exits(1)
    if done:
        story.says(1, uploaded("outputs/b"))

    told = story.node(1, "second")

    assert ("RunRequeued" in names(told)) is not done
    assert [it.agent_id for it in of(told, cluster.LeaseRevoked)] == ([] if done else ["node-0", "node-1"])


def test_two_that_are_given_up_at_once_lose_one_attempt_once() -> None:
    story = GangStory(world={"max_lost_attempts": 1}).running()

    told = story.tell(Tick(given_up=("node-0", "node-1")))

    assert len(of(told, job.RunFailed)) == 1
    assert "node-0, node-1 sent no heartbeat" in told[-1].failure.message


def test_ranks_that_fail_since_a_node_died_do_not_fail_the_run() -> None:
    """The survivors see a broken connection long before the silence of the other is noticed."""
    story = GangStory().running()
    story.exits(0, code=1, words="connection reset by peer")
    story.says(0, some_outputs())

    told = story.tell(Tick(given_up=("node-1",)))

    assert "RunRequeued" in names(told)
    assert not of(told, job.RunFailed)


def test_each_silent_member_shows_and_the_last_that_speaks_takes_it_back() -> None:
    story = GangStory(horovod(nodes=3)).running()

    assert names(story.tell(Tick(silent=("node-0", "node-2")))) == ["RunNotResponding"] * 2
    assert names(story.tell(Tick(heard=("node-0",)))) == ["RunResponding"]
    assert story.run().status == job.RUN_STATUS_NOT_RESPONDING
    story.tell(Tick(heard=("node-2",)))

    assert story.run().status == job.RUN_STATUS_RUNNING


def test_a_phase_that_is_reached_while_a_member_is_silent_shows_once_it_speaks() -> None:
    story = GangStory().accepted()
    story.tell(Tick(silent=("node-1",)))
    story.running()
    assert story.run().status == job.RUN_STATUS_NOT_RESPONDING

    story.tell(Tick(heard=("node-1",)))

    assert story.run().status == job.RUN_STATUS_RUNNING
    assert len(story.said(job.RunStarted)) == 1


def test_who_has_saved_all_may_be_silent() -> None:
    story = GangStory().running()
    story.exits(1)
    story.says(1, uploaded())

    assert story.tell(Tick(silent=("node-1",))) == []


# -- cancel


@pytest.mark.parametrize("scene", ["offered", "accepted", "running"])
def test_a_cancel_reaches_all_members_and_waits_for_what_they_save(scene: str) -> None:
    story = getattr(GangStory(), scene)()

    told = story.tell(job.CancelRun(run_id="run", reason="enough"))
    story.says(0, uploaded("outputs/a"))
    (end,) = story.says(1, uploaded("outputs/b"))

    assert names(told) == ["RunCancelRequested", "LeaseRevoked", "LeaseRevoked"]
    assert isinstance(end, job.RunCanceled)
    assert [file.path for file in end.outputs.files] == ["outputs/a", "outputs/b"]


def test_a_member_that_dies_while_the_run_is_canceled_costs_only_its_own_outputs() -> None:
    story = GangStory().running()
    story.tell(job.CancelRun(run_id="run"))

    assert names(story.node(1, "second")) == ["AgentLost", "LeaseRevoked"]
    (end,) = story.says(0, uploaded("outputs/a"))

    assert isinstance(end, job.RunCanceled)
    assert [file.path for file in end.outputs.files] == ["outputs/a"]


def test_a_cancel_while_a_run_is_finalizing_asks_nobody_twice() -> None:
    story = GangStory().running()
    story.exits(0, code=3)

    told = story.tell(job.CancelRun(run_id="run"))

    assert [it.agent_id for it in of(told, cluster.LeaseRevoked)] == ["node-0"]
    assert names(story.uploads()) == ["RunCanceled"]


def test_a_cancel_after_everything_was_saved_ends_the_run_at_once() -> None:
    story = GangStory(horovod(nodes=1)).running()
    story.says(0, some_outputs())

    told = story.tell(job.CancelRun(run_id="run"))

    assert names(told) == ["RunCancelRequested", "RunCanceled"]


# -- outputs


def test_of_two_files_with_one_path_the_lower_node_counts_and_a_warning_names_both() -> None:
    story = GangStory().running()
    story.exits(0)
    story.exits(1)

    story.says(1, uploaded("outputs/model", "outputs/same", digest="b"))
    warned, end = story.says(0, uploaded("outputs/model", digest="a"))

    assert [(file.path, file.sha256[0]) for file in end.outputs.files] == [("outputs/model", "a"), ("outputs/same", "b")]
    assert "'outputs/model' (node 0, node-0, counts, not node 1)" in warned.message
    assert "same" not in warned.message


def test_equal_files_are_one_without_a_word() -> None:
    story = GangStory().running()
    story.exits(0)
    story.exits(1)

    told = [fact for node in (0, 1) for fact in story.says(node, uploaded("outputs/model"))]

    assert names(told) == ["RunCompleted"]
    assert [file.path for file in told[0].outputs.files] == ["outputs/model"]


def test_the_platforms_logs_of_all_nodes_are_kept_without_a_word() -> None:
    story = GangStory().running()
    story.exits(0)
    story.exits(1)

    story.says(0, uploaded("azureml-logs/20_image_build_log.txt", digest="a"))
    (end,) = story.says(1, uploaded("azureml-logs/20_image_build_log.txt", digest="b"))

    assert [(file.path, file.sha256[0]) for file in end.outputs.files] == [
        ("azureml-logs/20_image_build_log.txt", "a"),
        ("azureml-logs/20_image_build_log_node_1.txt", "b"),
    ]


def test_a_warning_of_many_conflicts_is_bounded() -> None:
    story = GangStory().running()
    story.exits(0)
    story.exits(1)
    paths = [f"outputs/{number:03}" for number in range(200)]

    story.says(0, uploaded(*paths, digest="a"))
    warned, _ = story.says(1, uploaded(*paths, digest="b"))

    assert "outputs/009" in warned.message
    assert "outputs/010" not in warned.message
    assert "and 190 more" in warned.message


def test_what_every_node_warns_of_is_said_once() -> None:
    story = GangStory().accepted()

    told = story.each(lambda: cluster.TaskPrepared(warnings=["no GPU driver"]))

    assert [it.message for it in of(told, job.RunWarned)] == ["no GPU driver"]


# -- preemption


def preempted(story: GangStory) -> GangStory:
    """As placement says it."""
    story.tell(job.RunPreempted(run_id="run", epoch=story.run().epoch, why="run urgent needs its nodes", by="urgent"))
    for member in story.members():
        revoked = cluster.LeaseRevoked(run_id="run", epoch=story.run().epoch, agent_id=member.agent_id, save_outputs=True)
        story.tell(revoked)
    return story


def test_a_preempted_run_waits_again_once_all_is_saved_and_nothing_counts_against_it() -> None:
    story = preempted(GangStory(world={"max_lost_attempts": 1}).running())

    assert story.exits(0, code=-15, stopped=True) == []
    assert story.exits(1, code=1, words="connection reset by peer") == []
    assert story.says(0, some_outputs("outputs/ckpt")) == []
    (requeued,) = story.says(1, some_outputs())

    assert (type(requeued), requeued.restart) == (job.RunRequeued, False)
    assert requeued.why == "attempt 1 was preempted: run urgent needs its nodes"
    run = story.run()
    assert (run.lost_attempts, run.restarts, run.preempted, run.waits_for_a_node) == (0, 0, "", True)
    assert [file.path for file in run.checkpoint.files] == ["a", "ckpt"]


def test_a_run_that_had_ended_well_by_then_is_completed_all_the_same() -> None:
    story = GangStory().running()
    story.exits(0)
    story.exits(1)

    told = preempted(story).uploads()

    assert names(told) == ["RunCompleted"]


def test_a_member_that_dies_while_it_is_preempted_is_not_waited_for() -> None:
    story = preempted(GangStory().running())
    story.says(0, some_outputs())

    told = story.node(1, "second")

    assert names(told) == ["AgentLost", "LeaseRevoked", "RunRequeued"]
    assert "preempted" in told[2].why
    assert story.run().lost_attempts == 0


def test_a_preempted_run_can_be_canceled() -> None:
    story = preempted(GangStory().running())

    assert names(story.tell(job.CancelRun(run_id="run"))) == ["RunCancelRequested"]
    assert names(story.uploads()) == ["RunCanceled"]


# -- sharing


def test_a_silent_node_shows_in_all_runs_that_it_holds() -> None:
    story = GangStory(horovod(nodes=1)).running()
    story.tell(a_submission("other", distribution=spec.Distribution(node_count=1)))
    offer = cluster.LeaseOffered(run_id="other", epoch=1, agent_id="node-0", incarnation="first", ranks=[0])
    story.tell(offer)

    told = story.tell(Tick(silent=("node-0",)))

    assert sorted(it.run_id for it in told) == ["other", "run"]
