"""Which nodes a run gets: parts of them, whole ones, those with a label, and a gang's all at once."""

from __future__ import annotations

import pytest

from services.scheduler.domain import Tick
from tests.unit.scheduler.gang_story import horovod
from tests.unit.scheduler.placing_world import Yard, resources
from tests.unit.scheduler.story import Story, a_pool, a_submission
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import spec_pb2 as spec


def test_runs_share_a_node_as_far_as_it_goes() -> None:
    yard = Yard(nodes=1, cpus=4, gib=8)

    for number, gib in enumerate((3, 3, 3)):
        yard.submit(f"run-{number}", resources=resources(cpus=1, gib=gib))

    assert yard.held == {"run-0": ["node-0"], "run-1": ["node-0"]}


@pytest.mark.parametrize(("first", "second"), [(None, resources(cpus=1)), (resources(cpus=1), None)])
def test_a_whole_node_is_shared_with_nobody(first: object, second: object) -> None:
    yard = Yard(nodes=1)

    for run_id, asked in (("first", first), ("second", second)):
        yard.submit(run_id, **({"resources": asked} if asked else {}))

    assert yard.held == {"first": ["node-0"]}


def test_fractions_of_cores_add_up() -> None:
    yard = Yard(nodes=1, cpus=0.3)

    for number in range(4):
        yard.submit(f"run-{number}", resources=resources(cpus=0.1))

    assert sorted(yard.held) == ["run-0", "run-1", "run-2"]


def test_a_device_is_given_once() -> None:
    yard = Yard(nodes=1, uuids=("a", "b", "c"))

    for number, count in enumerate((2, 1, 1)):
        yard.submit(f"run-{number}", resources=resources(gpus=count))

    assert [(offer.run_id, list(offer.gpus)) for offer in yard.said(cluster.LeaseOffered)] == [("run-0", [0, 1]), ("run-1", [2])]


def test_a_device_of_one_machine_is_given_once_whichever_of_its_agents_tells_of_it() -> None:
    yard = Yard()
    yard.joins(0, uuids=("a",))
    yard.joins(1, uuids=("a",))

    yard.submit("one", resources=resources(gpus=1))
    yard.submit("two", resources=resources(gpus=1))

    assert sorted(yard.held) == ["one"]


def test_no_gang_is_put_on_one_device_twice() -> None:
    yard = Yard()
    yard.joins(0, uuids=("a",))
    yard.joins(1, uuids=("a",))
    yard.submit("gang", nodes=2, resources=resources(gpus=1))

    yard.joins(2, uuids=("b",))

    assert yard.held == {"gang": ["node-0", "node-2"]}


def test_a_node_that_may_give_one_of_the_machines_devices_gives_another_when_the_first_is_taken() -> None:
    story = Story(machine=resources(cpus=8, gib=64, gpus=2)).with_pool(max_nodes=2)
    story.tell(cluster.CreatePool(submission_id="s", name="gpus", vm_size="Standard_NC6", max_nodes=2))
    for run_id in ("one", "two"):
        story.tell(a_submission(run_id, target="gpus", resources=resources(gpus=1)))
    for name in story.state.pools["gpus"].agent_ids:
        has = resources(cpus=8, gib=64, gpus=2)
        told = cluster.AgentRegistered(agent_id=name, incarnation="first", resources=has)
        for index, uuid in enumerate(("a", "b")):
            told.gpus.add(index=index, uuid=uuid)
        story.tell(told)

    assert sorted(gpu for offer in story.said(cluster.LeaseOffered) for gpu in offer.gpus) == [0, 1]


def test_labels_are_asked_for_by_name_or_with_a_value() -> None:
    yard = Yard()
    yard.joins(0, kind="a")
    yard.joins(1, kind="b")

    yard.submit("exact", labels=["kind=b"])
    yard.submit("any", labels=["kind"])
    yard.submit("nowhere", labels=["kind=c"])

    assert yard.held == {"exact": ["node-1"], "any": ["node-0"]}
    assert yard.run("nowhere").why == (
        "waits for a free node with kind=c: no node of yard carries kind=c; one that does: trainyard agent join --pool yard --label kind=c"
    )


@pytest.mark.parametrize(("how", "nodes"), [(spec.SPREAD_UNSPECIFIED, 1), (spec.SPREAD_SPREAD, 2)])
def test_small_runs_are_packed_or_spread_as_asked(how: int, nodes: int) -> None:
    yard = Yard(nodes=2)

    for number in range(2):
        yard.submit(f"run-{number}", resources=resources(cpus=1), spread=how)

    assert len({name for names in yard.held.values() for name in names}) == nodes


def test_a_gang_gets_all_of_its_nodes_or_none() -> None:
    yard = Yard(nodes=2)
    yard.submit("gang", nodes=3)
    assert yard.held == {}

    yard.joins(2)

    offers = yard.said(cluster.LeaseOffered)
    assert [(it.agent_id, it.node_index, it.node_count, it.world_size) for it in offers] == [
        ("node-0", 0, 3, 3),
        ("node-1", 1, 3, 3),
        ("node-2", 2, 3, 3),
    ]


def test_two_gangs_that_want_the_same_nodes_have_them_one_after_the_other() -> None:
    yard = Yard(nodes=3)

    yard.submit("first", nodes=2)
    yard.submit("second", nodes=2)
    assert sorted(yard.held) == ["first"]
    yard.cancels("first")

    assert sorted(yard.held) == ["second"]


def test_an_elastic_gang_starts_with_what_is_there_and_takes_in_what_comes() -> None:
    yard = Yard(nodes=2)
    yard.submit("run", distribution=horovod(3, min_nodes=2, max_nodes=3))
    for member in yard.run("run").members:
        for report in (cluster.LeaseAccepted(), cluster.TaskPrepared(address="10.0.0.1", ports=[1, 2])):
            yard.report(report, agent_id=member.agent_id)

    yard.joins(2)

    offers = yard.said(cluster.LeaseOffered)
    assert [(it.agent_id, it.epoch, it.node_index, it.node_count) for it in offers] == [
        ("node-0", 1, 0, 2),
        ("node-1", 1, 1, 2),
        ("node-2", 1, 2, 3),
    ]


def test_an_elastic_gang_starts_on_a_pool_that_can_only_grow_to_fewer_nodes() -> None:
    story = Story().with_pool(max_nodes=2)

    story.tell(a_submission(distribution=horovod(4, min_nodes=2)))

    assert story.state.pools["pool"].agent_ids == ("agent-0", "agent-1")


def test_a_pool_never_grows_beyond_its_maximum_for_a_gang_that_could_take_over_idle_nodes_too() -> None:
    story = Story(node_slots=4).with_pool(name="first", max_nodes=2, min_nodes=2)
    story.with_agent("agent-0").with_agent("agent-1")
    story.tell(cluster.UpdatePool(name="first", min_nodes=0, max_nodes=2), a_pool(name="second", max_nodes=2))

    story.tell(a_submission("one", target="second"), a_submission("gang", target="second", distribution={"node_count": 2}))

    assert story.state.pools["second"].agent_ids == ("agent-2",)


def test_a_node_that_comes_over_for_a_later_run_goes_at_once_to_the_first_that_it_serves() -> None:
    story = Story(node_slots=4)
    story.tell(a_pool("giver", max_nodes=2, min_nodes=1), a_pool("taker", max_nodes=4))
    story.with_agent("agent-0")
    story.tell(a_submission("first", target="taker"))
    assert not story.run("first").members

    story.tell(cluster.UpdatePool(name="giver", min_nodes=0, max_nodes=2))
    told = story.tell(a_submission("second", target="taker", distribution={"node_count": 3}))

    assert "agent-0" in story.state.pools["taker"].agent_ids
    assert [(it.run_id, it.agent_id) for it in told if isinstance(it, cluster.LeaseOffered)] == [("first", "agent-0")]


def test_nodes_beyond_a_lowered_maximum_get_nothing_more_and_leave() -> None:
    story = Story().with_pool(max_nodes=2, min_nodes=2).with_agent("agent-0").with_agent("agent-1")

    story.tell(cluster.UpdatePool(name="pool", min_nodes=0, max_nodes=1))
    story.tell(a_submission("one"), a_submission("two"))
    story.tell(Tick())

    assert [offer.agent_id for offer in story.said(cluster.LeaseOffered)] == ["agent-0"]
    assert story.state.pools["pool"].agent_ids == ("agent-0",)
