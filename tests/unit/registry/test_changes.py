"""Aliases, stages, what is said of a version, and its deletion: given what is known, when a request comes, then these facts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from services.registry.domain import changes
from services.registry.domain.model import Leaving, Request, State
from services.registry.domain.objections import MAX_ALIASES
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet, Failure
from trainyard.model.v1.model_pb2 import (
    MODEL_STAGE_PRODUCTION,
    MODEL_STAGE_STAGING,
    AliasMoved,
    DatasetRef,
    DeleteModelVersion,
    Lineage,
    ModelChangeRejected,
    ModelVersion,
    ModelVersionDeleted,
    ModelVersionLeaving,
    ModelVersionUpdated,
    Requirements,
    SetAlias,
    SetStage,
    StageChanged,
    UpdateModelVersion,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)
FILES = ArtifactSet(files=[Artifact(path="model/saved_model.pb", size_bytes=1, sha256="a" * 64)])
VERSION = ModelVersion(
    model="mnist", version=2, digest="d" * 64, artifacts=FILES, tags={"a": "1", "b": "2"}, properties={"p": "1"}, description="old"
)
KNOWN = State(latest=3, version=VERSION, aliases={"champion": 1})
LEAVING = Leaving("s1", "mnist", 2, False, "e1", "c1")


def alias(name: str = "champion", version: int = 2) -> SetAlias:
    return SetAlias(submission_id="s1", model="mnist", alias=name, version=version)


def stage(to: Any = MODEL_STAGE_PRODUCTION) -> SetStage:
    return SetStage(submission_id="s1", model="mnist", version=2, stage=to)


def update(**fields: Any) -> UpdateModelVersion:
    return UpdateModelVersion(submission_id="s1", model="mnist", version=2, **fields)


def delete(**fields: Any) -> DeleteModelVersion:
    return DeleteModelVersion(submission_id="s1", model="mnist", version=2, **fields)


def decided(state: State, request: Request) -> Any:
    (fact,) = changes.decide(state, request, AT)
    assert (fact.submission_id, fact.model) == ("s1", "mnist")
    return fact


def refusal(state: State, request: Request) -> Failure:
    fact = decided(state, request)
    assert isinstance(fact, ModelChangeRejected)
    return fact.failure


def deleted() -> ModelVersion:
    gone = ModelVersion()
    gone.CopyFrom(VERSION)
    gone.deleted_at.FromDatetime(AT)
    return gone


def test_an_alias_moves_in_one_fact_that_tells_where_it_pointed() -> None:
    fact = decided(KNOWN, alias())

    after = changes.evolve(KNOWN, fact, "e1")

    assert isinstance(fact, AliasMoved)
    assert (fact.version, fact.previous_version) == (2, 1)
    assert after.aliases == {"champion": 2}
    assert after.answer is not None and (after.answer.version, after.answer.event_id) == (2, "e1")


def test_an_alias_that_is_taken_away_is_no_more_and_one_that_is_none_cannot_be() -> None:
    fact = decided(KNOWN, alias(version=0))

    assert (fact.version, fact.previous_version) == (0, 1)
    assert changes.evolve(KNOWN, fact).aliases == {}
    failure = refusal(KNOWN, alias("other", version=0))
    assert failure.code == "ModelNotFound" and "its aliases are: champion" in failure.message


@pytest.mark.parametrize("name", ["", "latest", "1", "-a", "a b", "a@b", "a:b", "a" * 64, "ä", "a\n"])
def test_an_alias_outside_the_grammar_is_refused(name: str) -> None:
    assert (refusal(KNOWN, alias(name)).code, refusal(KNOWN, alias(name)).target) == ("UserError", "alias")


def test_a_model_has_so_many_aliases_and_those_it_has_still_move() -> None:
    full = replace(KNOWN, aliases={f"a{number}": 1 for number in range(MAX_ALIASES)})

    assert refusal(full, alias("one-more")).target == "alias"
    assert isinstance(decided(full, alias("a7")), AliasMoved)


def test_a_stage_is_changed_and_tells_what_it_was() -> None:
    state = changes.evolve(KNOWN, decided(KNOWN, stage(MODEL_STAGE_STAGING)))
    fact = decided(replace(state, answer=None), stage())

    assert isinstance(fact, StageChanged)
    assert (fact.stage, fact.previous_stage) == (MODEL_STAGE_PRODUCTION, MODEL_STAGE_STAGING)
    assert refusal(KNOWN, stage(99)).target == refusal(KNOWN, stage(0)).target == "stage"


def test_what_is_said_changes_and_what_is_not_asked_for_stays() -> None:
    request = update(tags={"b": "3", "c": "4"}, remove_tags=["a", "never"], properties={"q": "2"}, requirements=Requirements(cpus=2))

    fact = decided(KNOWN, request)
    after = changes.evolve(KNOWN, fact).version

    assert isinstance(fact, ModelVersionUpdated)
    assert after is not None
    assert (dict(after.tags), dict(after.properties), after.description) == ({"b": "3", "c": "4"}, {"p": "1", "q": "2"}, "old")
    assert (after.requirements.cpus, after.updated_at.ToDatetime(UTC)) == (2, AT)
    assert (after.digest, after.artifacts) == (VERSION.digest, FILES)
    assert VERSION.description == "old" and dict(VERSION.tags) == {"a": "1", "b": "2"}


def test_an_empty_description_is_one() -> None:
    after = changes.evolve(KNOWN, decided(KNOWN, update(description="")))

    assert after.version is not None and after.version.description == ""


def test_the_dataset_named_last_for_a_purpose_comes_last() -> None:
    first, second = (DatasetRef(name=name, version=1, purpose="sample_input") for name in "ab")
    state = replace(KNOWN, version=ModelVersion(model="mnist", version=2, lineage=Lineage(datasets=[first, second])))

    fact = decided(state, update(datasets=[first]))

    assert list(fact.datasets) == [second, first]


def test_other_files_are_refused_with_both_digests() -> None:
    failure = refusal(KNOWN, update(digest="e" * 64, tags={"x": "y"}))

    assert failure.code == "ModelImmutable"
    assert "d" * 64 in failure.message and "e" * 64 in failure.message
    assert isinstance(decided(KNOWN, update(digest="d" * 64)), ModelVersionUpdated)


def test_a_property_never_changes_and_the_same_value_is_no_change() -> None:
    failure = refusal(KNOWN, update(properties={"p": "2"}))

    assert (failure.code, failure.target) == ("ModelImmutable", "p")
    assert isinstance(decided(KNOWN, update(properties={"p": "1"})), ModelVersionUpdated)


@pytest.mark.parametrize(
    ("request_", "target"),
    [
        (update(description="x" * 3001), "description"),
        (update(requirements=Requirements(cpus=-1)), "requirements"),
        (update(requirements=Requirements(cpus=float("nan"))), "requirements"),
        (update(digest="short"), "digest"),
        (update(datasets=[DatasetRef(name="", version=1)]), "datasets"),
        (update(tags={f"t{number}": "" for number in range(49)}), "tags"),
        (update(properties={f"p{number}": "" for number in range(50)}), "properties"),
        (update(tags={"big": "x" * 1_000_001}), "tags"),
        (UpdateModelVersion(submission_id="s1", model="mnist"), "version"),
    ],
)
def test_an_update_that_is_wrong_in_itself_or_grows_too_large_is_refused(request_: Request, target: str) -> None:
    failure = refusal(KNOWN, request_)

    assert (failure.code, failure.target) == ("UserError", target)


@pytest.mark.parametrize("request_", [alias(), stage(), update(), delete()])
@pytest.mark.parametrize(
    ("state", "said"),
    [(State(), "no model 'mnist'"), (State(latest=1), "is 1"), (State(latest=3, version=deleted()), "was deleted")],
)
def test_a_version_that_is_not_there_is_told(state: State, said: str, request_: Request) -> None:
    failure = refusal(state, request_)

    assert failure.code == "ModelNotFound" and said in failure.message


def test_a_deletion_begins_and_ends_in_two_facts() -> None:
    begun = decided(KNOWN, delete())
    leaving = changes.evolve(KNOWN, begun)

    (ended,) = changes.conclude(leaving, LEAVING, [], AT)
    after = changes.evolve(leaving, ended, "e1")

    assert isinstance(begun, ModelVersionLeaving) and leaving.leaving == "s1" and leaving.answer is None
    assert isinstance(ended, ModelVersionDeleted) and ended.digest == "d" * 64
    assert not after.is_there and after.leaving == "" and after.version is not None
    assert refusal(replace(after, answer=None), delete()).code == "ModelNotFound"


def test_a_version_in_use_stays_and_may_be_deleted_later() -> None:
    leaving = changes.evolve(KNOWN, decided(KNOWN, delete()))

    (fact,) = changes.conclude(leaving, LEAVING, ["endpoint 'mnist-svc' has it (deployment 4)"], AT)
    after = changes.evolve(leaving, fact)

    assert isinstance(fact, ModelChangeRejected)
    assert fact.failure.code == "ModelInUse" and "endpoint 'mnist-svc' has it (deployment 4)" in fact.failure.message
    assert after.is_there and after.leaving == ""
    assert isinstance(decided(replace(after, answer=None), delete()), ModelVersionLeaving)


def test_an_alias_keeps_its_version_unless_it_is_to_go_with_it() -> None:
    pointed = replace(KNOWN, aliases={"champion": 2, "old": 1})

    failure = refusal(pointed, delete())
    begun = decided(pointed, delete(with_aliases=True))
    leaving = changes.evolve(pointed, begun)
    (ended,) = changes.conclude(leaving, replace(LEAVING, with_aliases=True), [], AT)

    assert failure.code == "ModelInUse" and "mnist@champion points at mnist:2" in failure.message
    assert isinstance(ended, ModelVersionDeleted) and list(ended.aliases) == ["champion"]
    assert changes.evolve(leaving, ended).aliases == {"old": 1}


def test_an_alias_that_came_to_a_version_while_it_was_leaving_keeps_it() -> None:
    leaving = replace(changes.evolve(KNOWN, decided(KNOWN, delete())), aliases={"champion": 2})

    (fact,) = changes.conclude(leaving, LEAVING, [], AT)

    assert isinstance(fact, ModelChangeRejected) and fact.failure.code == "ModelInUse"


def test_while_a_version_leaves_no_alias_comes_to_it_and_nobody_else_deletes_it() -> None:
    leaving = replace(KNOWN, leaving="s0")

    assert refusal(leaving, alias()).code == refusal(leaving, delete()).code == "ModelLeaving"
    assert isinstance(decided(leaving, stage()), StageChanged)


def test_the_end_of_a_deletion_that_is_not_under_way_leads_to_nothing() -> None:
    assert changes.conclude(KNOWN, LEAVING, [], AT) == []


@pytest.mark.parametrize("request_", [alias(), stage(), update(), delete()])
def test_a_submission_that_is_known_is_not_decided_again(request_: Request) -> None:
    answered = changes.evolve(KNOWN, decided(KNOWN, stage()))

    assert changes.decide(answered, request_, AT) == changes.decide(replace(KNOWN, is_pending=True), request_, AT) == []
    assert changes.evolve(answered, decided(KNOWN, alias())) is answered
