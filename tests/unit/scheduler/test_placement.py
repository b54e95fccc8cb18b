from __future__ import annotations

from dataclasses import replace

from services.scheduler.domain import Tick
from tests.unit.scheduler.story import Story, a_pool, a_submission, names
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.cluster.v1.cluster_pb2 import Resources
from trainyard.job.v1 import job_pb2 as job


def test_first_come_is_first_served() -> None:
    story = Story().with_pool(max_nodes=1, min_nodes=1).with_agent()
    for run_id in ("one", "two", "three"):
        story.tell(a_submission(run_id))

    story.tell(job.CancelRun(run_id="two"))
    story.report(cluster.LeaseAccepted(), run_id="one")
    story.tell(Tick(given_up=("agent-0",)))
    story.with_agent(incarnation="second")

    assert [offer.run_id for offer in story.said(cluster.LeaseOffered)] == ["one", "one"]


def test_a_full_pool_makes_a_run_wait_and_says_why() -> None:
    story = Story().with_pool(max_nodes=1, min_nodes=1).with_agent()
    story.tell(a_submission("one"))

    story.tell(a_submission("two"))

    assert story.run("two").why == "waits for a free node: all 1 of pool are busy and 1 is its maximum; taken by run one (agent-0)"
    assert story.run("two").status == job.RUN_STATUS_QUEUED


def test_a_machine_without_free_slots_makes_a_run_wait_and_says_why() -> None:
    story = Story(node_slots=1).with_pool(name="first", min_nodes=1).with_pool(name="second")

    story.tell(a_submission(target="second"))

    assert "this machine may run 1 and all are in use" in story.run().why


def test_an_idle_node_of_another_pool_is_taken_over_where_no_slot_is_free() -> None:
    story = Story(node_slots=1).with_pool(name="first").with_pool(name="second")
    story.tell(a_submission("one", target="first"))
    story.with_agent()
    story.tell(job.CancelRun(run_id="one"))
    story.report(cluster.OutputsUploaded(), run_id="one")

    told = story.tell(a_submission("two", target="second"))

    assert names(told) == ["RunQueued", "PoolResized", "PoolResized", "LeaseOffered"]
    assert (story.state.pools["first"].agent_ids, story.state.pools["second"].agent_ids) == ((), ("agent-0",))


def test_a_pools_minimum_is_filled_from_idle_nodes_of_others_where_no_slot_is_free() -> None:
    story = Story(node_slots=3).with_pool(name="first", max_nodes=3)
    story.tell(a_submission("one", target="first"), a_submission("two", target="first"))
    story.with_agent("agent-0").with_agent("agent-1")
    for run_id, agent in (("one", "agent-0"), ("two", "agent-1")):
        story.tell(job.CancelRun(run_id=run_id))
        story.report(cluster.OutputsUploaded(), run_id=run_id, agent_id=agent)

    story.tell(a_pool(name="second", min_nodes=2, max_nodes=2))

    assert sorted(story.state.pools["second"].agent_ids) == ["agent-0", "agent-2"]
    assert story.state.pools["first"].agent_ids == ("agent-1",)


def test_a_pools_minimum_is_not_taken_over() -> None:
    story = Story(node_slots=1).with_pool(name="first", min_nodes=1).with_agent().with_pool(name="second")

    story.tell(a_submission(target="second"))

    assert story.said(cluster.LeaseOffered) == []


def test_a_node_that_left_its_pool_is_forgotten_when_it_says_good_bye() -> None:
    story = Story().with_pool(idle_seconds=10)
    story.tell(a_submission())
    story.with_agent()
    story.tell(job.CancelRun(run_id="run"))
    story.report(cluster.OutputsUploaded())
    story.later(11).tell(Tick())

    story.tell(cluster.AgentDrained(agent_id="agent-0", incarnation="first", why="scaled down"))

    assert story.state.agents == {}


def test_a_reason_is_said_once() -> None:
    story = Story().with_pool(max_nodes=1, min_nodes=1).with_agent()
    story.tell(a_submission("one"), a_submission("two"))
    count = len(story.facts)

    story.tell(Tick(), Tick())

    assert len(story.facts) == count


def test_one_starting_node_serves_one_waiting_run() -> None:
    story = Story().with_pool(max_nodes=4)

    story.tell(a_submission("one"), a_submission("two"))

    assert story.state.pools["pool"].agent_ids == ("agent-0", "agent-1")


def test_a_node_that_does_not_come_up_is_named() -> None:
    story = Story(broken_agents=frozenset({"agent-0"})).with_pool(max_nodes=1)

    story.tell(a_submission(), Tick())

    assert "agent-0 of pool, whose process does not come up" in story.run().why


def test_a_node_that_does_not_come_up_does_not_keep_its_pool_from_growing() -> None:
    story = Story().with_pool(max_nodes=2)
    story.tell(a_submission())

    story.world = replace(story.world, broken_agents=frozenset({"agent-0"}))
    story.tell(Tick())
    story.with_agent("agent-1")

    assert [offer.agent_id for offer in story.said(cluster.LeaseOffered)] == ["agent-1"]


def test_names_that_are_no_slots_of_this_machine_are_dropped_registered_or_not() -> None:
    story = Story(node_slots=2).with_pool().with_agent("stranger")
    story.tell(cluster.PoolResized(name="pool", agent_ids=["kafka", "stranger", "agent-1"]), Tick())

    assert story.state.pools["pool"].agent_ids == ("agent-1",)


def test_a_node_that_the_machine_has_no_slot_for_any_more_is_not_waited_for() -> None:
    story = Story(node_slots=4).with_pool(max_nodes=4)
    story.tell(cluster.PoolResized(name="pool", agent_ids=["agent-3"]))
    story.world = replace(story.world, node_slots=2)

    resized = next(message for message in story.tell(a_submission()) if isinstance(message, cluster.PoolResized))

    assert list(resized.agent_ids) == ["agent-0"]


def test_a_silent_node_is_offered_nothing() -> None:
    story = Story(silent_agents=frozenset({"agent-0"})).with_pool(min_nodes=1, max_nodes=1).with_agent()

    story.tell(a_submission())

    assert story.said(cluster.LeaseOffered) == []


def test_a_pool_starts_with_its_minimum() -> None:
    story = Story()

    told = story.tell(a_pool(min_nodes=2))

    assert names(told) == ["PoolCreated", "PoolResized"]
    assert list(told[1].agent_ids) == ["agent-0", "agent-1"]


def test_idle_nodes_leave_after_their_time_but_for_the_minimum() -> None:
    story = Story().with_pool(min_nodes=1, max_nodes=3, idle_seconds=10).with_agent()
    story.tell(a_submission("one"), a_submission("two"))
    story.with_agent("agent-1")
    for run_id, agent in (("one", "agent-0"), ("two", "agent-1")):
        story.tell(job.CancelRun(run_id=run_id))
        story.report(cluster.OutputsUploaded(), run_id=run_id, agent_id=agent)

    assert story.later(9).tell(Tick()) == []
    (resized,) = story.later(1).tell(Tick())

    assert list(resized.agent_ids) == ["agent-0"]
    assert story.later(100).tell(Tick()) == []


def test_a_busy_node_stays_however_long_its_run_takes() -> None:
    story = Story().with_pool(idle_seconds=10)
    story.tell(a_submission())
    story.with_agent()
    story.report(cluster.LeaseAccepted())

    assert story.later(3600).tell(Tick()) == []


def test_a_node_that_a_run_waits_for_does_not_leave_while_it_starts() -> None:
    story = Story().with_pool(idle_seconds=1)
    story.tell(a_submission())

    assert story.later(60).tell(Tick()) == []


# -- pools


def test_a_shape_is_capped_to_the_machine_and_says_so() -> None:
    story = Story(machine=Resources(cpus=2, memory_bytes=8 << 30))

    (created,) = story.tell(cluster.CreatePool(submission_id="s", name="gpus", vm_size="Standard_NC6", max_nodes=4))

    assert (created.shape.cpus, created.shape.gpus) == (2, 0)
    assert created.note == "Standard_NC6 asks for 6 cores, 56 GiB, 1 GPU; this machine gives 2 cores, 8 GiB, 0 GPUs"


def test_use_gpu_without_gpus_is_a_warning() -> None:
    story = Story().with_pool()

    story.tell(a_submission(use_gpu=True))

    assert len(story.run().warnings) == 1


def test_the_same_definition_again_is_the_same_pool_and_another_is_refused() -> None:
    story = Story().with_pool()

    again = a_pool()
    again.submission_id = "another"
    assert story.tell(again) == []
    (refused,) = story.tell(cluster.CreatePool(submission_id="third", name="pool", vm_size="STANDARD_D1", max_nodes=9))

    assert refused.failure.code == "AlreadyExists"


def test_bad_pools_are_refused_with_what_is_wrong() -> None:
    story = Story()

    bad = [
        cluster.CreatePool(submission_id="1", name="-x", vm_size="STANDARD_D1", max_nodes=1),
        cluster.CreatePool(submission_id="2", name="pool", vm_size="HUGE", max_nodes=1),
        cluster.CreatePool(submission_id="3", name="pool", vm_size="STANDARD_D1", max_nodes=0),
        cluster.CreatePool(submission_id="4", name="pool", vm_size="STANDARD_D1", min_nodes=3, max_nodes=2),
        cluster.CreatePool(submission_id="5", name="pool", vm_size="STANDARD_D1", max_nodes=1, vm_priority="cheap"),
        a_pool(idle_seconds=10**11),
    ]

    assert [refused.failure.target for refused in story.tell(*bad)] == [
        "name",
        "vm_size",
        "max_nodes",
        "max_nodes",
        "vm_priority",
        "idle_before_scaledown",
    ]
    assert story.state.pools == {}


def test_a_pool_in_use_stays() -> None:
    story = Story().with_run_running()

    assert story.tell(cluster.DeletePool(name="pool")) == []
    story.tell(job.CancelRun(run_id="run"))
    story.report(cluster.OutputsUploaded())

    assert names(story.tell(cluster.DeletePool(name="pool"))) == ["PoolDeleted"]
    assert story.state.pools == {}
