"""Gangs whose size the scheduler owns: nodes go, nodes come, and training goes on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from services.scheduler.domain import Tick, Unheld
from tests.unit.scheduler.gang_story import GangStory, horovod, uploaded
from tests.unit.scheduler.story import START, a_failure, names, some_outputs
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job


def an_elastic_story(nodes: int = 3, fewest: int = 2, most: int = 4, each: int = 1, **options: Any) -> GangStory:
    return GangStory(horovod(nodes=nodes, each=each, min_nodes=fewest, max_nodes=most), **options)


def shape(told: list[Any]) -> tuple[int, list[tuple[str, list[int]]]]:
    """Round, and who has which ranks, of the GangFormed among what was told."""
    gang = next(message for message in told if isinstance(message, job.GangFormed))
    return gang.round, [(it.agent_id, list(it.ranks)) for it in gang.members]


@pytest.mark.parametrize("how", ["began anew", "given up", "drained", "does not hold it"])
def test_the_others_go_on_without_a_lost_member_in_the_same_attempt(how: str) -> None:
    story = an_elastic_story(each=2).running()

    match how:
        case "began anew":
            told = story.node(0, "second")
        case "given up":
            told = story.tell(Tick(given_up=("node-0",)))
        case "drained":
            told = story.tell(cluster.AgentDrained(agent_id="node-0", incarnation="first", why="maintenance"))
        case _:
            told = story.tell(Unheld("run", 1, "node-0", "first"))

    assert shape(told) == (2, [("node-1", [0, 1]), ("node-2", [2, 3])])
    revoked = [it for it in told if isinstance(it, cluster.LeaseRevoked)]
    assert [(it.agent_id, it.save_outputs) for it in revoked] == [("node-0", False)]
    assert story.run().epoch == 1
    assert story.run().status == job.RUN_STATUS_RUNNING


def test_a_member_whose_rank_failed_leaves_and_saves_its_logs() -> None:
    story = an_elastic_story().running()

    told = story.exits(1, code=1)
    saved = story.says(1, uploaded("azureml-logs/70_driver_log_1.txt"))

    assert shape(told) == (2, [("node-0", [0]), ("node-2", [1])])
    assert saved == []
    run = story.run()
    assert (run.restarts, [it.agent_id for it in story.members()]) == (1, ["node-0", "node-2"])
    for rank in (0, 1):
        story.exits(rank)
    (end,) = story.uploads("outputs/a")
    assert isinstance(end, job.RunCompleted)
    assert [file.path for file in end.outputs.files] == ["azureml-logs/70_driver_log_1.txt", "outputs/a"]


def test_a_new_node_comes_in_with_the_next_round_behind_those_that_have_the_state() -> None:
    story = an_elastic_story().running()
    story.exits(0, code=1)
    story.says(0, some_outputs())
    story.node(7)

    story.joins(7)
    assert story.says(7, cluster.LeaseAccepted()) == []
    told = story.says(7, cluster.TaskPrepared())

    assert shape(told) == (3, [("node-1", [0]), ("node-2", [1]), ("node-7", [2])])
    assert names(told) == ["GangFormed"] * 4
    assert story.members()[-1].node_index == 3


def test_a_node_whose_rank_failed_may_come_back() -> None:
    story = an_elastic_story().running()
    story.exits(2, code=1)
    story.says(2, some_outputs())

    story.joins(2)
    story.says(2, cluster.LeaseAccepted())
    told = story.says(2, cluster.TaskPrepared())

    assert shape(told)[1][-1] == ("node-2", [2])


def test_the_next_gang_is_led_by_its_first_member_with_its_own_secret() -> None:
    story = an_elastic_story().accepted()
    for node in range(3):
        story.says(node, cluster.TaskPrepared(secret=f"secret-{node}"))

    told = story.node(0, "second")

    assert next(it.secret for it in told if isinstance(it, job.GangFormed)) == "secret-1"


def test_with_too_few_nodes_it_waits_with_a_reason_and_a_deadline() -> None:
    story = an_elastic_story(world={"elastic_seconds": 60}).running()
    story.node(2, "second")

    told = story.node(1, "second")

    (waiting,) = [it for it in told if isinstance(it, job.GangWaiting)]
    assert waiting.why == "waits for nodes: it has 1 and needs at least 2; without them the attempt is given up at 00:01:00 UTC"
    assert waiting.deadline.ToDatetime(START.tzinfo) == START + timedelta(seconds=60)
    assert [it.agent_id for it in story.members()] == ["node-0"]
    assert story.run().why == waiting.why


def test_a_node_that_comes_in_time_ends_the_waiting() -> None:
    story = an_elastic_story(nodes=2).running()
    story.node(1, "second")
    assert story.run().deadline is not None

    story.joins(1)
    told = story.says(1, cluster.TaskPrepared())

    assert shape(told) == (2, [("node-0", [0]), ("node-1", [1])])
    assert story.run().deadline is None
    assert story.later(10_000).tell(Tick()) == []


def test_at_the_deadline_the_attempt_is_lost() -> None:
    story = an_elastic_story(nodes=2, world={"elastic_seconds": 60}).running()
    story.node(1, "second")

    assert story.later(59).tell(Tick()) == []
    told = story.later(1).tell(Tick())

    assert names(told) == ["LeaseRevoked", "RunRequeued"]
    assert told[1].why == "attempt 1 was lost: too few nodes were left, and no others came in time"
    assert (story.run().lost_attempts, story.run().members) == (1, ())


def test_the_deadline_stands_though_more_are_lost_meanwhile() -> None:
    story = an_elastic_story(nodes=4, fewest=4, world={"elastic_seconds": 60}).running()
    story.node(3, "second")
    first = story.run().deadline
    story.later(30)

    story.node(2, "second")

    assert story.run().deadline == first
    assert "it has 2 and needs at least 4" in story.run().why


def test_when_the_last_member_is_lost_so_is_the_attempt() -> None:
    story = an_elastic_story(nodes=2, fewest=1).running()
    story.node(0, "second")

    told = story.node(1, "second")

    assert names(told) == ["AgentLost", "LeaseRevoked", "RunRequeued"]
    assert story.run().lost_attempts == 1


def test_two_that_are_lost_at_once_make_one_round() -> None:
    story = an_elastic_story(nodes=4).running()

    told = story.tell(Tick(given_up=("node-0", "node-2")))

    assert shape(told) == (2, [("node-1", [0]), ("node-3", [1])])
    assert story.run().round == 2


@pytest.mark.parametrize("max_restarts", [0, 2])
def test_ranks_that_go_on_failing_end_the_run(max_restarts: int) -> None:
    """Ten times, where nothing is said."""
    story = an_elastic_story(nodes=2, fewest=1, most=2, max_restarts=max_restarts).running()

    for _ in range(max_restarts or 10):
        last = story.members()[-1]
        story.exits(last.ranks[0], code=1)
        story.says(last.agent_id, some_outputs())
        story.joins(int(last.agent_id[-1])).says(last.agent_id, cluster.TaskPrepared())
    told = story.exits(1, code=1)
    (end,) = story.uploads()

    assert names(told) == ["RunFinalizing", "LeaseRevoked"]
    assert isinstance(end, job.RunFailed)
    assert end.failure.message.split("\n")[0].endswith(f"It had been restarted {max_restarts or 10} times.")


def test_a_script_that_fails_everywhere_begins_a_new_attempt() -> None:
    story = an_elastic_story(nodes=2, fewest=1).running()

    story.exits(0, code=1, words="first")
    told = story.exits(0, code=1, words="second")
    (requeued,) = story.uploads()

    assert names(told) == ["RunFinalizing"]
    assert requeued.restart
    assert story.run().restarts == 2
    assert "first" in requeued.why


def test_a_time_limit_ends_all_of_it() -> None:
    story = an_elastic_story().running()

    told = story.says(1, cluster.TaskExited(rank=1, exit_code=-15, timed_out=True))

    assert names(told) == ["RunFinalizing", "LeaseRevoked", "LeaseRevoked"]
    assert story.uploads()[-1].failure.code == "TimedOut"


# -- nodes on their way in


@pytest.mark.parametrize("how", ["declines", "is late", "dies", "cannot prepare"])
def test_a_node_that_does_not_come_in_harms_nobody(how: str) -> None:
    story = an_elastic_story().running()
    story.node(7)
    story.joins(7)

    match how:
        case "declines":
            told = story.says(7, cluster.LeaseDeclined(why="it is being stopped"))
        case "is late":
            told = story.tell(Tick(overdue=(("run", 1),)))
        case "dies":
            told = story.node(7, "second")
        case _:
            told = [*story.says(7, cluster.TaskFailed(failure=a_failure())), *story.says(7, some_outputs())]

    assert not any(isinstance(it, job.GangFormed | job.RunRequeued | job.RunFinalizing | job.GangWaiting) for it in told)
    assert [it.agent_id for it in story.members()] == ["node-0", "node-1", "node-2"]
    assert story.run().restarts == 0


def test_a_node_that_is_still_on_its_way_when_training_ends_is_sent_home() -> None:
    story = an_elastic_story(nodes=2).running()
    story.node(7)
    story.joins(7)
    story.exits(0)

    told = story.exits(1)
    late = story.says(7, cluster.TaskPrepared())
    (end,) = story.uploads()

    assert names(told) == ["RunFinalizing", "LeaseRevoked"]
    assert told[1].agent_id == "node-7"
    assert late == []
    assert isinstance(end, job.RunCompleted)


# -- the end


def test_ranks_that_have_ended_are_not_asked_into_another_round() -> None:
    story = an_elastic_story(each=2).running()
    for rank in (0, 1, 2):
        story.exits(rank)

    told = story.node(2, "second")

    assert shape(told) == (2, [("node-1", [0, 1])])
    assert names(story.exits(1)) == ["RunFinalizing"]


def test_a_process_may_tell_its_end_by_an_older_number() -> None:
    story = an_elastic_story(each=2).running()
    story.node(0, "second")

    story.says(1, cluster.TaskExited(rank=2))
    story.says(1, cluster.TaskExited(rank=1))
    story.says(2, cluster.TaskExited(rank=4))
    told = story.says(2, cluster.TaskExited(rank=5))

    assert names(told) == ["RunFinalizing"]


def test_a_rank_that_fails_when_others_have_ended_well_is_a_failure() -> None:
    story = an_elastic_story(nodes=2, fewest=1, max_restarts=1).running()
    story.exits(0)

    story.exits(1, code=1)
    (requeued,) = story.uploads()

    assert requeued.restart


def test_the_outputs_of_a_member_that_dies_after_the_training_are_trained_for_again() -> None:
    story = an_elastic_story(nodes=2, fewest=1).running()
    story.exits(0)
    story.exits(1)

    told = story.node(0, "second")

    assert "RunRequeued" in names(told)


def test_a_cancel_in_any_round_ends_those_that_are_left() -> None:
    story = an_elastic_story().running()
    story.node(0, "second")

    told = story.tell(job.CancelRun(run_id="run"))

    assert names(told) == ["RunCancelRequested", "LeaseRevoked", "LeaseRevoked"]
    assert names(story.uploads()) == ["RunCanceled"]


def test_a_lost_member_that_was_silent_does_not_leave_its_silence_behind() -> None:
    story = an_elastic_story().running()
    story.tell(Tick(silent=("node-0",)))

    story.tell(Tick(given_up=("node-0",)))

    assert (story.run().status, story.run().silent) == (job.RUN_STATUS_RUNNING, ())


def test_before_the_gang_has_formed_it_is_all_or_none() -> None:
    story = an_elastic_story().accepted()

    assert "RunRequeued" in names(story.node(2, "second"))


@pytest.mark.parametrize("number", [0, 1, 9, 2**32 - 1])
def test_a_shape_that_does_not_follow_the_present_one_is_void(number: int) -> None:
    story = an_elastic_story().running()
    before = story.state

    story.tell(job.GangFormed(run_id="run", epoch=1, round=number))

    assert story.state == before


def test_a_member_whose_outputs_were_heard_of_before_its_failure_is_gone_with_it() -> None:
    story = an_elastic_story().running()
    story.says(1, uploaded("azureml-logs/x"))

    story.exits(1, code=1)

    assert [it.agent_id for it in story.members()] == ["node-0", "node-2"]
    assert [file.path for file in story.run().left.files] == ["azureml-logs/x"]
