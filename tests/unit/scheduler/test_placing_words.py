"""Why a run waits: behind whom, for what, and what would unblock it; in its event, and when it is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from services.scheduler.domain import Tick
from services.scheduler.domain.placing import can_never_fit, explain, standing
from tests.unit.scheduler.placing_world import Yard, resources
from tests.unit.scheduler.story import Story, a_spec, a_submission
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job


def a_policy(**options: Any) -> Any:
    return cluster.SetPolicy(submission_id=f"policy-{options}", policy=cluster.Policy(**options))


def told(yard: Story, run_id: str) -> list[tuple[int, str]]:
    return [(it.position, it.why) for it in yard.said(job.RunScaling) if it.run_id == run_id]


def test_the_first_one_is_told_who_has_the_nodes_and_what_would_bring_one_more() -> None:
    yard = Yard(nodes=1)
    yard.submit("has-it")

    yard.submit("first")

    why = "waits for a free node: 1 joined yard, none is free; taken by run has-it (node-0); another one: trainyard agent join --pool yard"
    assert told(yard, "first") == [(1, why)]
    assert explain(yard.state, yard.world, "first") == (1, why)
    assert explain(yard.state, yard.world, "has-it")[0] == 0


def test_of_many_who_have_the_nodes_a_few_are_named_whoever_of_the_others_goes() -> None:
    yard = Yard(nodes=6)
    yard.submit("gang-0", 2)
    for number in range(4):
        yard.submit(f"run-{number}")
    yard.submit("first", 6)

    yard.cancels("run-3")

    assert len(told(yard, "first")) == 1
    assert "; taken by run gang-0 (2 nodes), run run-0 (node-2), run run-1 (node-3) and others; " in yard.run("first").why


def test_a_node_that_is_free_and_kept_for_another_is_said_to_be() -> None:
    yard = Yard(nodes=2)
    yard.submit("long")
    yard.submit("gang", 2)

    yard.submit("small")

    assert told(yard, "small") == [(2, "what is free of yard is kept for run gang, which goes first and needs 2 free nodes")]


def test_the_last_of_many_is_told_how_many_go_first_and_not_that_one_node_would_do() -> None:
    yard = Yard(nodes=1)
    for number in range(81):
        yard.submit(f"run-{number}", experiment=f"experiment-{number % 9}")

    position, why = explain(yard.state, yard.world, "run-80")

    assert (position, why) == (80, "waits for its turn: 79 runs go first in yard, run-1 before all; it needs a free node")
    assert (2, "waits for its turn: 1 run goes first in yard, run-1; it needs a free node") in told(yard, "run-2")
    assert [place for _, place, _ in standing(yard.state, yard.world, "yard")] == list(range(1, 81))


def test_a_place_is_told_anew_when_it_is_a_quarter_of_what_it_was() -> None:
    yard = Yard(nodes=1)
    for number in range(18):
        yard.submit(f"run-{number}")

    for number in range(17):
        yard.cancels(f"run-{number}")

    assert [position for position, _ in told(yard, "run-17")] == [17, 4, 1]
    assert "run-17" in yard.held


@pytest.mark.parametrize(
    ("asked", "nodes", "why"),
    [
        (["ssd"], 1, "waits for a free node with ssd: no node of yard carries ssd; one that does: trainyard agent join --pool yard --label ssd=yes"),
        (
            ["kind=a b"],
            2,
            "waits for 2 free nodes with kind=a b: only 1 of the nodes of yard carries kind=a b; one that does: "
            "trainyard agent join --pool yard --label 'kind=a b'",
        ),
    ],
)  # fmt: skip
def test_a_label_that_too_few_nodes_carry_is_named(asked: list[str], nodes: int, why: str) -> None:
    yard = Yard(nodes=2)
    yard.joins(2, kind="a b")

    yard.submit("run", nodes, labels=asked)

    assert yard.run("run").why == why
    assert len(yard.said(cluster.LeaseOffered)) == 0


def test_whoever_waits_for_a_label_is_told_so_behind_others_too() -> None:
    yard = Yard(nodes=1)
    yard.submit("has-it")
    yard.submit("first")

    yard.submit("second", labels=["ssd"])

    assert "no node of yard carries ssd" in yard.run("second").why


def test_a_label_that_no_node_of_this_machine_can_carry_is_refused() -> None:
    story = Story(node_slots=2).with_pool(min_nodes=1).with_agent()

    why = can_never_fit(story.state, story.world, a_spec(labels=["ssd"]))

    assert why == "No node of pool carries ssd, and those that it may start are like them. Ask for a pool whose nodes do."


def test_while_a_run_saves_what_it_has_the_one_that_it_gives_way_to_is_told() -> None:
    yard = Yard(nodes=1)
    yard.submit("low", priority=0)

    yard.submit("urgent", priority=5)
    yard.later(5).tell(Tick())

    assert told(yard, "urgent") == [(1, "waits for a free node: run low gives its nodes back once its outputs are saved")]
    yard.ends("low")
    assert "urgent" in yard.held


def test_a_lent_node_that_comes_back_is_told_of() -> None:
    story = Story(node_slots=1).with_pool(name="own", max_nodes=1).with_pool(name="low", max_nodes=1, vm_priority="lowpriority")
    story.tell(a_submission("guest", target="low"))
    story.with_agent()

    story.tell(a_submission("owner", target="own"), Tick())

    assert told(story, "owner") == [(1, "waits for a free node: run guest gives its nodes back once its outputs are saved")]


def test_whoever_waits_for_a_quota_is_told_his_place() -> None:
    yard = Yard(nodes=2)
    yard.tell(a_policy(quotas={"exp": resources(cpus=4)}))
    yard.submit("one", experiment="exp")

    yard.submit("two", experiment="exp")

    assert told(yard, "two") == [(1, "waits for other runs of exp to end: together they may hold 4 cores")]


def test_under_a_policy_without_backfill_the_others_wait_for_their_turn() -> None:
    yard = Yard(nodes=1)
    yard.tell(a_policy(no_backfill=True))
    for number in range(3):
        yard.submit(f"run-{number}")

    assert explain(yard.state, yard.world, "run-2") == (2, "waits for its turn: 1 run goes first in yard, run-1; it needs a free node")
