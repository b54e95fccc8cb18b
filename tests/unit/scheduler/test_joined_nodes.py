"""Nodes that come by hand, and go."""

from __future__ import annotations

from typing import Any

import pytest

from services.scheduler.domain import Tick
from tests.unit.scheduler.story import Story, a_pool, a_submission, names
from trainyard.cluster.v1 import cluster_pb2 as cluster

STATIC = cluster.Provider(static=cluster.StaticNodes())


def a_story(max_nodes: int = 2, idle_seconds: int = 60) -> Story:
    story = Story()
    story.tell(a_pool(name="hand", max_nodes=max_nodes, idle_seconds=idle_seconds, provider=STATIC))
    return story


def joining(agent_id: str, pool: str = "hand", incarnation: str = "first") -> Any:
    return cluster.AgentRegistered(agent_id=agent_id, incarnation=incarnation, address="127.0.0.1", pool=pool)


def nodes(story: Story, pool: str = "hand") -> tuple[str, ...]:
    return story.state.pools[pool].agent_ids


def test_who_registers_for_a_pool_is_a_node_of_it() -> None:
    story = a_story()

    story.tell(joining("one"), joining("two"))

    assert nodes(story) == ("one", "two")


def test_joining_again_changes_nothing() -> None:
    story = a_story()
    story.tell(joining("one"))

    told = story.tell(joining("one"), joining("one", incarnation="second"))

    assert names(told) == ["AgentLost"]
    assert nodes(story) == ("one",)


def test_a_run_goes_to_who_has_joined() -> None:
    story = a_story()
    story.tell(a_submission(target="hand"))
    assert "trainyard agent join --pool hand" in story.run().why

    story.tell(joining("one"))

    assert [member.agent_id for member in story.run().members] == ["one"]


@pytest.mark.parametrize(
    ("agent_id", "pool", "why"),
    [
        ("one", "nowhere", "those that agents may join: hand"),
        ("one", "pool", "starts its nodes itself"),
        ("agent-0", "hand", "another --id"),
        ("docks-1", "hand", "another --id"),
        ("../x", "hand", "no name of a node"),
        ("x" * 200, "hand", "no name of a node"),
        ("three", "hand", "maximum of 2 nodes: one, two"),
    ],
)
def test_who_cannot_join_is_told_why_and_is_no_agent(agent_id: str, pool: str, why: str) -> None:
    story = a_story()
    story.with_pool()
    story.tell(a_pool(name="docks", provider=cluster.Provider(docker=cluster.DockerNodes(image="x"))))
    story.tell(joining("one"), joining("two"))
    newcomer = joining(agent_id, pool, "other")

    told = story.tell(newcomer)

    assert [type(it) for it in told][-2:] == [cluster.AgentLost, cluster.AgentFenced]
    assert why in told[-1].why
    assert (told[-1].agent_id, told[-1].incarnation) == (agent_id, "other")
    assert nodes(story) == ("one", "two")
    assert agent_id not in story.state.agents or agent_id in ("one", "two")


def test_a_node_that_is_there_takes_the_place_of_one_that_is_away() -> None:
    story = a_story()
    story.tell(joining("one"), joining("two"), cluster.AgentLost(agent_id="one", incarnation="first"))

    story.tell(joining("three"))

    assert nodes(story) == ("two", "three")


def test_who_is_stopped_on_purpose_leaves_at_once() -> None:
    story = a_story()
    story.tell(joining("one"), joining("two"))

    story.tell(cluster.AgentDrained(agent_id="one", incarnation="first", why="asked to"))

    assert nodes(story) == ("two",)


def test_the_late_good_bye_of_an_earlier_process_takes_nobody_away() -> None:
    story = a_story()
    story.tell(joining("one"), joining("one", incarnation="second"))

    story.tell(cluster.AgentDrained(agent_id="one", incarnation="first", why="late"))

    assert nodes(story) == ("one",)


def test_who_is_lost_stays_for_as_long_as_the_pool_keeps_idle_nodes() -> None:
    story = a_story(idle_seconds=60)
    story.later(1000).tell(joining("one"))
    story.tell(cluster.AgentLost(agent_id="one", incarnation="first"))

    story.later(59).tell(Tick())
    before = nodes(story)
    story.later(1).tell(Tick())

    assert (before, nodes(story)) == (("one",), ())


def test_who_comes_back_in_time_stays() -> None:
    story = a_story(idle_seconds=60)
    story.tell(joining("one"), cluster.AgentLost(agent_id="one", incarnation="first"))
    story.later(59).tell(joining("one", incarnation="second"))

    story.later(600).tell(Tick())

    assert nodes(story) == ("one",)


def test_an_idle_node_that_is_there_never_leaves_by_itself() -> None:
    story = a_story(idle_seconds=60)
    story.tell(joining("one"))

    assert story.later(6000).tell(Tick()) == []


def test_a_lower_maximum_lets_the_last_idle_ones_go() -> None:
    story = a_story(max_nodes=3)
    story.tell(joining("one"), joining("two"), joining("three"), a_submission(target="hand"))
    busy = story.run().members[0].agent_id

    story.tell(cluster.UpdatePool(name="hand", max_nodes=1), Tick())

    assert nodes(story) == (busy,)


def test_a_node_goes_from_one_pool_to_another() -> None:
    story = a_story()
    story.tell(a_pool(name="other", provider=STATIC), joining("one"))

    story.tell(joining("one", pool="other", incarnation="second"))

    assert (nodes(story), nodes(story, "other")) == ((), ("one",))


def test_an_agent_that_joined_is_asked_to_leave_and_one_that_a_pool_keeps_is_not() -> None:
    story = a_story()
    story.with_pool(min_nodes=1).with_agent()
    story.tell(joining("one"))

    asked = story.tell(cluster.DrainAgent(agent_id="one"))

    assert [(type(it), it.agent_id, it.incarnation) for it in asked] == [(cluster.AgentFenced, "one", "first")]
    assert story.tell(cluster.DrainAgent(agent_id="agent-0"), cluster.DrainAgent(agent_id="nobody")) == []
