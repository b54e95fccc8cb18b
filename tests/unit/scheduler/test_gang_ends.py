"""How gangs end: canceled, preempted, and with outputs of several nodes."""

from __future__ import annotations

import pytest

from tests.unit.scheduler.gang_story import GangStory, horovod, left_as_given, of, uploaded
from tests.unit.scheduler.story import names, some_outputs
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job

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


def ended_with(story: GangStory) -> dict[str, str]:
    return {file.path: file.sha256[0] for file in story.run().outputs.files}


def done(story: GangStory) -> GangStory:
    for rank in (0, 1):
        story.exits(rank)
    return story


def test_what_a_node_wrote_goes_before_what_another_was_given_to_begin_with() -> None:
    story = done(GangStory().running())

    story.says(0, left_as_given(uploaded("outputs/rank_0", digest="a"), "outputs/rank_1", "outputs/kept"))
    told = story.says(1, left_as_given(uploaded("outputs/rank_1", digest="b"), "outputs/rank_0", "outputs/kept"))

    assert names(told) == ["RunCompleted"]
    assert ended_with(story) == {"outputs/kept": "0", "outputs/rank_0": "a", "outputs/rank_1": "b"}


def test_what_the_first_node_has_removed_does_not_come_back_from_the_others() -> None:
    story = done(GangStory().running())

    story.says(0, left_as_given(uploaded("outputs/step_2", digest="a"), "outputs/kept"))
    story.says(1, left_as_given(uploaded(digest="b"), "outputs/step_1", "outputs/kept"))

    assert ended_with(story) == {"outputs/kept": "0", "outputs/step_2": "a"}


def test_where_the_first_node_had_nothing_put_back_another_says_what_is_there() -> None:
    story = preempted(GangStory(max_restarts=1).running())

    story.says(0, uploaded())
    story.says(1, left_as_given(uploaded("outputs/rank_1", digest="b"), "outputs/kept"))

    assert {file.path: file.sha256[0] for file in story.run().checkpoint.files} == {"kept": "0", "rank_1": "b"}


def test_of_an_elastic_gang_nothing_is_lost_that_only_a_late_comer_was_given() -> None:
    story = GangStory(horovod(nodes=2, min_nodes=1, max_nodes=2)).running()

    for node, given in ((0, "outputs/early"), (1, "outputs/late")):
        story.exits(node)
        story.says(node, left_as_given(uploaded(), given))

    assert ended_with(story) == {"outputs/early": "0", "outputs/late": "0"}


def test_lists_that_are_too_long_to_compare_are_warned_of_by_node_and_the_others_compared() -> None:
    story = done(GangStory(horovod(nodes=3)).running())
    story.exits(2)

    story.says(0, uploaded("outputs/model", digest="a"))
    story.says(1, uploaded("outputs/model", digest="b"))
    far = cluster.OutputsUploaded()
    far.outputs.manifest_key, far.outputs.manifest_sha256, far.outputs.count = "runs/run/1/nodes/2/manifests/x", "c" * 64, 900
    told = [it.message for it in of(story.says(2, far), job.RunWarned)]

    assert len(told) == 2
    assert "'outputs/model' (node 0, node-0, counts, not node 1)" in told[0]
    assert "too many for that: node 2 (node-2). Where they have" in told[1]


def test_a_long_list_of_a_node_that_is_alone_has_nothing_to_be_compared_with() -> None:
    story = GangStory(horovod(nodes=1)).running()
    story.exits(0)
    far = cluster.OutputsUploaded()
    far.outputs.manifest_key, far.outputs.manifest_sha256, far.outputs.count = "runs/run/1/manifests/x", "c" * 64, 900

    assert names(story.says(0, far)) == ["RunCompleted"]


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
