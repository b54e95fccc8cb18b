"""Which versions are loaded and unloaded: policies, and the new one before the old one goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.serving.model_server.errors import FAILED_PRECONDITION, INVALID_ARGUMENT, ServeError
from services.serving.model_server.served import State
from services.serving.model_server.versions import (
    All,
    Labels,
    Latest,
    Load,
    ModelConfig,
    Policy,
    Specific,
    Standing,
    Unload,
    aspired,
    check_change,
    check_labels,
    steps,
)

HERE, LOADING, ENDED = Standing(State.AVAILABLE), Standing(State.LOADING), Standing(State.END)
GIVEN_UP = Standing(State.END, given_up=True)


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [(Latest(), {9}), (Latest(2), {9, 4}), (Latest(5), {9, 4, 1}), (All(), {9, 4, 1}), (Specific(frozenset({4, 7})), {4})],
)
def test_a_policy_chooses_among_what_lies_there(policy: Policy, wanted: set[int]) -> None:
    assert aspired(policy, [4, 9, 1]) == wanted


def test_an_old_version_stays_until_the_new_one_answers() -> None:
    wanted = frozenset({2})

    assert steps(wanted, {1: HERE}) == [Load(2)]
    assert steps(wanted, {1: HERE, 2: LOADING}) == []
    assert steps(wanted, {1: HERE, 2: HERE}) == [Unload(1)]


def test_an_old_version_stays_where_the_new_one_cannot_be_loaded() -> None:
    assert steps(frozenset({2}), {1: HERE, 2: GIVEN_UP}) == []


def test_what_nothing_follows_goes_at_once() -> None:
    assert steps(frozenset(), {1: HERE, 2: HERE, 3: LOADING}) == [Unload(1), Unload(2)]


def test_what_was_unloaded_may_come_back() -> None:
    assert steps(frozenset({1}), {1: ENDED, 2: HERE}) == [Load(1)]


_standings = st.dictionaries(st.integers(1, 6), st.sampled_from([HERE, LOADING, ENDED, GIVEN_UP, Standing(State.UNLOADING)]))


@given(st.frozensets(st.integers(1, 6)), _standings)
def test_whoever_answers_is_never_the_last_to_go_while_something_is_wanted(wanted: frozenset[int], known: dict[int, Standing]) -> None:
    unloaded = {step.version for step in steps(wanted, known) if isinstance(step, Unload)}

    answering = {version for version, it in known.items() if it.state is State.AVAILABLE}
    assert unloaded <= answering - wanted
    assert not wanted or not answering or answering - unloaded


@given(st.frozensets(st.integers(1, 6)), _standings)
def test_steps_lead_to_what_is_wanted_and_then_there_are_none(wanted: frozenset[int], known: dict[int, Standing]) -> None:
    """Every load succeeds here, and every unload ends."""
    state = {version: it for version, it in known.items() if it.state in (State.AVAILABLE, State.END) and not it.given_up}
    for _ in range(3):
        for step in steps(wanted, state):
            state[step.version] = HERE if isinstance(step, Load) else ENDED

    assert {version for version, it in state.items() if it.state is State.AVAILABLE} == wanted
    assert steps(wanted, state) == []


def test_a_list_of_models_that_makes_no_sense_is_refused() -> None:
    a, other = ModelConfig("a", "/a"), ModelConfig("a", "/a", platform="tflite")

    for before, after, text in [
        ({}, [a, a], "multiple times"),
        ({}, [ModelConfig("", "/a")], "has no name"),
        ({}, [ModelConfig("a", "models/a")], "absolute path"),
        ({"a": a}, [other], "Illegal to change a model's platform"),
    ]:
        with pytest.raises(ServeError, match=text) as caught:
            check_change(before, after)
        assert caught.value.code == INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("rule", "old", "allowed"),
    [
        (Labels.LOADED, {}, False),
        (Labels.NEW, {}, True),
        (Labels.NEW, {"stable": 2}, True),
        (Labels.NEW, {"stable": 1}, False),
        (Labels.ANY, {"stable": 1}, True),
    ],
)
def test_a_label_points_at_what_answers_or_at_what_the_rule_allows(rule: Labels, old: dict[str, int], allowed: bool) -> None:
    config = ModelConfig("a", "/a", labels={"stable": 2})

    check_labels(config, old, frozenset({1, 2}), rule)
    if allowed:
        check_labels(config, old, frozenset({1}), rule)
        return
    with pytest.raises(ServeError, match="Request to assign label to version 2 of model a") as caught:
        check_labels(config, old, frozenset({1}), rule)
    assert caught.value.code == FAILED_PRECONDITION
