"""Attempts begun again, and what they begin with."""

from __future__ import annotations

from typing import Any

import pytest

from services.scheduler.domain import labels
from tests.unit.scheduler.gang_story import GangStory, files, horovod, uploaded
from tests.unit.scheduler.story import Story, a_failure, a_submission, names, some_outputs
from trainyard._artifacts import count
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import ArtifactSet
from trainyard.job.v1 import job_pb2 as job


def paths(saved: ArtifactSet) -> list[str]:
    return [file.path for file in saved.files]


def test_a_script_that_failed_begins_again_as_often_as_is_allowed() -> None:
    story = GangStory(max_restarts=1).running()
    story.exits(1, code=3)

    (requeued,) = story.uploads()
    story.accepted().running()
    story.exits(0, code=4)
    (end,) = story.uploads()

    assert (requeued.restart, requeued.lost_epoch) == (True, 1)
    assert requeued.why == "attempt 1 failed: train.py (rank 1 on node-1) exited with code 3: boom; begins again, restart 1 of 1"
    assert (end.epoch, end.failure.exit_code) == (2, 4)
    assert end.failure.message == "train.py (rank 0 on node-0) exited with code 4: boom It had been restarted 1 time.\n" + (
        "The end of azureml-logs/70_driver_log_0.txt:\n  boom"
    )
    assert (story.run().restarts, story.run().lost_attempts) == (1, 0)


@pytest.mark.parametrize("code", ["EnvironmentBuildFailed", "UserError"])
def test_what_would_only_fail_again_is_not_begun_again(code: str) -> None:
    story = GangStory(max_restarts=5).accepted()
    story.says(0, cluster.TaskFailed(failure=a_failure(code)))

    assert names(story.uploads()) == ["RunFailed"]


def test_a_cancel_goes_before_a_restart() -> None:
    story = GangStory(max_restarts=5).running()
    story.exits(0, code=3)
    story.tell(job.CancelRun(run_id="run"))

    assert names(story.uploads()) == ["RunCanceled"]


def test_a_lost_attempt_is_no_restart() -> None:
    story = GangStory(max_restarts=1).running()

    story.node(1, "second")

    assert (story.run().restarts, story.run().lost_attempts) == (0, 1)


# -- checkpoints


def test_the_next_attempt_begins_with_the_newest_checkpoint_of_a_lost_one() -> None:
    story = GangStory().running()
    story.saves(0, 1, "ckpt-1")
    story.saves(0, 2, "ckpt-2")

    story.node(1, "second")

    assert paths(story.run().checkpoint) == ["ckpt-2"]


def test_a_checkpoint_goes_before_the_outputs() -> None:
    story = GangStory(max_restarts=1).running()
    story.saves(0, 1, "ckpt-1")
    story.exits(0, code=3)

    story.uploads("outputs/half-written")

    assert paths(story.run().checkpoint) == ["ckpt-1"]


@pytest.mark.parametrize(("folder", "found"), [("", ["a", "deep/b"]), ("outputs/deep", ["b"]), ("state", [])])
def test_without_one_the_outputs_below_the_folder_are_taken(folder: str, found: list[str]) -> None:
    story = GangStory(max_restarts=1, checkpoint_folder=folder).running()
    story.exits(0, code=3)

    story.uploads("outputs/a", "outputs/deep/b", "azureml-logs/x")

    assert paths(story.run().checkpoint) == found


def test_an_attempt_that_saved_nothing_leaves_the_older_checkpoint() -> None:
    story = GangStory(max_restarts=5).running()
    story.saves(0, 1, "ckpt-1")
    story.node(1, "second")
    story.accepted().running()
    story.exits(0, code=3)

    story.uploads("azureml-logs/x")

    assert paths(story.run().checkpoint) == ["ckpt-1"]


def test_a_later_attempt_may_count_its_checkpoints_from_one() -> None:
    story = GangStory().running()
    story.saves(0, 7, "old")
    story.node(1, "second")
    story.accepted().running()

    story.saves(0, 1, "new")

    assert paths(story.run().checkpoint) == ["new"]


def test_a_checkpoint_that_comes_late_or_from_another_node_does_not_count() -> None:
    story = GangStory().running()
    story.saves(0, 2, "newest")

    story.saves(0, 1, "late")
    story.saves(0, 2, "again")
    story.saves(1, 3, "of another node")
    story.saves(0, 4)

    assert paths(story.run().checkpoint) == ["newest"]


def test_a_checkpoint_of_another_run_does_not_count() -> None:
    story = GangStory().running()

    story.says(0, cluster.CheckpointSaved(number=1, checkpoint=files("a", folder="runs/other/1/checkpoints")))

    assert count(story.run().checkpoint) == 0


def test_a_list_that_no_offer_can_carry_is_warned_of_once() -> None:
    story = GangStory().running()
    many = [f"{number:06}" for number in range(labels.OFFER_BYTES // 100)]
    story.saves(0, 1, "small")

    told = [*story.saves(0, 2, *many), *story.saves(0, 3, *many)]

    assert names(told) == ["RunWarned"]
    assert paths(story.run().checkpoint) == ["small"]


def test_a_list_that_lies_elsewhere_is_passed_on_by_name() -> None:
    story = GangStory().running()
    named = ArtifactSet(manifest_key="runs/run/1/checkpoints/manifests/x", manifest_sha256="b" * 64, count=9)

    story.says(0, cluster.CheckpointSaved(number=1, checkpoint=named))

    assert story.run().checkpoint == named


# -- resuming another run


def a_story_with_a_finished_run(*outputs: str) -> Story:
    return _finished(GangStory(horovod(nodes=1)), *outputs)


def _finished(story: GangStory, *outputs: str) -> GangStory:
    story.running()
    story.exits(0)
    story.uploads(*(outputs or ("azureml-logs/x",)))
    return story


def resuming(story: Story, run_id: str, **options: Any) -> list[Any]:
    return story.tell(a_submission("next", resume_from=run_id, **options))


def test_a_run_begins_with_the_outputs_of_the_one_that_it_resumes() -> None:
    story = a_story_with_a_finished_run("outputs/a", "azureml-logs/x")

    (queued,) = resuming(story, "run")

    assert paths(queued.checkpoint) == ["a"]
    assert paths(story.run("next").checkpoint) == ["a"]


def test_the_last_checkpoint_of_the_resumed_run_goes_before_its_outputs() -> None:
    story = GangStory(horovod(nodes=1)).running()
    story.saves(0, 1, "ckpt")

    (queued,) = resuming(_finished(story, "outputs/a"), "run")

    assert paths(queued.checkpoint) == ["ckpt"]


@pytest.mark.parametrize("run_id", ["nowhere", "next", "refused"])
def test_a_run_that_is_not_there_cannot_be_resumed(run_id: str) -> None:
    story = a_story_with_a_finished_run()
    story.tell(a_submission("refused", target="nowhere"))

    (rejected,) = resuming(story, run_id)

    assert isinstance(rejected, job.RunRejected)
    assert rejected.failure.code == "RunNotFound"
    assert run_id in rejected.failure.message


def test_a_run_that_saved_nothing_is_resumed_with_a_warning() -> None:
    story = a_story_with_a_finished_run("azureml-logs/x")

    told = resuming(story, "run")

    assert names(told) == ["RunQueued", "RunWarned"]
    assert told[1].message == "Run run has saved nothing in 'outputs' to resume from: this run begins with nothing."


def test_a_checkpoint_that_does_not_fit_beside_the_specification_is_refused() -> None:
    story = GangStory(horovod(nodes=1)).running()
    story.saves(0, 1, *[f"{number:06}" for number in range(6000)])

    (rejected,) = resuming(_finished(story), "run", arguments=[{"text": "x" * 400_000}])

    assert rejected.failure.target == "resume_from"


def test_tags_leave_room_for_the_checkpoint_in_the_next_offer() -> None:
    story = GangStory().running()
    story.saves(0, 1, *[f"{number:06}" for number in range(8000)])

    told = story.tell(job.TagRun(run_id="run", set={f"t{number}": "x" * 3000 for number in range(45)}))

    assert names(told) == ["RunWarned"]
    assert "checkpoint" in told[0].message


# -- fencing: a process that slept while its attempt was given up


LATE = {
    "accepted": cluster.LeaseAccepted(),
    "declined": cluster.LeaseDeclined(why="x"),
    "phase": cluster.TaskPhase(phase="script"),
    "prepared": cluster.TaskPrepared(address="10.6.6.6", ports=[6], secret="s", warnings=["late"]),
    "failed": cluster.TaskFailed(failure=a_failure()),
    "started": cluster.TaskStarted(rank=0),
    "exited": cluster.TaskExited(rank=0, exit_code=3),
    "ended well": cluster.TaskExited(rank=0),
    "checkpoint": cluster.CheckpointSaved(number=99, checkpoint=files("late")),
    "outputs": uploaded("outputs/late"),
    "lost outputs": cluster.OutputsUploaded(failure=a_failure("OutputsLost"), warnings=["late"]),
}


@pytest.mark.parametrize("kind", LATE)
@pytest.mark.parametrize("now", ["waits", "was offered", "runs"])
def test_whatever_a_process_of_a_lost_attempt_says_changes_nothing(kind: str, now: str) -> None:
    story = GangStory().running()
    story.tell(*[cluster.AgentLost(agent_id="node-0", incarnation="first")])
    story.node(0, "second")
    if now != "waits":
        story.offered()
    if now == "runs":
        story.running()
    before = story.state

    told = [*story.says(0, LATE[kind], epoch=1, incarnation="first"), *story.says(0, LATE[kind], epoch=2, incarnation="first")]

    assert told == []
    assert story.state == before


@pytest.mark.parametrize("kind", LATE)
def test_whatever_the_same_process_says_of_an_earlier_attempt_changes_nothing(kind: str) -> None:
    """It was given another attempt after the one in which a peer was lost."""
    story = GangStory().running()
    story.node(1, "second")
    story.accepted().running()
    before = story.state

    told = story.says(0, LATE[kind], epoch=1)

    assert told == []
    assert story.state == before


@pytest.mark.parametrize("kind", LATE)
def test_whatever_is_said_of_a_run_that_has_ended_changes_nothing(kind: str) -> None:
    story = GangStory().running()
    story.exits(0)
    story.exits(1)
    story.says(0, some_outputs())
    story.says(1, some_outputs())
    before = story.state

    told = story.says(0, LATE[kind])

    assert told == []
    assert story.state == before
