"""What a script asks for through its agent, once its attempt is over; and what the next attempt may ask for again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.scheduler.handlers import _named
from tests.unit.scheduler.story import Story, names
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet, Attempt
from trainyard.job.v1 import job_pb2 as job

Asks = Callable[..., Any]


def by(epoch: int, run_id: str = "run") -> Attempt:
    return Attempt(run_id=run_id, epoch=epoch)


def a_tag(epoch: int) -> Any:
    return job.TagRun(run_id="run", set={"a": str(epoch)}, by=by(epoch))


def a_property(epoch: int, value: str = "", name: str = "p") -> Any:
    return job.AddRunProperties(run_id="run", properties={name: value or str(epoch)}, by=by(epoch))


def a_file(epoch: int, digest: str = "", path: str = "plot.png") -> Any:
    file = Artifact(path=path, size_bytes=1, sha256=(digest or str(epoch)) * 64, object_key=f"uploads/run/{digest or epoch}")
    return job.AddRunFiles(run_id="run", files=ArtifactSet(files=[file]), by=by(epoch))


def a_child(epoch: int) -> Any:
    return job.OpenRun(submission_id=f"child-{epoch}", experiment="exp", parent_run_id="run", by=by(epoch))


ASKED = pytest.mark.parametrize("asked", [a_tag, a_property, a_file, a_child])


def lost(story: Story) -> Story:
    """Its agent's process is another now, and the attempt waits for its next."""
    story.tell(cluster.AgentRegistered(agent_id="agent-0", incarnation="second", address="127.0.0.1"))
    return story


def again(story: Story) -> Story:
    """The second attempt runs."""
    lost(story)
    assert story.run().epoch == 2
    for report in (cluster.LeaseAccepted(), cluster.TaskPrepared(address="127.0.0.1"), cluster.TaskStarted()):
        story.report(report, incarnation="second")
    return story


@ASKED
def test_of_an_attempt_that_is_over_nothing_is_taken_and_one_error_says_why(asked: Asks) -> None:
    story = again(Story().with_run_running())
    before = story.run()

    (refused,) = story.tell(asked(1))

    why = refused.message if isinstance(refused, job.RunWarned) else refused.failure.message
    assert names([refused]) == (["RunRejected"] if asked is a_child else ["RunWarned"])
    assert why == "Attempt 1 of run run is over: the run goes on with another. Nothing of what its script asks for is done."
    after = story.run()
    assert (after.tags, after.properties, after.files) == (before.tags, before.properties, before.files)


@ASKED
def test_the_attempt_that_counts_is_heard_and_one_that_has_not_begun_is_not(asked: Asks) -> None:
    story = again(Story().with_run_running())

    assert not {"RunWarned", "RunRejected"} & set(names(story.tell(asked(2))))
    assert set(names(story.tell(asked(3)))) <= {"RunWarned", "RunRejected"}


@ASKED
def test_an_attempt_is_over_before_the_next_has_a_node(asked: Asks) -> None:
    story = Story().with_run_running()
    story.tell(cluster.AgentLost(agent_id="agent-0", incarnation="first"), job.RunRequeued(run_id="run", lost_epoch=1))
    assert (story.run().epoch, story.run().lost_epoch) == (1, 1)

    assert set(names(story.tell(asked(1)))) <= {"RunWarned", "RunRejected"}


@ASKED
def test_after_its_end_a_run_takes_nothing_from_its_script_any_more(asked: Asks) -> None:
    (refused,) = Story().with_run_completed().tell(asked(1))

    assert names([refused]) == (["RunRejected"] if asked is a_child else ["RunWarned"])


def test_who_names_no_attempt_asks_from_outside() -> None:
    story = again(Story().with_run_running())

    assert names(story.tell(job.TagRun(run_id="run", set={"a": "1"}))) == ["RunTagged"]
    assert names(story.tell(job.TagRun(run_id="run", set={"b": "1"}, by=Attempt(run_id="run")))) == ["RunTagged"]


def test_an_attempt_of_no_known_run_is_refused() -> None:
    (refused,) = Story().with_run_running().tell(job.TagRun(run_id="run", by=by(1, "other")))

    assert "no run 'other'" in refused.message


def test_children_of_a_lost_attempts_script_are_told_nothing_more_by_it() -> None:
    story = Story().with_run_running()
    story.tell(a_child(1))
    tagged = story.tell(job.TagRun(run_id="child-1", set={"a": "1"}, by=by(1)))
    again(story)

    late = story.tell(
        job.TagRun(run_id="child-1", set={"a": "2"}, by=by(1)),
        job.CloseRun(run_id="child-1", status=job.RUN_STATUS_COMPLETED, by=by(1)),
    )

    assert (names(tagged), names(late)) == (["RunTagged"], ["RunWarned", "RunWarned"])
    assert (story.run("child-1").tags, story.run("child-1").is_terminal) == ({"a": "1"}, False)


def test_the_run_that_asks_is_looked_up_beside_the_one_that_it_asks_about() -> None:
    assert _named(job.TagRun(run_id="child", by=by(1))) == ["child", "run"]
    assert _named(a_child(1)) == ["child-1", "run"]
    assert _named(a_tag(1)) == _named(job.TagRun(run_id="run")) == ["run"]


# -- what the next attempt asks for again


def test_what_a_lost_attempt_set_and_uploaded_gives_way_to_the_next() -> None:
    story = Story().with_run_running()
    story.tell(a_property(1), a_file(1))
    again(story)

    told = story.tell(a_property(2), a_file(2))

    assert [(type(it).__name__, it.epoch) for it in told] == [("RunPropertiesAdded", 2), ("RunFilesAdded", 2)]
    assert story.run().properties == {"p": "2"}
    assert [file.sha256[0] for file in story.run().files.files] == ["2"]


@pytest.mark.parametrize("attempts", [1, 2])
def test_of_one_attempt_the_first_counts(attempts: int) -> None:
    story = Story().with_run_running()
    story.tell(a_property(1, "same"), a_file(1, "a"))
    if attempts == 2:
        # Said again by the next attempt, though it says the same, it is that attempt's.
        again(story).tell(a_property(2, "same"), a_file(2, "a"))

    told = story.tell(a_property(attempts, "other"), a_file(attempts, "b"))

    assert names(told) == ["RunWarned", "RunWarned"]
    assert story.run().properties == {"p": "same"}


def test_what_came_from_outside_gives_way_to_no_attempt() -> None:
    story = Story().with_run_running()
    outside = [a_property(1, "x"), a_file(1, "a")]
    for request in outside:
        request.ClearField("by")
    story.tell(*outside)

    told = again(story).tell(a_property(2, "y"), a_file(2, "b"))

    assert names(told) == ["RunWarned", "RunWarned"]


def test_what_an_attempt_made_does_not_give_way_to_somebody_outside() -> None:
    story = Story().with_run_running()
    story.tell(a_property(1), a_file(1))
    again(story)
    outside = [a_property(2), a_file(2)]
    for request in outside:
        request.ClearField("by")

    assert names(story.tell(*outside)) == ["RunWarned", "RunWarned"]


def test_an_older_fact_that_comes_again_changes_nothing() -> None:
    story = Story().with_run_running()
    old = story.tell(a_property(1), a_file(1))
    again(story).tell(a_property(2), a_file(2))

    story.tell(*old)

    assert story.run().properties == {"p": "2"}
    assert [file.sha256[0] for file in story.run().files.files] == ["2"]


def test_facts_of_before_there_were_attempts_in_them_mean_what_they_meant() -> None:
    story = Story().with_run_running()
    for value, digest in (("first", "a"), ("second", "b")):
        file = Artifact(path="f", sha256=digest * 64)
        story.tell(
            job.RunPropertiesAdded(run_id="run", properties={"p": value}), job.RunFilesAdded(run_id="run", files=ArtifactSet(files=[file]))
        )

    assert story.run().properties == {"p": "first"}
    assert [file.sha256[0] for file in story.run().files.files] == ["a"]
