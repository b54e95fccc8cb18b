"""A run as its facts tell it."""

from __future__ import annotations

from services.history.domain.moment import Fact, Moment, Spot, in_order
from services.history.domain.run import Story, tell
from tests.history_log import DRIVER, a_file, opened, queued
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet, Failure
from trainyard.job.v1 import job_pb2 as job

JOBS, TASKS = "trainyard.jobs", "trainyard.tasks"


def facts(*messages: object) -> list[Fact]:
    """One after the other, a millisecond apart, on the topics they belong to."""
    return [
        Fact(Spot(1000 + number, TASKS if "cluster" in type(message).__module__ else JOBS, 0, number), f"id-{number}", message)  # type: ignore[arg-type]
        for number, message in enumerate(messages)
    ]


def told(*messages: object) -> Story:
    story = tell(facts(*messages))
    assert story is not None
    return story


def statuses(story: Story) -> list[str]:
    return [job.RunStatus.Name(turn.status).removeprefix("RUN_STATUS_") for turn in story.transitions]


STARTED = (queued("r", tags={"a": "1"}), job.RunPreparing(run_id="r", epoch=1, agent_ids=["n0"]), job.RunStarted(run_id="r", epoch=1))
DONE = job.RunCompleted(run_id="r", epoch=1, outputs=ArtifactSet(files=[a_file("outputs/x")]))


def test_a_run_goes_from_queued_to_completed_and_every_turn_is_remembered_with_its_time() -> None:
    story = told(*STARTED, job.RunFinalizing(run_id="r", epoch=1), DONE)

    assert statuses(story) == ["QUEUED", "PREPARING", "RUNNING", "FINALIZING", "COMPLETED"]
    assert [turn.at.ToMilliseconds() for turn in story.transitions] == [1000, 1001, 1002, 1003, 1004]
    assert [file.path for file in story.files] == ["outputs/x"]
    assert (story.run.epoch, list(story.run.agent_ids)) == (1, ["n0"])


def test_the_place_that_was_told_last_shows_while_the_run_waits() -> None:
    waits = (queued("r"), job.RunScaling(run_id="r", why="others go first", position=4))

    assert (told(*waits).run.position, told(*waits).run.why) == (4, "others go first")
    assert told(*waits, job.RunPreparing(run_id="r", epoch=1, agent_ids=["n0"])).run.position == 0
    assert told(*waits, job.RunCancelRequested(run_id="r")).run.position == 0


def test_what_speaks_for_a_lost_attempt_changes_nothing() -> None:
    again = job.RunPreparing(run_id="r", epoch=2, agent_ids=["n1"])
    late = (job.RunStarted(run_id="r", epoch=1), DONE, job.RunFailed(run_id="r", epoch=1))

    story = told(*STARTED, job.RunRequeued(run_id="r", lost_epoch=1, why="n0 is gone"), again, *late)

    assert statuses(story) == ["QUEUED", "PREPARING", "RUNNING", "QUEUED", "PREPARING"]
    assert (story.run.epoch, list(story.run.agent_ids)) == (2, ["n1"])


def test_a_run_that_waits_for_its_next_attempt_can_be_canceled_under_the_lost_one() -> None:
    story = told(
        *STARTED, job.RunRequeued(run_id="r", lost_epoch=1), job.RunCancelRequested(run_id="r"), job.RunCanceled(run_id="r", epoch=1)
    )

    assert statuses(story)[-2:] == ["CANCEL_REQUESTED", "CANCELED"]


def test_a_cancel_that_was_asked_for_shows_until_the_end() -> None:
    story = told(queued("r"), job.RunCancelRequested(run_id="r", reason="enough"), job.RunStarted(run_id="r", epoch=1))

    assert (job.RunStatus.Name(story.run.status), story.run.why) == ("RUN_STATUS_CANCEL_REQUESTED", "enough")


def test_silence_shows_and_passes_with_the_status_that_came_meanwhile() -> None:
    silent = job.RunNotResponding(run_id="r", epoch=1, agent_id="n0")
    heard = job.RunResponding(run_id="r", epoch=1, agent_id="n0")

    story = told(*STARTED, silent, job.RunFinalizing(run_id="r", epoch=1), heard)

    assert statuses(story) == ["QUEUED", "PREPARING", "RUNNING", "NOT_RESPONDING", "FINALIZING"]


def test_nothing_but_tags_properties_files_and_warnings_comes_after_the_end() -> None:
    story = told(
        *STARTED,
        DONE,
        job.RunStarted(run_id="r", epoch=1),
        job.RunFailed(run_id="r", epoch=1, failure=Failure(code="X")),
        job.RunTagged(run_id="r", set={"b": "2"}, removed=["a"]),
        job.RunPropertiesAdded(run_id="r", properties={"p": "q"}),
        job.RunPropertiesAdded(run_id="r", properties={"p": "other"}),
        job.RunFilesAdded(run_id="r", files=ArtifactSet(files=[a_file("late.png")])),
        job.RunWarned(run_id="r", message="careful"),
    )

    assert statuses(story)[-1] == "COMPLETED"
    assert not story.run.HasField("failure")
    assert (dict(story.run.tags), dict(story.run.properties)) == ({"b": "2"}, {"p": "q"})
    assert [file.path for file in story.files] == ["late.png", "outputs/x"]
    assert list(story.run.warnings) == ["careful"]


def test_an_output_goes_before_an_upload_of_the_same_path_as_it_does_for_the_scheduler() -> None:
    by_hand = Artifact(path="outputs/x", sha256="b" * 64)
    output = Artifact(path="outputs/x", sha256="a" * 64)
    ended = job.RunCompleted(run_id="r", epoch=1, outputs=ArtifactSet(files=[output]))

    story = told(*STARTED, job.RunFilesAdded(run_id="r", files=ArtifactSet(files=[by_hand])), ended)

    assert story.files == [output]


def test_what_a_lost_attempt_set_and_uploaded_gives_way_to_the_next_and_to_no_one_else() -> None:
    def said(value: str, epoch: int) -> tuple[object, object]:
        file = Artifact(path="plot.png", sha256=value * 64)
        return (
            job.RunPropertiesAdded(run_id="r", properties={"p": value}, epoch=epoch),
            job.RunFilesAdded(run_id="r", files=ArtifactSet(files=[file]), epoch=epoch),
        )

    def shown(*facts: object) -> tuple[str, list[str]]:
        story = told(*STARTED, *facts)
        return story.run.properties["p"], [file.sha256[0] for file in story.files]

    assert shown(*said("a", 1), *said("b", 2)) == ("b", ["b"])
    assert shown(*said("a", 1), *said("b", 2), *said("a", 1)) == ("b", ["b"])
    assert shown(*said("a", 1), *said("b", 1)) == shown(*said("a", 1), *said("b", 0)) == shown(*said("a", 0), *said("b", 2)) == ("a", ["a"])


def test_files_of_a_live_run_are_those_that_agents_have_saved() -> None:
    saved = cluster.OutputsUploaded(run_id="r", epoch=1, agent_id="n0", outputs=ArtifactSet(files=[a_file(DRIVER)]))
    of_another = cluster.OutputsUploaded(run_id="r", epoch=7, agent_id="n0", outputs=ArtifactSet(files=[a_file("outputs/y")]))

    assert [file.path for file in told(*STARTED, saved, of_another).files] == [DRIVER]


def test_a_phase_of_the_preparation_is_the_reason_shown() -> None:
    phase = cluster.TaskPhase(run_id="r", epoch=1, agent_id="n0", phase="environment", detail="building")

    assert told(*STARTED[:2], phase).run.why == "environment: building"


def test_an_opened_run_runs_at_once_and_ends_without_an_attempt() -> None:
    story = told(opened("r", parent="p"), job.RunCompleted(run_id="r"))

    assert statuses(story) == ["RUNNING", "COMPLETED"]
    assert (story.run.opened, story.run.parent_run_id) == (True, "p")


def test_a_refused_request_is_shown_as_rejected_with_its_reason() -> None:
    story = told(job.RunRejected(run_id="r", experiment="e", failure=Failure(code="UserError", message="no")))

    assert (statuses(story), story.run.failure.message) == (["REJECTED"], "no")


def test_facts_that_begin_no_run_tell_of_none() -> None:
    assert tell(facts(DONE, job.RunTagged(run_id="r", set={"a": "b"}))) is None


def test_an_event_that_was_sent_twice_counts_once() -> None:
    warned = job.RunWarned(run_id="r", message="once")
    twice = [*facts(queued("r"), warned), Fact(Spot(1005, JOBS, 0, 9), "id-1", warned)]

    story = tell(twice)

    assert story is not None and list(story.run.warnings) == ["once"]


def test_a_broker_whose_clock_was_set_back_does_not_turn_a_partition_around() -> None:
    first, second = Fact(Spot(2000, JOBS, 0, 0), "a", queued("r")), Fact(Spot(1000, JOBS, 0, 1), "b", DONE)

    assert list(in_order([second, first])) == [first, second]


def test_a_moment_includes_its_record_and_what_was_written_up_to_its_time_elsewhere() -> None:
    moment = Moment(1000, Spot(1000, JOBS, 1, 5))

    assert moment.includes(Spot(1000, JOBS, 1, 5)) and moment.includes(Spot(1000, TASKS, 0, 99))
    assert not moment.includes(Spot(1000, JOBS, 1, 6)) and not moment.includes(Spot(1001, TASKS, 0, 0))
