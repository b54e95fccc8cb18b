from datetime import UTC, datetime
from typing import Any

import pytest

from services.registry.domain import registration
from services.registry.domain.registration import Answer, Asked, Known
from services.registry.domain.runs import Run, evolve
from tests.unit.registry.builders import RUN, a_request, artifacts, completed, failed, queued
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.job.v1 import job_pb2 as job
from trainyard.model.v1.model_pb2 import ModelVersionRegistered, ModelVersionRejected, Requirements

AT = datetime(2026, 1, 1, tzinfo=UTC)


def asked(**fields: Any) -> Asked:
    return Asked(a_request(**fields), "e1", "tf-dnn-mnist")


def run_after(*events: Any) -> Run:
    run = evolve(None, queued())
    for event in events:
        run = evolve(run, event)
    assert run is not None
    return run


ENDED = run_after(completed("outputs/model/saved_model.pb", "outputs/model/variables/v", "outputs/a.txt"))


def refusal(run: Run | None, missing: Failure | None = None, **fields: Any) -> Failure:
    (fact,) = registration.conclude(Known(0, asked(**fields), None), run, missing, AT)
    assert isinstance(fact, ModelVersionRejected)
    assert (fact.submission_id, fact.model) == ("s1", "tf-dnn-mnist")
    return fact.failure


@pytest.mark.parametrize("model", ["", ".", "..", "-a", "a..b", "a b", "a/b", "a:1", "a" * 256, "ä", "a\n"])
def test_a_model_name_outside_the_grammar_is_refused_at_once(model: str) -> None:
    (fact,) = registration.decide(Known(), asked(model=model))

    assert isinstance(fact, ModelVersionRejected)
    assert (fact.failure.code, fact.failure.target) == ("UserError", "model")


@pytest.mark.parametrize("model", ["a", "9", "tf-dnn_mnist.v2", "a" * 255])
def test_a_model_name_of_the_grammar_waits_for_its_run(model: str) -> None:
    assert registration.decide(Known(), asked(model=model)) == []
    assert registration.evolve(Known(), asked(model=model)).pending == asked(model=model)


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ({"description": "d" * 3001}, "description"),
        ({"tags": {str(n): "" for n in range(51)}}, "tags"),
        ({"properties": {str(n): "" for n in range(51)}}, "properties"),
        ({"requirements": Requirements(cpus=-1)}, "requirements"),
        ({"requirements": Requirements(cpus=float("nan"))}, "requirements"),
        ({"run_id": ""}, "run_id"),
        ({"path": ""}, "path"),
        ({"path": "/outputs"}, "path"),
        ({"path": "outputs/../../secret"}, "path"),
    ],
)
def test_a_request_that_is_wrong_in_itself_is_refused_at_once_and_never_pending(fields: dict[str, Any], target: str) -> None:
    (fact,) = registration.decide(Known(), asked(**fields))

    assert isinstance(fact, ModelVersionRejected)
    assert (fact.failure.code, fact.failure.target) == ("UserError", target)
    assert registration.evolve(Known(), asked(**fields)) == Known()


def test_a_request_at_every_bound_is_taken() -> None:
    fifty = {str(number): "" for number in range(50)}

    assert registration.decide(Known(), asked(description="d" * 3000, tags=fifty, properties=fifty)) == []


def test_a_folder_of_an_ended_run_becomes_the_next_version() -> None:
    fields = {"framework": "TensorFlow", "framework_version": "2.15", "description": "d", "tags": {"a": "b"}, "properties": {"c": "d"}}
    known = Known(4, asked(**fields, requirements=Requirements(cpus=0.5)), None)

    (fact,) = registration.conclude(known, ENDED, None, AT)

    assert isinstance(fact, ModelVersionRegistered)
    assert (fact.submission_id, fact.model, fact.version) == ("s1", "tf-dnn-mnist", 5)
    assert [file.path for file in fact.artifacts.files] == ["model/saved_model.pb", "model/variables/v"]
    assert len(fact.digest) == 64
    assert (fact.lineage.run_id, fact.lineage.experiment, fact.lineage.epoch) == (RUN, "tf-mnist", 1)
    assert (fact.framework, fact.framework_version, fact.description) == ("TensorFlow", "2.15", "d")
    assert (dict(fact.tags), dict(fact.properties), fact.requirements.cpus) == ({"a": "b"}, {"c": "d"}, 0.5)
    assert fact.registered_at.ToDatetime(UTC) == AT


def test_a_failed_runs_files_may_be_registered_too() -> None:
    (fact,) = registration.conclude(Known(0, asked(path="outputs/a.txt"), None), run_after(failed("outputs/a.txt")), None, AT)

    assert isinstance(fact, ModelVersionRegistered)
    assert [file.path for file in fact.artifacts.files] == ["a.txt"]


def test_an_unknown_run_is_refused_by_its_id() -> None:
    failure = refusal(None, run_id="tf-mnist_2")

    assert (failure.code, failure.target) == ("RunNotFound", "tf-mnist_2")


def test_a_run_that_goes_on_is_refused_with_its_status() -> None:
    failure = refusal(run_after(job.RunStarted(run_id=RUN, epoch=1)))

    assert (failure.code, failure.target) == ("RunNotEnded", RUN)
    assert "is Running" in failure.message


def test_a_path_that_the_run_does_not_have_is_refused_with_what_it_has() -> None:
    failure = refusal(ENDED, path="outputs/modle")

    assert (failure.code, failure.target) == ("ModelPathNotFound", "outputs/modle")
    assert "outputs/model/saved_model.pb" in failure.message


def test_what_the_object_store_lacks_registers_nothing() -> None:
    missing = Failure(code="ArtifactMissing", message="gone", target="key")

    assert refusal(ENDED, missing) == missing
    assert refusal(None, missing).code == "RunNotFound"


def test_more_files_than_one_event_can_list_are_refused() -> None:
    many = job.RunCompleted(run_id=RUN, epoch=1, outputs=artifacts(*(f"outputs/model/{'folder/' * 10}{number}" for number in range(4000))))

    failure = refusal(run_after(many))

    assert (failure.code, failure.target) == ("UserError", "path")
    assert "fewer files" in failure.message


def test_a_repeated_submission_leads_to_nothing_new() -> None:
    pending, answered = Known(0, asked(), None), Known(1, None, Answer("tf-dnn-mnist", 1, "e1"))

    assert registration.decide(pending, asked()) == []
    assert registration.decide(answered, asked(path="/")) == []
    assert registration.evolve(answered, asked()) is answered
    assert registration.conclude(answered, ENDED, None, AT) == []


def test_only_the_next_version_counts_and_only_a_submissions_first_answer() -> None:
    first = ModelVersionRegistered(submission_id="s1", model="tf-dnn-mnist", version=1)
    known = registration.evolve(Known(0, asked(), None), first, "e1")

    assert known == Known(1, None, Answer("tf-dnn-mnist", 1, "e1"))
    assert registration.evolve(known, ModelVersionRejected(submission_id="s1"), "e1") is known
    for version in (0, 1, 3):
        other = ModelVersionRegistered(submission_id="s2", model="tf-dnn-mnist", version=version)
        assert registration.evolve(Known(1, None, None), other, "e2") == Known(1, None, None)


@pytest.mark.parametrize(("fields", "why"), [({"submission_id": ""}, "submission_id"), ({"model": "m" * 256}, "at most 255")])
def test_a_request_that_no_answer_could_name_is_unanswerable(fields: dict[str, Any], why: str) -> None:
    assert why in registration.unanswerable(a_request(**fields))
    assert registration.unanswerable(a_request()) == ""


def test_a_version_may_be_named_if_it_is_the_next() -> None:
    (fact,) = registration.conclude(Known(4, asked(version=5), None), ENDED, None, AT)

    assert isinstance(fact, ModelVersionRegistered) and fact.version == 5
    (hole,) = registration.conclude(Known(4, asked(version=7), None), ENDED, None, AT)
    assert isinstance(hole, ModelVersionRejected)
    assert hole.failure.code == "UserError" and "is 5, without holes" in hole.failure.message


def test_a_version_that_was_given_never_gets_other_files_and_both_digests_are_told() -> None:
    (other,) = registration.conclude(Known(4, asked(version=2), None, taken="d" * 64), ENDED, None, AT)
    assert isinstance(other, ModelVersionRejected)
    (digest,) = {word.strip(",.") for word in other.failure.message.split() if len(word.strip(",.")) == 64} - {"d" * 64}

    (same,) = registration.conclude(Known(4, asked(version=2), None, taken=digest), ENDED, None, AT)

    assert other.failure.code == "ModelImmutable" and "d" * 64 in other.failure.message
    assert isinstance(same, ModelVersionRejected) and "need not be registered again" in same.failure.message
