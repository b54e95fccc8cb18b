"""Other bounds, dead pools, policies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from services.scheduler.domain import Tick
from services.scheduler.pool_health import PoolHealth
from tests.unit.scheduler.story import Story, a_submission, names
from tests.unit.scheduler.test_providers import over_ssh
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job


def test_what_is_not_named_stays_as_it_is() -> None:
    story = Story().with_pool(min_nodes=1, max_nodes=3, idle_seconds=7)

    (told,) = story.tell(cluster.UpdatePool(name="pool", max_nodes=2))

    assert (told.min_nodes, told.max_nodes, told.idle_before_scaledown.seconds) == (1, 2, 7)
    pool = story.state.pools["pool"]
    assert (pool.min_nodes, pool.max_nodes, pool.idle_seconds) == (1, 2, 7)


def test_a_repeated_update_says_nothing() -> None:
    story = Story().with_pool()
    request = cluster.UpdatePool(name="pool", max_nodes=4, idle_before_scaledown=Duration(nanos=5 * 10**8))
    assert names(story.tell(request)) == ["PoolUpdated"]

    assert story.tell(request) == []


def test_a_higher_minimum_starts_nodes() -> None:
    story = Story().with_pool()

    story.tell(cluster.UpdatePool(name="pool", min_nodes=2))

    assert story.state.pools["pool"].agent_ids == ("agent-0", "agent-1")


@pytest.mark.parametrize(
    ("request_", "target"),
    [
        (cluster.UpdatePool(name="nowhere", max_nodes=1), "nowhere"),
        (cluster.UpdatePool(name="pool", max_nodes=0), "max_nodes"),
        (cluster.UpdatePool(name="pool", min_nodes=9), "max_nodes"),
        (cluster.UpdatePool(name="pool", max_nodes=10_001), "max_nodes"),
        (cluster.UpdatePool(name="pool", idle_before_scaledown=Duration(seconds=-1)), "idle_before_scaledown"),
        (cluster.UpdatePool(name="pool", idle_before_scaledown=Duration(seconds=10**11)), "idle_before_scaledown"),
    ],
)
def test_bounds_that_cannot_be_are_refused_and_change_nothing(request_: Any, target: str) -> None:
    story = Story().with_pool()
    before = story.state.pools["pool"]

    (told,) = story.tell(request_)

    assert isinstance(told, cluster.PoolRejected)
    assert told.failure.target == target
    assert story.state.pools["pool"] == before


def test_a_pool_over_ssh_has_no_more_nodes_than_hosts() -> None:
    story = Story()
    story.with_pool(max_nodes=1, provider=over_ssh("a", "b"))

    assert names(story.tell(cluster.UpdatePool(name="pool", max_nodes=3))) == ["PoolRejected"]
    assert names(story.tell(cluster.UpdatePool(name="pool", max_nodes=2))) == ["PoolUpdated"]


# -- dead pools


def test_the_runs_that_wait_for_a_dead_pool_fail_with_its_reason_and_others_do_not() -> None:
    story = Story(dead_pools={"pool": "gpu-1: Connection refused"}, node_slots=2)
    story.with_pool(name="other").with_pool()
    story.tell(a_submission("waits"), a_submission("elsewhere", target="other"))

    told = story.tell(Tick())

    (failed,) = [it for it in told if isinstance(it, job.RunFailed)]
    assert failed.run_id == "waits"
    assert (failed.failure.code, failed.failure.target) == ("PoolDead", "pool")
    assert "Connection refused" in failed.failure.message
    assert not story.run("elsewhere").is_terminal


def test_a_run_that_has_a_node_outlives_the_verdict() -> None:
    story = Story(dead_pools={"pool": "why"}).with_run_running()

    assert story.tell(Tick()) == []


def a_waiting_story() -> Story:
    story = Story()
    story.with_pool(max_nodes=2, provider=over_ssh("a", "b"))
    story.tell(a_submission())
    assert story.state.pools["pool"].agent_ids == ("pool-0",)
    return story


def test_a_pool_is_dead_after_so_many_pulses_in_which_none_of_its_nodes_came_up() -> None:
    story, health = a_waiting_story(), PoolHealth(dead_after=3)
    health.told("pool", {"pool-0": "a: Connection refused"})
    # The next try goes on: for now nothing is known against it.
    health.told("pool", {})

    verdicts = []
    for _ in range(3):
        health.pulse(story.state)
        verdicts.append(dict(health.dead(story.state)))

    assert verdicts == [{}, {}, {"pool": "pool-0: a: Connection refused"}]


def a_gang_for_two_hosts() -> Story:
    """One of them is up, and a run has it."""
    story = Story()
    story.with_pool(max_nodes=2, provider=over_ssh("a", "b"))
    story.tell(a_submission("one"))
    story.with_agent("pool-0")
    story.tell(a_submission("gang", distribution={"node_count": 2}))
    story.tell(a_submission("small"))
    assert story.state.pools["pool"].agent_ids == ("pool-0", "pool-1")
    return story


@pytest.mark.parametrize(("made", "node"), [(a_waiting_story, "pool-0"), (a_gang_for_two_hosts, "pool-1")])
def test_a_node_that_comes_up_is_counted_anew(made: Callable[[], Story], node: str) -> None:
    story, health = made(), PoolHealth(dead_after=2)
    health.pulse(story.state)
    story.with_agent(node)
    health.pulse(story.state)
    story.tell(cluster.AgentLost(agent_id=node, incarnation="first"))

    health.pulse(story.state)

    assert (health.dead(story.state), health.short(story.state)) == ({}, {})


def test_a_pool_that_nobody_waits_for_is_not_judged() -> None:
    story, health = Story(), PoolHealth(dead_after=1)
    story.with_pool(min_nodes=1)

    health.pulse(story.state)

    assert health.dead(story.state) == {}


def test_a_pool_that_nobody_has_joined_is_waited_for() -> None:
    story, health = Story(), PoolHealth(dead_after=1)
    story.with_pool(provider=cluster.Provider(static=cluster.StaticNodes()))
    story.tell(a_submission())

    health.pulse(story.state)

    assert health.dead(story.state) == {}


def test_nodes_that_begin_and_never_speak_are_a_reason_too() -> None:
    story, health = a_waiting_story(), PoolHealth(dead_after=1)

    health.pulse(story.state)

    assert health.dead(story.state) == {"pool": "pool-0 began and never registered"}


def test_a_provider_that_does_not_answer_is_the_first_reason() -> None:
    story, health = a_waiting_story(), PoolHealth(dead_after=1)
    health.told("pool", {"pool-0": "x"}, "no engine answers")

    health.pulse(story.state)

    assert health.dead(story.state) == {"pool": "no engine answers; pool-0: x"}
    assert health.errors(story.state.pools["pool"]) == ["no engine answers", "pool-0: x"]


def test_a_run_that_needs_more_nodes_than_come_up_fails_and_those_that_need_fewer_do_not() -> None:
    story, health = a_gang_for_two_hosts(), PoolHealth(dead_after=3)
    health.told("pool", {"pool-1": "b: No route to host"})

    told = []
    for _ in range(3):
        health.pulse(story.state)
        story.world = replace(story.world, dead_pools=health.dead(story.state), short_pools=health.short(story.state))
        told.append([it for it in story.tell(Tick()) if isinstance(it, job.RunFailed)])

    assert [len(it) for it in told] == [0, 0, 1]
    (failed,) = told[-1]
    assert (failed.run_id, failed.failure.code, failed.failure.target) == ("gang", "PoolDead", "pool")
    assert failed.failure.message == (
        "The run needs 2 nodes, and pool can have 1 now, for others do not come up: pool-1: b: No route to host"
    )
    assert story.run("small").waits_for_a_node


def test_nodes_that_were_not_tried_yet_still_count() -> None:
    story, health = a_waiting_story(), PoolHealth(dead_after=1)

    health.pulse(story.state)

    assert health.short(story.state) == {"pool": (1, "pool-0 began and never registered")}


# -- policies


def test_a_policy_is_in_force_once_it_is_told() -> None:
    story = Story()
    asked = cluster.Policy(fair_share=cluster.FAIR_SHARE_USER, weights={"ann": 2.0}, no_backfill=True)

    (told,) = story.tell(cluster.SetPolicy(submission_id="s", policy=asked))

    assert (told.submission_id, told.policy) == ("s", asked)
    assert story.state.policy == asked


@pytest.mark.parametrize(
    ("policy", "target"),
    [
        (cluster.Policy(weights={"ann": 0.0}), "weights"),
        (cluster.Policy(weights={"ann": float("nan")}), "weights"),
        (cluster.Policy(weights={f"n{number}": 1.0 for number in range(1001)}), "weights"),
        (cluster.Policy(aging=Duration(seconds=-1)), "aging"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(policy: Any, target: str) -> None:
    (told,) = Story().tell(cluster.SetPolicy(submission_id="s", policy=policy))

    assert isinstance(told, cluster.PoolRejected)
    assert (told.submission_id, told.name, told.failure.target) == ("s", "policy", target)
