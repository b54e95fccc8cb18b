"""Members that do not come, fall silent or die."""

from __future__ import annotations

import pytest

from services.scheduler.domain import Tick
from tests.unit.scheduler.gang_story import GangStory, horovod, of, uploaded
from tests.unit.scheduler.story import a_submission, names, some_outputs
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1 import spec_pb2 as spec

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


# -- sharing


def test_a_silent_node_shows_in_all_runs_that_it_holds() -> None:
    story = GangStory(horovod(nodes=1)).running()
    story.tell(a_submission("other", distribution=spec.Distribution(node_count=1)))
    offer = cluster.LeaseOffered(run_id="other", epoch=1, agent_id="node-0", incarnation="first", ranks=[0])
    story.tell(offer)

    told = story.tell(Tick(silent=("node-0",)))

    assert sorted(it.run_id for it in told) == ["other", "run"]
