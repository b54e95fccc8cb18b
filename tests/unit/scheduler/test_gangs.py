"""Several nodes that work as one: all or none, and one reason where they fail."""

from __future__ import annotations

from tests.unit.scheduler.gang_story import GangStory, a_cluster, horovod, uploaded
from tests.unit.scheduler.story import a_failure, names, some_outputs
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job


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
    assert (
        end.failure.message == "train.py (rank 1 on node-1) exited with code 3: boom\nThe end of azureml-logs/70_driver_log_1.txt:\n  boom"
    )


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
    story = GangStory(a_cluster(nodes=2, chief=True, worker_count=1, evaluator=True)).running()

    story.exits(0)
    assert story.exits(1) == []
    assert names(story.exits(2)) == ["RunFinalizing"]


def test_a_node_that_only_the_evaluator_would_have_is_warned_of() -> None:
    story = GangStory(a_cluster(nodes=3, chief=True, worker_count=1, evaluator=True))

    assert [it.ranks for it in story.accepted().members()] == [(0, 2), (1,), ()]
    assert "2 of 3 nodes have something to do" in story.run().warnings[0]


def test_a_node_without_a_process_waits_for_the_others_and_is_warned_of() -> None:
    story = GangStory(a_cluster(nodes=2, worker_count=1)).running()

    assert story.says(1, uploaded()) == []
    story.exits(0)
    (end,) = story.says(0, uploaded())

    assert isinstance(end, job.RunCompleted)
    assert "1 processes are fewer than 2 nodes" in story.run().warnings[0]
