"""What facts make of an endpoint: its state, what answers, and which servers are wanted."""

from __future__ import annotations

from typing import Any

import pytest

from services.serving.domain.endpoint import evolve, state_of, wanted, why_of
from tests.unit.serving.builders import FAILURE, after, deleted, failed, live, progress, starting, unhealthy
from trainyard.endpoint.v1 import endpoint_pb2 as pb

_TABLE: list[tuple[str, list[Any], str, list[int], str]] = [
    ("accepted", [starting()], "TRANSITIONING", [1], ""),
    ("live", [starting(), live()], "HEALTHY", [1], "h:7001"),
    ("down", [starting(), live(), unhealthy()], "UNHEALTHY", [1], "h:7001"),
    ("back", [starting(), live(), unhealthy(), live(1, 9)], "HEALTHY", [1], "h:9"),
    ("failed", [starting(), failed()], "FAILED", [], ""),
    ("failed for good", [starting(), live(), unhealthy(), failed()], "FAILED", [], ""),
    ("overwritten, not yet", [starting(), live(), starting(2)], "TRANSITIONING", [1, 2], "h:7001"),
    ("overwritten", [starting(), live(), starting(2), live(2)], "HEALTHY", [2], "h:7002"),
    ("the new one failed", [starting(), live(), starting(2), failed(2)], "FAILED", [1], "h:7001"),
    ("the old one failed", [starting(), live(), starting(2), failed(1)], "TRANSITIONING", [2], ""),
    ("the old one went down", [starting(), live(), starting(2), unhealthy(1)], "TRANSITIONING", [1, 2], "h:7001"),
    ("both failed", [starting(), live(), starting(2), failed(2), failed(1)], "FAILED", [], ""),
    ("after a failure", [starting(), live(), starting(2), failed(2), starting(3)], "TRANSITIONING", [1, 3], "h:7001"),
    ("overtaken before it was live", [starting(), starting(2)], "TRANSITIONING", [2], ""),
    ("deleted", [starting(), live(), deleted()], "DELETED", [], ""),
    ("deleted with two", [starting(), live(), starting(2), deleted()], "DELETED", [], ""),
    ("deployed anew", [starting(), live(), deleted(), starting(2)], "TRANSITIONING", [2], ""),
]


@pytest.mark.parametrize(("facts", "state", "numbers", "address"), [row[1:] for row in _TABLE], ids=[row[0] for row in _TABLE])
def test_facts_decide_the_state_the_servers_and_the_address(facts: list[Any], state: str, numbers: list[int], address: str) -> None:
    endpoint = after(*facts)

    assert pb.EndpointState.Name(state_of(endpoint)) == f"ENDPOINT_STATE_{state}"
    assert [deployment.number for deployment in wanted(endpoint)] == numbers
    assert endpoint.grpc_address == address
    assert bool(endpoint.scoring_uri) == bool(address)


@pytest.mark.parametrize("facts", [row[1] for row in _TABLE], ids=[row[0] for row in _TABLE])
def test_a_fact_that_comes_again_changes_nothing(facts: list[Any]) -> None:
    endpoint = after(*facts)

    assert evolve(endpoint, facts[-1]) == endpoint


def test_facts_of_an_endpoint_that_is_not_there_make_none() -> None:
    for fact in (live(), progress("loading"), unhealthy(), failed(), deleted()):
        assert evolve(None, fact) is None


def test_why_says_what_the_deployment_is_at_and_what_answers_meanwhile() -> None:
    assert why_of(after(starting(), progress("loading mnist:1"))) == "loading mnist:1"
    assert why_of(after(starting(), progress("loading mnist:1"), live())) == ""
    assert why_of(after(starting(), live(), unhealthy())) == "it died"
    assert why_of(after(starting(), live(), starting(2, version=2), progress("loading mnist:2", 2))) == (
        "loading mnist:2; mnist:1 (deployment 1) answers meanwhile"
    )
    assert why_of(after(starting(), live(), starting(2), unhealthy(1))).endswith("is being brought back meanwhile")
    assert why_of(after(starting(), live(), starting(2), failed(2))) == "cannot load it; mnist:1 (deployment 1) answers meanwhile"


def test_a_failure_is_kept_until_the_next_deployment() -> None:
    assert after(starting(), failed()).failure == FAILURE
    assert after(starting(), failed(), starting(2)).failure is None
