"""Who goes first, who may go before him, who must make room, and what those who wait are told."""

from __future__ import annotations

from typing import Any

import pytest

from services.scheduler.domain import Tick
from services.scheduler.domain.placing import can_never_fit, line, may_place
from tests.unit.scheduler.placing_world import Yard, resources
from tests.unit.scheduler.story import Story, a_pool, a_spec, a_submission
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job


def a_policy(**options: Any) -> Any:
    return cluster.SetPolicy(submission_id=f"policy-{options}", policy=cluster.Policy(**options))


def turns(yard: Yard) -> list[str]:
    places = {run.id: place for place, run in enumerate(line(yard.state, yard.world, "yard"), 1)}
    return sorted(places, key=places.__getitem__)


def test_a_higher_priority_goes_first_and_among_equals_who_came_first() -> None:
    yard = Yard()

    for run_id, priority in (("a", 0), ("b", 2), ("c", 2)):
        yard.submit(run_id, priority=priority)

    assert turns(yard) == ["b", "c", "a"]


def test_who_waits_grows_in_priority_with_time() -> None:
    yard = Yard()
    yard.tell(a_policy(aging={"seconds": 10}))
    yard.submit("old")

    yard.later(30)
    yard.submit("new", priority=2)

    assert turns(yard) == ["old", "new"]


@pytest.mark.parametrize(("fair_share", "kind"), [(cluster.FAIR_SHARE_EXPERIMENT, "experiment"), (cluster.FAIR_SHARE_USER, "user")])
def test_shares_are_balanced_by_their_weights(fair_share: int, kind: str) -> None:
    yard = Yard()
    yard.tell(a_policy(fair_share=fair_share, weights={"heavy": 2}))
    for number in range(4):
        yard.submit(f"heavy-{number}", **{kind: "heavy"})
    for number in range(4):
        yard.submit(f"light-{number}", **{kind: "light"})

    for number in range(3):
        yard.joins(number)

    assert sorted(yard.held) == ["heavy-0", "heavy-1", "light-0"]


def test_a_quota_bounds_what_runs_hold_together_and_what_ends_frees_it() -> None:
    yard = Yard(nodes=3)
    yard.tell(a_policy(fair_share=cluster.FAIR_SHARE_USER, quotas={"ann": resources(cpus=2)}))
    for number in range(3):
        yard.submit(f"run-{number}", user="ann", resources=resources(cpus=1))
    yard.submit("other", user="bob")

    assert sorted(yard.held) == ["other", "run-0", "run-1"]
    assert yard.run("run-2").why == "waits for other runs of ann to end: together they may hold 2 cores"
    yard.cancels("run-0")
    assert sorted(yard.held) == ["other", "run-1", "run-2"]


def test_what_is_beyond_a_quota_by_itself_is_told_so() -> None:
    yard = Yard(nodes=3)
    yard.tell(a_policy(quotas={"exp": resources(cpus=2)}))

    yard.submit("run", nodes=3, resources=resources(cpus=1))

    assert yard.run("run").why == "asks for more than exp may hold at all, which is 2 cores: raise the quota, or ask for less"


def test_many_runs_over_their_quota_do_not_hide_those_behind_them() -> None:
    yard = Yard(nodes=2)
    yard.tell(a_policy(fair_share=cluster.FAIR_SHARE_USER, quotas={"ann": resources(cpus=4)}))
    for number in range(200):
        yard.submit(f"ann-{number}", user="ann", priority=5)

    yard.submit("bob", user="bob")

    assert sorted(yard.held) == ["ann-0", "bob"]


def test_many_runs_that_wait_for_what_is_not_there_do_not_hide_those_behind_them() -> None:
    yard = Yard(nodes=1)
    for number in range(200):
        yard.submit(f"ann-{number}", user="ann", labels=["gpu"])

    yard.submit("bob", user="bob")

    assert sorted(yard.held) == ["bob"]


def test_many_waiting_runs_are_not_all_told_anew_of_each_change() -> None:
    yard = Yard(nodes=1)
    for number in range(300):
        yard.submit(f"run-{number}")
    yard.joins(1)
    count = len(yard.said(job.RunScaling))

    yard.joins(2)

    assert len(yard.said(job.RunScaling)) - count <= 60


# -- gaps


def test_a_later_run_does_not_take_a_node_that_the_first_one_needs() -> None:
    yard = Yard(nodes=2)
    yard.submit("long")
    yard.submit("gang", nodes=2)

    yard.submit("small")

    assert sorted(yard.held) == ["long"]


def test_a_later_run_fills_a_gap_if_it_ends_before_the_first_one_can_begin() -> None:
    yard = Yard(nodes=2)
    yard.submit("long", seconds=100)
    yard.submit("gang", nodes=2)

    yard.submit("too-long", seconds=101)
    yard.submit("short", seconds=100)

    assert sorted(yard.held) == ["long", "short"]


def test_nothing_fills_gaps_where_the_policy_forbids_it() -> None:
    yard = Yard(nodes=2)
    yard.tell(a_policy(no_backfill=True))
    yard.submit("long", seconds=100)
    yard.submit("gang", nodes=2)

    yard.submit("short", seconds=10)

    assert sorted(yard.held) == ["long"]


def test_a_stream_of_small_runs_does_not_keep_a_whole_node_from_a_run_for_ever() -> None:
    yard = Yard(nodes=1)
    yard.submit("small-0", resources=resources(cpus=1))
    yard.submit("whole")
    for number in range(1, 4):
        yard.submit(f"small-{number}", resources=resources(cpus=1))

    yard.cancels("small-0")

    assert sorted(yard.held) == ["whole"]


# -- making room


def test_the_least_important_and_youngest_makes_room_and_no_more_than_are_needed() -> None:
    yard = Yard(nodes=3)
    for run_id, priority in (("middle", 1), ("old", 0), ("young", 0)):
        yard.submit(run_id, priority=priority)

    yard.submit("urgent", priority=2)

    assert [(it.run_id, it.by) for it in yard.said(job.RunPreempted)] == [("young", "urgent")]
    assert [(it.agent_id, it.save_outputs) for it in yard.said(cluster.LeaseRevoked)] == [("node-2", True)]
    yard.ends("young")
    assert sorted(yard.held) == ["middle", "old", "urgent"]
    assert turns(yard) == ["young"]


def test_who_made_room_does_not_get_it_back_before_the_others_have_made_theirs() -> None:
    yard = Yard(nodes=2)
    yard.submit("stays", priority=5, resources=resources(cpus=3))
    for run_id in ("one", "other"):
        yard.submit(run_id, resources=resources(cpus=2))
    yard.submit("urgent", priority=5)

    yard.ends("one")

    assert sorted(yard.held) == ["other", "stays"]
    yard.ends("other")
    assert yard.where("urgent") == ["node-1"]
    assert len(yard.said(job.RunPreempted)) == 2


def test_a_long_run_is_no_safer_than_a_young_one() -> None:
    yard = Yard(nodes=1)
    yard.submit("low")

    yard.later(100_000)
    yard.submit("urgent", priority=1)
    yard.ends("low")

    assert sorted(yard.held) == ["urgent"]
    assert turns(yard) == ["low"]


@pytest.mark.parametrize(("priority", "policy"), [(0, {}), (5, {"no_preemption": True})])
def test_nobody_makes_room_for_an_equal_or_where_the_policy_forbids_it(priority: int, policy: dict[str, bool]) -> None:
    yard = Yard(nodes=1)
    yard.tell(a_policy(**policy))
    yard.submit("one")

    yard.submit("two", priority=priority)

    assert yard.said(job.RunPreempted) == []


def test_nobody_is_ended_where_it_would_not_help() -> None:
    yard = Yard(nodes=2)
    yard.submit("equal", priority=1)
    yard.submit("low")

    yard.submit("gang", nodes=2, priority=1)

    assert yard.said(job.RunPreempted) == []


def test_a_lent_node_goes_back_and_the_run_on_it_waits_again() -> None:
    story = Story(node_slots=1).with_pool(name="own", max_nodes=1).with_pool(name="low", max_nodes=1, vm_priority="lowpriority")
    story.tell(a_submission("guest", target="low"))
    story.with_agent()

    story.tell(a_submission("owner", target="own"))
    story.report(cluster.OutputsUploaded(), run_id="guest")

    offers = story.said(cluster.LeaseOffered)
    assert [(it.run_id, it.preemptible) for it in offers] == [("guest", True), ("owner", False)]
    assert story.run("guest").waits_for_a_node
    assert story.state.pools["own"].agent_ids == ("agent-0",)


def test_a_node_that_a_pool_of_low_priority_keeps_is_not_asked_back() -> None:
    story = Story(node_slots=1).with_pool(name="own", max_nodes=1)
    story.tell(a_pool(name="low", min_nodes=1, max_nodes=1, vm_priority="lowpriority"))
    story.with_agent()
    story.tell(a_submission("guest", target="low"))

    story.tell(a_submission("owner", target="own"), Tick())

    assert story.said(job.RunPreempted) == []


# -- what can never be


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"distribution": {"node_count": 9}}, "The run wants 9 nodes, and yard has at most 8. Ask for fewer, or for a larger pool."),
        (
            {"resources": resources(cpus=5)},
            "The run wants 5 cores on a node, and a node of yard has 4. Ask for less, or for a pool of larger nodes.",
        ),
        (
            {"resources": resources(cpus=4, gpus=1)},
            "No node of yard has all at once that the run wants of one. Ask for less, or for a pool of larger nodes.",
        ),
        ({"resources": resources(cpus=4, gib=8)}, ""),
    ],
)
def test_what_can_never_fit_is_told_at_once(options: dict[str, Any], why: str) -> None:
    yard = Yard(nodes=1)
    yard.joins(1, cpus=1, uuids=("a",))

    assert can_never_fit(yard.state, yard.world, a_spec("yard", **options)) == why


def test_whoever_comes_to_the_end_of_a_long_line_is_not_looked_at() -> None:
    yard = Yard()
    for number in range(30):
        yard.submit(f"run-{number}", experiment="long")
    before = yard.state

    yard.submit("last", experiment="long")
    after = yard.state
    yard.submit("other", experiment="short")

    assert not may_place(before, after)
    assert may_place(after, yard.state)
    assert turns(yard)[-2:] == ["last", "other"]
