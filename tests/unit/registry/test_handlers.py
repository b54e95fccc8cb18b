from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.message import Message

from services.chassis import codec
from services.chassis.handler import Command
from services.chassis.records import NewRecord
from services.registry.domain.registration import Asked
from services.registry.handlers import JOBS, TOPIC, Checked, RegistryHandler
from services.registry.shelf import ANSWER, LATEST, REGISTER, RUN, VERSION, Shelf
from tests.unit.on_memory import OnMemory
from tests.unit.registry import builders
from tests.unit.registry.builders import a_request, completed, queued
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet, Attempt
from trainyard.event.v1.dead_letter_pb2 import DeadLetter
from trainyard.job.v1 import job_pb2 as job
from trainyard.model.v1.model_pb2 import (
    DeleteModelVersion,
    ModelVersionRegistered,
    ModelVersionRejected,
    SetAlias,
    UpdateModelVersion,
)

MODEL = "tf-dnn-mnist"


@pytest.fixture
def service() -> Iterator[OnMemory]:
    made = OnMemory("registry", RegistryHandler, [TOPIC, JOBS], [ANSWER, LATEST, REGISTER, RUN, VERSION])
    yield made
    made.close()


def run_ends(service: OnMemory, *events: Message) -> None:
    for event in events or (queued(), completed("outputs/model/saved_model.pb")):
        service.publish(JOBS, builders.RUN, event)


def answer(service: OnMemory) -> None:
    """As the worker does, for all that is pending."""
    for content in service.pending(REGISTER):
        asked = codec.loads(content, Asked)
        with service.store.reading() as documents:
            run = Shelf(documents).run(asked.request.run_id)
        checked = Checked(asked.request.submission_id, run, None, service.now())
        service.command(Command(checked, asked.event_id, asked.correlation_id))
    service.flush()


def last(service: OnMemory) -> Any:
    return service.events(TOPIC)[-1]


def test_a_version_is_answered_by_a_fact_that_names_its_cause_and_keeps_its_files(service: OnMemory) -> None:
    run_ends(service)
    asked = service.publish(TOPIC, MODEL, a_request())

    answer(service)

    assert isinstance(last(service).message, ModelVersionRegistered)
    assert (last(service).key, last(service).causation_id) == (MODEL, asked)
    with service.store.reading() as documents:
        (version,) = Shelf(documents).versions(MODEL)
    assert (version.model, version.version, version.lineage.run_id) == (MODEL, 1, builders.RUN)
    assert [file.path for file in version.artifacts.files] == ["model/saved_model.pb"]


def test_a_request_that_comes_before_its_run_in_this_service_waits_for_the_worker(service: OnMemory) -> None:
    service.publish(TOPIC, MODEL, a_request())
    run_ends(service)

    answer(service)

    assert isinstance(last(service).message, ModelVersionRegistered)


@pytest.mark.parametrize(
    ("happened", "why"),
    [
        ([], ""),
        ([job.RunRequeued(run_id=builders.RUN, lost_epoch=1)], "the run goes on with another"),
        ([job.RunRequeued(run_id=builders.RUN, lost_epoch=1), job.RunPreparing(run_id=builders.RUN, epoch=2)], "goes on with another"),
        ([completed("outputs/a")], "the run has ended"),
    ],
)
def test_a_script_registers_while_its_attempt_counts_whatever_the_worker_saw(service: OnMemory, happened: list[Any], why: str) -> None:
    run_ends(service, queued(), job.RunPreparing(run_id=builders.RUN, epoch=1))
    files = ArtifactSet(files=[Artifact(path="w", sha256="a" * 64, object_key=f"uploads/{builders.RUN}/w")])
    service.publish(TOPIC, MODEL, a_request(path="", files=files, by=Attempt(run_id=builders.RUN, epoch=1)))
    (content,) = service.pending(REGISTER)
    asked = codec.loads(content, Asked)
    with service.store.reading() as documents:
        seen = Shelf(documents).run(builders.RUN)
    for event in happened:
        service.publish(JOBS, builders.RUN, event)

    service.command(Command(Checked(asked.request.submission_id, seen, None, service.now()), asked.event_id, asked.correlation_id))
    service.flush()

    if why:
        assert isinstance(last(service).message, ModelVersionRejected)
        assert last(service).message.failure.code == "AttemptIsOver" and why in last(service).message.failure.message
    else:
        assert isinstance(last(service).message, ModelVersionRegistered)


def test_an_attempt_of_a_run_that_nobody_knows_registers_nothing(service: OnMemory) -> None:
    run_ends(service)
    service.publish(TOPIC, MODEL, a_request(by=Attempt(run_id="other", epoch=1)))

    answer(service)

    assert last(service).message.failure.code == "RunNotFound"


def test_repeats_lead_to_one_version_whoever_publishes_them(service: OnMemory) -> None:
    run_ends(service)
    first = service.publish(TOPIC, MODEL, a_request())
    service.publish(TOPIC, MODEL, a_request())
    answer(service)
    service.publish(TOPIC, MODEL, a_request())
    answer(service)

    with service.store.reading() as documents:
        found = Shelf(documents).answer("s1")
    assert found is not None
    assert (found.version, found.event_id) == (1, first)
    assert [type(event.message) for event in service.events(TOPIC)].count(ModelVersionRegistered) == 1


def test_two_that_race_get_two_versions_in_a_row(service: OnMemory) -> None:
    run_ends(service)
    service.publish(TOPIC, MODEL, a_request("s1"))
    service.publish(TOPIC, MODEL, a_request("s2"))

    answer(service)

    with service.store.reading() as documents:
        assert [it.version for it in Shelf(documents).versions(MODEL)] == [2, 1]


def test_a_late_report_after_the_registration_changes_no_version(service: OnMemory) -> None:
    run_ends(service, queued(), completed("outputs/model/new", epoch=2))
    service.publish(TOPIC, MODEL, a_request())
    answer(service)
    before = service.documents()

    run_ends(service, completed("outputs/model/old", epoch=1), builders.failed("outputs/model/newer", epoch=3))

    assert service.documents() == before


def test_the_latest_of_each_model_is_listed_newest_first(service: OnMemory) -> None:
    run_ends(service)
    for submission, model in [("s1", "b"), ("s2", "a"), ("s3", "b"), ("s4", "c")]:
        service.publish(TOPIC, model, a_request(submission, model))
        answer(service)

    with service.store.reading() as documents:
        assert [(it.model, it.version) for it in Shelf(documents).latest_of_each()] == [("c", 1), ("b", 2), ("a", 1)]


@pytest.mark.parametrize(
    ("key", "request_", "why"),
    [
        (MODEL, a_request(submission_id=""), "submission_id"),
        ("m" * 300, a_request(model="m" * 300), "at most 255"),
        ("other", a_request(), "must be the model's name"),
        (MODEL, SetAlias(model=MODEL, alias="champion", version=1), "submission_id"),
        ("other", DeleteModelVersion(submission_id="s1", model=MODEL, version=1), "must be the model's name"),
        ("m" * 300, UpdateModelVersion(submission_id="s1", model="m" * 300, version=1), "at most 255"),
    ],
)
def test_what_nobody_could_answer_is_a_dead_letter_and_no_work(service: OnMemory, key: str, request_: Message, why: str) -> None:
    service.publish(TOPIC, key, request_)
    service.flush()

    letters = [event.message for event in service.events("trainyard.deadletters")]
    assert [isinstance(letter, DeadLetter) and why in letter.error for letter in letters] == [True]
    assert service.documents() == service.replayed() == {}


def test_garbled_bytes_are_a_dead_letter_on_its_own_topic_only(service: OnMemory) -> None:
    service.append(NewRecord(TOPIC, b"m", b"\xff", (("ce_id", b"1"), ("ce_type", b"trainyard.model.v1.RegisterModelVersion"))))
    service.append(NewRecord(JOBS, b"r", b"\xff", (("ce_id", b"2"), ("ce_type", b"trainyard.job.v1.RunQueued"))))
    service.flush()

    (letter,) = service.events("trainyard.deadletters")
    assert isinstance(letter.message, DeadLetter)
    assert letter.message.topic == TOPIC


def test_a_new_store_takes_up_what_the_log_leaves_open(service: OnMemory) -> None:
    run_ends(service)
    service.publish(TOPIC, MODEL, a_request("s1", path="outputs/modle"))
    answer(service)
    assert isinstance(last(service).message, ModelVersionRejected)
    service.publish(TOPIC, MODEL, a_request("s2"))

    replayed = service.replayed()

    assert replayed == service.documents()
    assert (REGISTER, "s2") in replayed
