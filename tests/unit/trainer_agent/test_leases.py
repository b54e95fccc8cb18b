from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from services.trainer_agent.domain import Accept, Action, Decline, End, Form, Leases, Me, Part, Stop, decide, evolve, fault, released
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.cluster.v1.resources_pb2 import Resources
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1.spec_pb2 import RunSpec

ME = Me("agent-0", "mine")


def an_offer(
    run_id: str = "run",
    epoch: int = 1,
    incarnation: str = "mine",
    agent_id: str = "agent-0",
    node_index: int = 0,
    shares: bool = False,
    gpus: Sequence[int] = (),
) -> Any:
    """shares: it asks for a part of the node."""
    offer = cluster.LeaseOffered(
        run_id=run_id, epoch=epoch, agent_id=agent_id, incarnation=incarnation, ranks=[0], node_index=node_index, gpus=gpus
    )
    if shares:
        offer.spec.CopyFrom(RunSpec(resources=Resources(cpus=1, gpus=len(gpus))))
    return offer


def a_gang(run_id: str = "run", epoch: int = 1, incarnation: str = "mine", number: int = 1) -> Any:
    members = [job.GangMember(agent_id="agent-0", incarnation=incarnation, ranks=[0])]
    return job.GangFormed(run_id=run_id, epoch=epoch, round=number, members=members)


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
    assert after(an_offer(epoch=0, node_index=1))[1] == []
    assert after(an_offer(agent_id="agent-1"))[1] == []


def test_runs_share_a_node_where_each_takes_a_part_of_it() -> None:
    leases, actions = after(an_offer(shares=True, gpus=[0]), an_offer("other", shares=True, gpus=[1]))

    assert [type(action) for action in actions] == [Accept]
    assert sorted(leases.held) == ["other", "run"]


@pytest.mark.parametrize(
    ("held", "wanted", "why"),
    [
        (an_offer(), an_offer("other"), "it holds run, which has the whole node"),
        (an_offer(), an_offer("other", shares=True), "it holds run, which has the whole node"),
        (an_offer(shares=True), an_offer("other"), "it holds run, and the run wants the whole node"),
        (an_offer(shares=True, gpus=[0, 2, 3]), an_offer("other", shares=True, gpus=[2, 3, 4]), "it holds run, which has GPU 2, 3"),
    ],
)
def test_what_clashes_with_a_held_lease_is_declined_with_the_reason(held: Any, wanted: Any, why: str) -> None:
    leases, (declined,) = after(held, wanted)

    assert declined == Decline(wanted, why)
    assert sorted(leases.held) == ["run"]


def test_what_clashed_can_be_taken_once_the_other_is_over() -> None:
    leases, _ = after(an_offer())

    freed = released(leases, "run", Part(1, 0))

    assert [type(action) for action in after(an_offer("other"), leases=freed)[1]] == [Accept]


def test_an_end_of_an_earlier_part_frees_nothing_of_a_later_one() -> None:
    leases, _ = after(an_offer(node_index=1), an_offer(node_index=4))

    assert released(leases, "run", Part(1, 1)).held["run"].part == Part(1, 4)


def test_a_node_that_left_an_elastic_gang_may_come_back_at_another_position() -> None:
    leases, _ = after(an_offer(node_index=1))
    left = released(leases, "run", Part(1, 1))

    assert after(an_offer(node_index=1), leases=left)[1] == []
    assert [type(action) for action in after(an_offer(node_index=2), leases=left)[1]] == [Accept]


def test_a_later_attempt_of_the_same_run_ends_the_earlier_and_is_taken() -> None:
    stop, accept = after(an_offer(), an_offer(epoch=2))[1]

    assert (stop, accept) == (Stop("run", Part(1, 0), "attempt 2 begins", save_outputs=False), Accept(an_offer(epoch=2)))


def test_an_earlier_attempt_that_comes_late_is_void() -> None:
    leases, _ = after(an_offer(epoch=2))

    assert after(an_offer(epoch=1), leases=released(leases, "run", Part(2, 0)))[1] == []


def test_a_gang_starts_the_held_attempt_once() -> None:
    leases, (start,) = after(an_offer(), a_gang())
    assert isinstance(start, Form)

    assert after(a_gang(), leases=leases)[1] == []


def test_each_round_of_an_elastic_gang_is_told_once_and_an_earlier_one_never() -> None:
    leases, actions = after(an_offer(), a_gang(number=1), a_gang(number=3))
    assert actions == [Form("run", a_gang(number=3))]

    assert after(a_gang(number=2), leases=leases)[1] == []
    assert after(a_gang(number=3), leases=leases)[1] == []


def test_a_node_that_the_next_round_is_without_saves_what_it_has_and_stops() -> None:
    _, actions = after(an_offer(), a_gang(), a_gang(number=2, incarnation="another's"))

    assert actions == [Stop("run", Part(1, 0), "the gang goes on without this node", save_outputs=True)]


def test_a_node_that_is_still_to_come_in_does_not_mind_a_round_without_it() -> None:
    assert after(an_offer(node_index=3), a_gang(number=2, incarnation="another's"))[1] == []


def test_a_gang_of_another_attempt_or_without_this_process_starts_nothing() -> None:
    assert after(an_offer(), a_gang(epoch=2))[1] == []
    assert after(an_offer(), a_gang(incarnation="earlier"))[1] == []
    assert after(a_gang())[1] == []


def test_a_revoked_attempt_is_let_go_at_once_unless_its_outputs_are_wanted() -> None:
    leases, actions = after(an_offer(), a_revocation())
    assert [type(action) for action in actions] == [Stop]
    assert leases.held == {}

    leases, _ = after(an_offer(), a_revocation(save_outputs=True))
    assert leases.held["run"].part == Part(1, 0)


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
