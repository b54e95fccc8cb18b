"""Attempts, checkpoints and waiting, with the handler, the store and the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from services.chassis import codec
from services.chassis.settings import Scheduler
from services.chassis.store import Store
from services.scheduler.domain import Run
from services.scheduler.handlers import AGENT, POOL, RUN, SchedulerHandler
from tests.unit.on_memory import OnMemory
from tests.unit.scheduler.gang_story import GangStory, files, horovod
from tests.unit.scheduler.story import START, a_failure, a_pool, a_submission, names, some_outputs
from tests.unit.scheduler.test_heartbeats import a_handler, told
from trainyard._cloudevents import Received
from trainyard._kafka import partition_of
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job

JOBS, LEASES, TASKS, AGENTS = "trainyard.jobs", "trainyard.leases", "trainyard.tasks", "trainyard.agents"


def a_scheduler() -> SchedulerHandler:
    return SchedulerHandler(Scheduler(), "me", cluster.Resources(cpus=1), lambda: START)


@pytest.fixture
def service() -> Iterator[OnMemory]:
    made = OnMemory("scheduler", a_scheduler, [JOBS, LEASES, TASKS, AGENTS], [RUN, POOL, AGENT])
    yield made
    made.close()


def tell(service: OnMemory, topic: str, key: str, message: Any) -> None:
    service.publish(topic, key, message)
    service.flush()


def report(service: OnMemory, *messages: Any) -> None:
    epoch = run_of(service, "run").epoch
    for message in messages:
        message.run_id, message.epoch, message.agent_id, message.incarnation = "run", epoch, "agent-0", "first"
        tell(service, TASKS, "run", message)


def run_of(service: OnMemory, run_id: str) -> Run:
    with service.store.reading() as documents:
        content = documents.get(RUN, run_id)
    assert content is not None
    return codec.loads(content, Run)


def test_restarts_checkpoints_and_a_resumed_run_are_in_the_store_and_come_back_from_the_log(service: OnMemory) -> None:
    saved = cluster.CheckpointSaved(number=1, checkpoint=files("ckpt"))
    tell(service, AGENTS, "pool", a_pool(max_nodes=1))
    tell(service, JOBS, "run", a_submission(max_restarts=1))
    tell(service, AGENTS, "agent-0", cluster.AgentRegistered(agent_id="agent-0", incarnation="first"))
    report(service, cluster.LeaseAccepted(), cluster.TaskPrepared(), cluster.TaskStarted(), saved)
    report(service, cluster.TaskExited(exit_code=1), some_outputs())
    report(service, cluster.LeaseAccepted(), cluster.TaskPrepared(), cluster.TaskStarted(), cluster.TaskExited(), some_outputs())

    tell(service, JOBS, "next", a_submission("next", resume_from="run"))

    first, second = run_of(service, "run"), run_of(service, "next")
    assert (first.status, first.epoch, first.restarts) == (job.RUN_STATUS_COMPLETED, 2, 1)
    assert second.checkpoint == first.checkpoint == files("ckpt")
    assert service.documents() == service.replayed()


def test_a_gang_that_does_not_form_is_given_up_by_pulses(seconds: int = 3) -> None:
    story = GangStory().accepted()
    handler = a_handler(story, gang_seconds=seconds, suspect_after_seconds=100, lost_after_seconds=200)

    pulses = [names(told(handler, cluster.SchedulerPulse(incarnation="me"))) for _ in range(seconds)]

    assert [it for it in pulses if "RunRequeued" in it] == pulses[-1:]


def test_the_settings_say_how_long_an_elastic_gang_waits() -> None:
    story = GangStory(horovod(nodes=2, min_nodes=2, max_nodes=3)).running()
    handler = a_handler(story, elastic_seconds=30)

    answers = told(handler, cluster.AgentDrained(agent_id="node-1", incarnation="first"))

    waiting = next(it for it in answers if isinstance(it, job.GangWaiting))
    assert waiting.deadline.seconds == START.timestamp() + 30


def test_a_node_that_could_not_come_in_is_not_asked_again_at_once() -> None:
    story = GangStory(horovod(nodes=2, min_nodes=1, max_nodes=3)).running()
    story.node(7)
    handler = a_handler(story.joins(7))
    failed = cluster.TaskFailed(run_id="run", epoch=1, agent_id="node-7", incarnation="first", failure=a_failure())

    told(handler, failed)

    assert handler._world().declined_agents == {"node-7"}


def test_what_was_answered_is_applied_to_what_is_known_by_then() -> None:
    story = GangStory().accepted()
    handler = a_handler(story)
    first = _prepared("node-0")

    with Store("sqlite://").transaction() as transaction:
        handler.react(first, transaction.documents)
        story.tell(_prepared("node-1").message)
        handler.state = story.state
        handler.apply(first, transaction.documents)

    assert [it.prepared for it in handler.state.runs["run"].members] == [True, True]


def _prepared(agent_id: str) -> Received:
    return _received(cluster.TaskPrepared(run_id="run", epoch=1, agent_id=agent_id, incarnation="first", address="10.0.0.1", ports=[1]))


def _received(message: Any) -> Received:
    return Received(TASKS, 0, 0, "run", message.agent_id, message.DESCRIPTOR.full_name, "", START, message)


def test_members_that_read_one_partition_are_told_by_one_record(monkeypatch: pytest.MonkeyPatch) -> None:
    partitions = 3
    monkeypatch.setattr("services.scheduler.handlers._partition", lambda agent_id: partition_of(agent_id, partitions))
    story = GangStory(horovod(nodes=8)).accepted()
    members = story.run("run").members
    for member in members[:-1]:
        story.report(cluster.TaskPrepared(address="x", ports=[1, 2]), agent_id=member.agent_id, incarnation=member.incarnation)
    last = cluster.TaskPrepared(run_id="run", epoch=1, agent_id=members[-1].agent_id, incarnation="first", address="x", ports=[1, 2])

    documents: Any = None
    emits = a_handler(story).react(_received(last), documents)

    formed = [emit for emit in emits if isinstance(emit.message, job.GangFormed)]
    lanes = [partition_of(emit.key, partitions) for emit in formed if emit.topic == LEASES]
    assert [emit.topic for emit in formed].count(JOBS) == 1
    assert sorted(lanes) == sorted({partition_of(member.agent_id, partitions) for member in members})
    assert all(len(emit.message.members) == len(members) for emit in formed)  # type: ignore[attr-defined]


def test_a_run_says_where_it_stands_and_who_works_on_it() -> None:
    story = GangStory().running()
    handler = a_handler(story)
    story.tell(a_submission("b"), a_submission("c"))
    handler.state = story.state

    standing = [handler.explain(story.run(name)) for name in ("run", "b", "c")]

    assert [position for position, _ in standing] == [0, 1, 2]
    assert all(why for _, why in standing)
