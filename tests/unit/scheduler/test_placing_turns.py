"""Turns by age under fair shares: no policy lets a run wait for ever behind those whose share is better."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.scheduler.domain.placing import line
from tests.unit.scheduler.placing_world import Yard, resources
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job


def a_policy(**options: Any) -> Any:
    options = {"fair_share": cluster.FAIR_SHARE_USER, **options}
    return cluster.SetPolicy(submission_id=f"policy-{options}", policy=cluster.Policy(**options))


def turns(yard: Yard) -> list[str]:
    return [run.id for run in line(yard.state, yard.world, "yard")]


def a_yard_of_shares() -> Yard:
    """Ann has two of three nodes for good; the third is Bob's, whose runs come one by one."""
    yard = Yard(nodes=3)
    yard.tell(a_policy())
    for run_id in ("long-0", "long-1"):
        yard.submit(run_id, user="ann", priority=2)
    yard.submit("bob-0", user="bob", priority=1)
    return yard


def test_a_share_that_holds_more_has_its_turn_in_the_end() -> None:
    yard = a_yard_of_shares()
    yard.submit("ann", user="ann")

    for hour in range(1, 4):
        yard.later(3600).submit(f"bob-{hour}", user="bob")
        if "ann" in yard.held:
            break
        yard.cancels(f"bob-{hour - 1}")

    assert "ann" in yard.held


def test_a_share_gets_one_turn_by_its_age_and_then_the_others_go_first_again() -> None:
    yard = a_yard_of_shares()
    for number in range(3):
        yard.submit(f"ann-{number}", user="ann")
    yard.later(3600).submit("bob-1", user="bob")

    assert turns(yard)[0] == "ann-0"
    yard.cancels("bob-0")
    assert "ann-0" in yard.held
    assert turns(yard)[0] == "bob-1"


def test_two_turns_by_age_are_not_taken_in_one_decision() -> None:
    yard = a_yard_of_shares()
    for number in range(2):
        yard.submit(f"ann-{number}", user="ann", resources=resources(cpus=2))
    yard.later(3600).submit("bob-1", user="bob", resources=resources(cpus=2))

    yard.cancels("bob-0")

    assert sorted(yard.held) == ["ann-0", "bob-1", "long-0", "long-1"]


def test_the_share_that_has_waited_longest_for_its_turn_goes_first() -> None:
    yard = a_yard_of_shares()
    yard.tell(a_policy(no_preemption=True))
    yard.submit("ann", user="ann")
    yard.later(10).submit("carl", user="carl", priority=9)

    yard.later(3600)

    assert turns(yard) == ["ann", "carl"]


def test_who_got_its_turn_by_age_does_not_lose_it_to_a_younger_run_of_a_better_share() -> None:
    yard = a_yard_of_shares()
    yard.submit("ann", user="ann")
    yard.later(3600).cancels("bob-0")
    assert "ann" in yard.held

    yard.submit("carl", user="carl", priority=1)

    assert yard.said(job.RunPreempted) == []


def test_priority_still_counts_within_a_share_that_has_its_turn_by_age() -> None:
    yard = a_yard_of_shares()
    yard.submit("old", user="ann")
    yard.later(3600).submit("urgent", user="ann", priority=1000)

    assert turns(yard) == ["urgent", "old"]


@settings(max_examples=40, deadline=None)
@given(
    nodes=st.integers(2, 4),
    fair_share=st.sampled_from([0, cluster.FAIR_SHARE_USER, cluster.FAIR_SHARE_EXPERIMENT]),
    weight=st.sampled_from([0.1, 1.0, 5.0]),
    switches=st.fixed_dictionaries({"no_backfill": st.booleans(), "no_preemption": st.booleans()}),
    gang=st.integers(1, 2),
    others=st.integers(1, 3),
    priority=st.sampled_from([0, 3]),
)
def test_no_policy_starves_a_run_behind_a_stream_of_others(
    nodes: int, fair_share: int, weight: float, switches: dict[str, bool], gang: int, others: int, priority: int
) -> None:
    yard = Yard(nodes=nodes)
    yard.tell(a_policy(fair_share=fair_share, weights={"ann": weight}, **switches))
    gang = min(gang, nodes - 1)
    for number in range(nodes - gang):
        yard.submit(f"long-{number}", user="ann", experiment="ann", priority=900)
    for number in range(gang):
        yard.submit(f"other-first-{number}", user="other-0", experiment="other-0", priority=priority)
    yard.submit("ann", gang, user="ann", experiment="ann")
    assert "ann" not in yard.held

    # As many come as can go: there is never a node too many.
    for hour in range(8 * others):
        for number in range(gang + 1):
            owner = f"other-{(hour + number) % others}"
            yard.submit(f"{owner}-{hour}-{number}", user=owner, experiment=owner, priority=priority)
        yard.later(600)
        for run_id in [it for it in yard.held if it.startswith("other")]:
            yard.cancels(run_id)
        if "ann" in yard.held:
            return

    raise AssertionError(f"still waits, as number {turns(yard).index('ann') + 1}: {yard.run('ann').why}")
