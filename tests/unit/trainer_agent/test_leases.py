from __future__ import annotations

from typing import Any

import pytest

from services.trainer_agent.domain import Accept, Action, Decline, End, Leases, Me, Start, Stop, decide, evolve, fault, released
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job

ME = Me("agent-0", "mine")


def an_offer(run_id: str = "run", epoch: int = 1, incarnation: str = "mine", agent_id: str = "agent-0") -> Any:
    return cluster.LeaseOffered(run_id=run_id, epoch=epoch, agent_id=agent_id, incarnation=incarnation, ranks=[0])


def a_gang(run_id: str = "run", epoch: int = 1, incarnation: str = "mine") -> Any:
    return job.GangFormed(run_id=run_id, epoch=epoch, members=[job.GangMember(agent_id="agent-0", incarnation=incarnation, ranks=[0])])


def a_revocation(run_id: str = "run", epoch: int = 1, save_outputs: bool = False) -> Any:
    return cluster.LeaseRevoked(run_id=run_id, epoch=epoch, agent_id="agent-0", save_outputs=save_outputs)


def after(*messages: Any, leases: Leases | None = None) -> tuple[Leases, list[Action]]:
    """The leases and the actions that the last message led to."""
    leases, actions = leases or Leases(), []
    for message in messages:
        actions = decide(leases, message, ME)
        for action in actions:
            leases = evolve(leases, action)
    return leases, actions


def test_an_offer_is_accepted_once() -> None:
    leases, actions = after(an_offer())
    assert actions == [Accept(an_offer())]

    assert after(an_offer(), leases=leases)[1] == []


def test_offers_to_an_earlier_process_or_another_node_are_void() -> None:
    assert after(an_offer(incarnation="earlier"))[1] == []
    assert after(an_offer(agent_id="agent-1"))[1] == []


def test_a_second_run_is_declined_while_one_is_held() -> None:
    (declined,) = after(an_offer(), an_offer("other"))[1]

    assert isinstance(declined, Decline)
    assert declined.why == "it holds run"


def test_a_later_attempt_of_the_same_run_ends_the_earlier_and_is_taken() -> None:
    stop, accept = after(an_offer(), an_offer(epoch=2))[1]

    assert (stop, accept) == (Stop("run", 1, "attempt 2 begins", save_outputs=False), Accept(an_offer(epoch=2)))


def test_an_earlier_attempt_that_comes_late_is_void() -> None:
    leases, _ = after(an_offer(epoch=2))

    assert after(an_offer(epoch=1), leases=released(leases, "run", 2))[1] == []


def test_a_gang_starts_the_held_attempt_once() -> None:
    leases, (start,) = after(an_offer(), a_gang())
    assert isinstance(start, Start)

    assert after(a_gang(), leases=leases)[1] == []


def test_a_gang_of_another_attempt_or_without_this_process_starts_nothing() -> None:
    assert after(an_offer(), a_gang(epoch=2))[1] == []
    assert after(an_offer(), a_gang(incarnation="earlier"))[1] == []
    assert after(a_gang())[1] == []


def test_a_revoked_attempt_is_let_go_at_once_unless_its_outputs_are_wanted() -> None:
    leases, actions = after(an_offer(), a_revocation())
    assert [type(action) for action in actions] == [Stop]
    assert leases.held == {}

    leases, _ = after(an_offer(), a_revocation(save_outputs=True))
    assert leases.held == {"run": 1}


def test_a_revocation_covers_earlier_epochs_and_no_later_ones() -> None:
    assert [type(action) for action in after(an_offer(epoch=1), a_revocation(epoch=3))[1]] == [Stop]
    assert after(an_offer(epoch=4), a_revocation(epoch=3))[1] == []


def test_a_fenced_process_ends_and_takes_nothing_more() -> None:
    leases, actions = after(cluster.AgentFenced(agent_id="agent-0", incarnation="mine", why="lost"))
    assert actions == [End("lost")]

    assert [type(action) for action in after(an_offer(), leases=leases)[1]] == [Decline]


def test_a_fence_for_an_earlier_process_is_void() -> None:
    assert after(cluster.AgentFenced(agent_id="agent-0", incarnation="earlier"))[1] == []


@pytest.mark.security
@pytest.mark.parametrize("run_id", ["", "../../victim", "/etc", "a/b", "run\n", "x" * 129, "-rf"])
def test_an_offer_of_what_is_no_run_id_is_never_taken(run_id: str) -> None:
    assert after(an_offer(run_id))[1] == []
    assert fault(an_offer(run_id)).startswith(f"run_id {run_id[:200]!r} is none")
