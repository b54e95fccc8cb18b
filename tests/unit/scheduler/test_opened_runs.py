"""Runs without agents, their children, and what is added to runs: given these events, when this is told, then these facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.scheduler.story import Story, a_submission, names
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet, Failure
from trainyard.job.v1 import job_pb2 as job


def an_opening(run_id: str = "open", parent: str = "", **options: Any) -> Any:
    return job.OpenRun(submission_id=run_id, experiment=options.pop("experiment", "exp"), parent_run_id=parent, **options)


def a_file(path: str, digest: str = "a", run_id: str = "run") -> Any:
    return Artifact(path=path, size_bytes=1, sha256=digest * 64, object_key=f"uploads/{run_id}/{digest}/{path}")


def files(*those: Any, run_id: str = "run") -> Any:
    return job.AddRunFiles(run_id=run_id, files=ArtifactSet(files=those))


def test_an_opened_run_runs_at_once_and_waits_for_no_node() -> None:
    story = Story().with_pool().with_agent()

    told = story.tell(an_opening(tags={"a": "1"}, properties={"p": "x"}, display_name="mine"))

    run = story.run("open")
    assert names(told) == ["RunOpened"]
    assert (run.status, run.tags, run.properties, run.display_name) == (job.RUN_STATUS_RUNNING, {"a": "1"}, {"p": "x"}, "mine")


def test_an_opening_that_its_fact_would_have_no_room_for_is_refused_with_its_size() -> None:
    labels = {f"label{number}": "\U0001f600" * 3000 for number in range(43)}
    request = an_opening(tags=labels, properties=labels)
    assert 1_000_000 < request.ByteSize() < 1 << 20

    told = Story().tell(request)

    assert names(told) == ["RunRejected"]
    assert told[0].failure.code == "UserError" and f"{request.ByteSize()} bytes, more than" in told[0].failure.message


def test_of_the_reason_that_a_run_is_closed_with_no_more_is_kept_than_a_fact_has_room_for() -> None:
    story = Story()
    story.tell(an_opening())
    why = Failure(code="c" * 1000, message="m" * 10_000, target="t" * 10_000, last_lines=["x" * 40_000] * 25)

    (failed,) = story.tell(job.CloseRun(run_id="open", status=job.RUN_STATUS_FAILED, failure=why))

    assert failed.ByteSize() < 30_000
    assert [len(line) for line in failed.failure.last_lines] == [1000] * 20


def test_runs_of_both_kinds_are_counted_together() -> None:
    story = Story().with_pool()
    story.tell(a_submission())

    story.tell(an_opening())

    assert story.run("open").number == 2


@pytest.mark.parametrize(
    ("status", "end"),
    [(job.RUN_STATUS_COMPLETED, "RunCompleted"), (job.RUN_STATUS_FAILED, "RunFailed"), (job.RUN_STATUS_CANCELED, "RunCanceled")],
)
def test_closing_ends_it_as_asked_and_its_open_children_with_it(status: Any, end: str) -> None:
    story = Story()
    story.tell(an_opening(), an_opening("child", "open"), an_opening("grandchild", "child"))

    told = story.tell(job.CloseRun(run_id="open", status=status, failure=Failure(code="Mine", message="boom")))

    assert [message.run_id for message in told if type(message).__name__ == end] == ["open", "child", "grandchild"]
    assert all(run.is_terminal for run in story.state.runs.values())


def test_a_second_close_says_nothing() -> None:
    story = Story()
    story.tell(an_opening(), job.CloseRun(run_id="open", status=job.RUN_STATUS_COMPLETED))

    told = story.tell(job.CloseRun(run_id="open", status=job.RUN_STATUS_FAILED))

    assert told == []


def test_a_run_with_agents_is_not_closed_from_outside() -> None:
    story = Story().with_run_running()

    told = story.tell(job.CloseRun(run_id="run", status=job.RUN_STATUS_COMPLETED))

    assert names(told) == ["RunWarned"]
    assert "ends with its script" in told[0].message


def test_a_close_without_an_end_is_refused() -> None:
    story = Story()
    story.tell(an_opening())

    told = story.tell(job.CloseRun(run_id="open", status=job.RUN_STATUS_RUNNING))

    assert names(told) == ["RunWarned"]


def test_a_failure_without_a_reason_gets_one() -> None:
    story = Story()
    story.tell(an_opening())

    (failed,) = story.tell(job.CloseRun(run_id="open", status=job.RUN_STATUS_FAILED))

    assert failed.failure.code == "RunFailed"


def test_children_of_a_script_end_as_it_ends() -> None:
    story = Story().with_run_finalizing()
    story.tell(an_opening("child", "run"))

    told = story.report(cluster.OutputsUploaded())

    assert [(type(it).__name__, it.run_id) for it in told] == [("RunCompleted", "run"), ("RunCompleted", "child")]


def test_a_child_of_a_failed_script_fails_and_says_whose_failure_it_was() -> None:
    story = Story().with_run_finalizing(exit_code=1)
    story.tell(an_opening("child", "run"))

    told = story.report(cluster.OutputsUploaded())

    assert told[1].failure.code == "ParentFailed"
    assert "boom" in told[1].failure.message


def test_canceling_a_parent_cancels_its_children_with_and_without_agents() -> None:
    story = Story().with_run_running()
    story.tell(an_opening("top"), an_opening("child", "top"))
    submitted = a_submission("worker")
    submitted.spec.parent_run_id = "top"
    story.tell(submitted)

    told = story.tell(job.CancelRun(run_id="top", reason="enough"))

    assert {it.run_id for it in told if isinstance(it, job.RunCanceled)} == {"top", "child", "worker"}
    assert all(story.run(name).is_terminal for name in ("top", "child", "worker"))


def test_a_submitted_child_outlives_a_parent_that_completes() -> None:
    story = Story().with_pool()
    story.tell(an_opening("top"))
    submitted = a_submission("worker")
    submitted.spec.parent_run_id = "top"
    story.tell(submitted)

    story.tell(job.CloseRun(run_id="top", status=job.RUN_STATUS_COMPLETED))

    assert not story.run("worker").is_terminal


@pytest.mark.parametrize("make", [an_opening, a_submission])
def test_a_parent_that_is_not_there_or_has_ended_gets_no_child(make: Any) -> None:
    story = Story().with_pool()
    story.tell(an_opening("over"), job.CloseRun(run_id="over", status=job.RUN_STATUS_COMPLETED))

    def child(run_id: str, parent: str) -> Any:
        request = make(run_id)
        (request.spec if isinstance(request, job.SubmitRun) else request).parent_run_id = parent
        return request

    (nowhere,), (late,) = story.tell(child("a", "nowhere")), story.tell(child("b", "over"))

    assert (nowhere.failure.code, late.failure.code) == ("RunNotFound", "ParentHasEnded")


@pytest.mark.parametrize(
    ("options", "target"),
    [
        ({"experiment": "no name"}, "experiment"),
        ({"tags": {str(n): "" for n in range(51)}}, "tags"),
        ({"tags": {"": "x"}}, ""),
        ({"properties": {"p": "x" * 3001}}, "p"),
        ({"display_name": "x" * 256}, "display_name"),
    ],
)
def test_a_bad_opening_is_rejected_with_what_is_wrong(options: dict[str, Any], target: str) -> None:
    (rejected,) = Story().tell(an_opening(**options))

    assert (type(rejected).__name__, rejected.failure.code, rejected.failure.target) == ("RunRejected", "UserError", target)


def test_a_child_in_another_experiment_is_rejected() -> None:
    story = Story()
    story.tell(an_opening())

    (rejected,) = story.tell(an_opening("child", "open", experiment="other"))

    assert rejected.failure.target == "experiment"


# -- tags, properties, files


def test_tags_are_set_replaced_and_removed_before_and_after_the_end() -> None:
    story = Story().with_run_running()

    story.tell(job.TagRun(run_id="run", set={"a": "1", "b": "2"}))
    story.report(cluster.TaskExited())
    story.report(cluster.OutputsUploaded())
    (told,) = story.tell(job.TagRun(run_id="run", set={"a": "3"}, removed=["b", "never there"]))

    assert list(told.removed) == ["b"]
    assert story.run().tags == {"a": "3"}


def test_a_replaced_tag_counts_once_and_one_too_many_is_refused_whole() -> None:
    story = Story().with_pool()
    story.tell(a_submission(tags={f"t{n}": "" for n in range(50)}))

    replaced = story.tell(job.TagRun(run_id="run", set={"t0": "new"}))
    refused = story.tell(job.TagRun(run_id="run", set={"t1": "new", "more": ""}))
    swapped = story.tell(job.TagRun(run_id="run", set={"more": ""}, removed=["t2"]))

    assert (names(replaced), names(refused), names(swapped)) == (["RunTagged"], ["RunWarned"], ["RunTagged"])
    assert len(story.run().tags) == 50 and story.run().tags["t1"] == ""


def test_properties_are_set_once() -> None:
    story = Story().with_pool()
    story.tell(a_submission(properties={"p": "1"}))

    (same,) = story.tell(job.AddRunProperties(run_id="run", properties={"p": "1", "q": "2"}))
    (other,) = story.tell(job.AddRunProperties(run_id="run", properties={"p": "changed", "r": "3"}))

    assert dict(same.properties) == {"q": "2"}
    assert type(other).__name__ == "RunWarned"
    assert story.run().properties == {"p": "1", "q": "2"}


def test_files_are_added_and_a_path_keeps_its_bytes() -> None:
    story = Story().with_run_completed()

    (first,) = story.tell(files(a_file("plot.png")))
    (again,) = story.tell(files(a_file("plot.png"), a_file("more.png")))
    (other,) = story.tell(files(a_file("plot.png", "b")))
    (output,) = story.tell(files(a_file("outputs/a")))

    assert [file.path for file in first.files.files] == ["plot.png"]
    assert [file.path for file in again.files.files] == ["more.png"]
    assert "other content" in other.message and "other content" in output.message
    assert [file.path for file in story.run().all_files().files] == ["more.png", "outputs/a", "plot.png"]


@pytest.mark.parametrize(
    "file",
    [
        Artifact(path="../x", sha256="a" * 64, object_key="uploads/run/x"),
        Artifact(path="x", sha256="short", object_key="uploads/run/x"),
        Artifact(path="x", sha256="a" * 64, object_key="runs/other/1/x"),
        Artifact(path="x", sha256="a" * 64, object_key="uploads/run/../other/x"),
        Artifact(path="x", sha256="a" * 64, object_key="uploads/run2/x"),
    ],
)
def test_files_that_lie_elsewhere_or_have_no_digest_are_refused(file: Any) -> None:
    story = Story().with_run_running()

    told = story.tell(files(file))

    assert names(told) == ["RunWarned"]
    assert not story.run().files.files


def test_an_output_counts_before_an_upload_of_the_same_path() -> None:
    story = Story().with_run_finalizing()
    story.tell(files(a_file("outputs/a")))

    story.report(cluster.OutputsUploaded(outputs=ArtifactSet(files=[Artifact(path="outputs/a", sha256="c" * 64)])))

    assert [file.sha256 for file in story.run().all_files().files] == ["c" * 64]


def test_a_rejected_run_takes_nothing() -> None:
    story = Story()
    story.tell(a_submission())

    assert story.tell(job.TagRun(run_id="run", set={"a": "1"})) == []


def test_files_that_are_added_stand_beside_outputs_whose_list_lies_elsewhere() -> None:
    run = replace(
        Story().with_run_completed().run(),
        outputs=ArtifactSet(manifest_key="runs/run/1/manifests/m", manifest_sha256="b" * 64, count=9),
        files=ArtifactSet(files=[a_file("late.txt")]),
    )

    found = run.all_files()

    assert [part.manifest_key for part in found.parts] == ["runs/run/1/manifests/m", ""]
    assert [file.path for part in found.parts for file in part.files] == ["late.txt"]


def test_a_late_file_keeps_its_bytes_beside_outputs_whose_list_lies_elsewhere() -> None:
    story = Story().with_run_finalizing()
    story.report(cluster.OutputsUploaded(outputs=ArtifactSet(manifest_key="runs/run/1/manifests/m", manifest_sha256="b" * 64, count=9)))
    story.tell(files(a_file("late.txt")))

    (again,) = story.tell(files(a_file("late.txt")))
    (other,) = story.tell(files(a_file("late.txt", "c")))

    assert names([again, other]) == ["RunFilesAdded", "RunWarned"]
    assert not again.files.files
    assert "other content" in other.message


def test_refusals_without_end_leave_the_last_hundred() -> None:
    story = Story().with_run_running()

    for number in range(150):
        story.tell(job.TagRun(run_id="run", set={"t" * 300: str(number)}))

    assert len(story.run().warnings) == 100


def test_a_run_has_ten_thousand_files_apart_from_its_outputs_at_most() -> None:
    story = Story().with_run_running()
    for start in range(0, 9_000, 3_000):
        story.tell(files(*(a_file(f"f{start + number}") for number in range(3_000))))

    (told,) = story.tell(files(*(a_file(f"more{number}") for number in range(1_001))))

    assert "10000 is the most" in told.message
    assert len(story.run().files.files) == 9_000


@pytest.mark.security
@pytest.mark.parametrize("forged", [job.RunOpened, job.RunQueued])
def test_a_forged_fact_with_the_largest_number_leaves_its_experiment_usable(forged: Any) -> None:
    story = Story().with_pool()
    story.tell(forged(run_id="forged", experiment="exp", number=2**64 - 1))

    told = story.tell(an_opening(), a_submission())

    assert [fact.number for fact in told if isinstance(fact, job.RunOpened | job.RunQueued)] == [1, 2]
