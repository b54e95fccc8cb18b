"""What the scheduler makes of heartbeats and its own pulses, handler and all."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from services.chassis.settings import Scheduler
from services.scheduler.domain.holding import MISSES
from services.scheduler.handlers import SchedulerHandler
from tests.unit.scheduler.story import START, Story, a_submission, names
from trainyard._cloudevents import Received
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job


def a_handler(story: Story, **settings: Any) -> SchedulerHandler:
    handler = SchedulerHandler(Scheduler(pulse_seconds=1, **settings), "me", cluster.Resources(cpus=1), lambda: START)
    handler.state = story.state
    return handler


def told(handler: SchedulerHandler, message: Message) -> list[Any]:
    documents: Any = None
    event = Received("trainyard.heartbeats", 0, 0, "agent-0", "id", message.DESCRIPTOR.full_name, "", START, message)
    return [emit.message for emit in handler.react(event, documents)]


def a_beat(*held: tuple[str, int]) -> Any:
    listed = [cluster.HeldRun(run_id=run_id, epoch=epoch) for run_id, epoch in held]
    return cluster.AgentHeartbeat(agent_id="agent-0", incarnation="first", held=listed)


def test_an_agent_that_goes_on_without_its_run_loses_it() -> None:
    handler = a_handler(Story().with_pool(min_nodes=1).with_run_running())

    answers = [told(handler, a_beat()) for _ in range(MISSES)]

    assert answers[:-1] == [[]] * (MISSES - 1)
    assert names(answers[-1])[:2] == ["LeaseRevoked", "RunRequeued"]


def test_an_agent_that_lists_its_run_keeps_it() -> None:
    handler = a_handler(Story().with_run_running())

    assert [told(handler, a_beat(("run", 1))) for _ in range(50)] == [[]] * 50


def test_an_offer_is_withdrawn_by_pulses_of_this_process_alone() -> None:
    handler = a_handler(Story().with_run_offered(), offer_seconds=3, suspect_after_seconds=100, lost_after_seconds=200)

    others = [told(handler, cluster.SchedulerPulse(incarnation="earlier")) for _ in range(50)]
    mine = [names(told(handler, cluster.SchedulerPulse(incarnation="me"))) for _ in range(3)]

    assert others == [[]] * 50
    assert mine[:2] == [[], []]
    assert mine[2][:2] == ["LeaseRevoked", "RunRequeued"]


def test_who_declined_is_not_asked_again_by_the_next_decision() -> None:
    story = Story().with_pool(max_nodes=1)
    handler = a_handler(story.with_run_offered())
    declined = cluster.LeaseDeclined(run_id="run", epoch=1, agent_id="agent-0", incarnation="first", why="it holds another")

    told(handler, declined)

    assert handler._world().declined_agents == {"agent-0"}


def test_an_agent_that_no_pool_holds_is_told_to_end_once_it_has_been_heard_for_a_while() -> None:
    handler = a_handler(Story().with_agent())

    answers = [told(handler, a_beat()) for _ in range(5)]

    assert answers[:-1] == [[]] * 4
    (fenced,) = answers[-1]
    assert (fenced.agent_id, fenced.incarnation, fenced.why) == ("agent-0", "first", "no pool holds agent-0")


def test_a_process_that_was_given_up_and_goes_on_is_told_to_end_even_where_its_pool_is_gone() -> None:
    handler = a_handler(Story())

    answers = [told(handler, a_beat()) for _ in range(5)]

    assert names(answers[-1]) == ["AgentFenced"]


def test_runs_that_wait_for_a_dead_pool_fail_by_pulses_of_this_process() -> None:
    story = Story().with_pool()
    story.tell(a_submission())
    handler = a_handler(story, pool_dead_seconds=3)
    handler.health.told("", {"agent-0": "it ended again and again"})

    told_by = [told(handler, cluster.SchedulerPulse(incarnation="me")) for _ in range(3)]

    failed = [[it for it in messages if isinstance(it, job.RunFailed)] for messages in told_by]
    assert [len(it) for it in failed] == [0, 0, 1]
    assert "it ended again and again" in failed[2][0].failure.message


def test_what_is_heard_again_after_a_transaction_that_failed_counts_once() -> None:
    handler = a_handler(Story().with_pool(min_nodes=1).with_run_running(), suspect_after_seconds=3)
    stranger = cluster.AgentHeartbeat(agent_id="nobody", incarnation="first")
    half = [*[a_beat()] * (MISSES - 1), *[stranger] * 4, cluster.SchedulerPulse(incarnation="me")]

    restore = handler.snapshot()
    first = [names(told(handler, message)) for message in half]
    restore()
    again = [names(told(handler, message)) for message in half]

    assert first == again == [[]] * len(half)
    assert handler.heard == len(half)


def test_silence_is_counted_anew_after_a_transaction_that_failed() -> None:
    handler = a_handler(Story().with_pool(min_nodes=1).with_run_running(), suspect_after_seconds=3)
    pulse = cluster.SchedulerPulse(incarnation="me")

    restore = handler.snapshot()
    first = [names(told(handler, pulse)) for _ in range(5)]
    restore()
    again = [names(told(handler, pulse)) for _ in range(5)]

    assert [] in first and first[-1] != []
    assert first == again
