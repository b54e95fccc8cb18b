import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from services.chassis import codec
from services.chassis.records import NewRecord
from services.dataset.domain import Asked
from services.dataset.handlers import TOPIC, DatasetHandler
from services.dataset.ports import Progress
from services.dataset.probing import Probing
from services.dataset.shelf import ANSWER, LATEST, PROBE, UNREGISTERED, VERSION, Shelf
from services.dataset.shelf import versions as versions_in
from tests.unit.on_memory import OnMemory
from trainyard import _steps
from trainyard._objects import MemoryObjects
from trainyard._sources import mounted_path
from trainyard.dataset.v1.dataset_pb2 import (
    Dataset,
    DatasetMaterialized,
    DatasetRejected,
    DatasetUnregistered,
    DatasetVersionRegistered,
    RegisterDataset,
    SourceFile,
    Step,
    UnregisterDataset,
)
from trainyard.event.v1.dead_letter_pb2 import DeadLetter


@pytest.fixture
def service() -> Iterator[OnMemory]:
    made = OnMemory("dataset", DatasetHandler, [TOPIC], [ANSWER, LATEST, VERSION, PROBE, UNREGISTERED])
    yield made
    made.close()


def a_request(submission_id: str = "s1", name: str = "mnist", **fields: Any) -> RegisterDataset:
    return RegisterDataset(submission_id=submission_id, name=name, urls=["http://h/a"], **fields)


class OneFile:
    """Sources with the same byte under every URL."""

    async def read(self, urls: Sequence[str], _: Progress) -> list[SourceFile]:
        return [SourceFile(url=url, path=mounted_path(url), size_bytes=1, sha256="0" * 64) for url in urls]


def answer(service: OnMemory, submission_id: str = "s1") -> None:
    """As the worker does."""
    pending = {codec.loads(it, Asked).request.submission_id: it for it in service.pending(PROBE)}
    probing = Probing(OneFile(), MemoryObjects(), versions_in(service.store), service.now)
    service.command(asyncio.run(probing(pending[submission_id])))
    service.flush()


def dead_letters(service: OnMemory) -> list[DeadLetter]:
    return [event.message for event in service.events("trainyard.deadletters") if isinstance(event.message, DeadLetter)]


def test_a_version_is_answered_by_a_fact_that_names_its_cause(service: OnMemory) -> None:
    asked = service.publish(TOPIC, "mnist", a_request(tags={"kind": "images"}))

    answer(service)

    fact = service.events(TOPIC)[-1]
    assert isinstance(fact.message, DatasetVersionRegistered)
    assert (fact.key, fact.causation_id, fact.correlation_id) == ("mnist", asked, "mnist")
    with service.store.reading() as documents:
        shelf = Shelf(documents)
        shown = shelf.version("mnist", 1)
        assert isinstance(shown, Dataset)
        assert (shown.name, shown.version, dict(shown.tags), shown.files[0].path) == ("mnist", 1, {"kind": "images"}, "http/h/a")
        assert [it.name for it in shelf.latest_of_each()] == ["mnist"]


def test_a_repeat_under_another_event_id_is_pending_once_and_answered_once(service: OnMemory) -> None:
    first = service.publish(TOPIC, "mnist", a_request())
    service.publish(TOPIC, "mnist", a_request())
    assert len(service.pending(PROBE)) == 1

    answer(service)
    service.publish(TOPIC, "mnist", a_request())
    service.flush()

    with service.store.reading() as documents:
        found = Shelf(documents).answer("s1")
    assert found is not None
    assert (found.version, found.event_id) == (1, first)
    assert [type(event.message) for event in service.events(TOPIC)].count(DatasetVersionRegistered) == 1
    assert service.pending(PROBE) == []


def test_a_refusal_at_once_leaves_nothing_for_the_worker(service: OnMemory) -> None:
    service.publish(TOPIC, "mnist", a_request(description="d" * 4000))
    service.flush()

    fact = service.events(TOPIC)[-1].message
    assert isinstance(fact, DatasetRejected)
    assert fact.failure.target == "description"
    assert service.pending(PROBE) == []
    assert dead_letters(service) == []


@pytest.mark.parametrize(
    ("key", "request_", "why"),
    [
        ("mnist", a_request(submission_id=""), "submission_id"),
        ("m" * 300, a_request(name="m" * 300), "at most 255"),
        ("other", a_request(), "must be the dataset's name"),
    ],
)
def test_what_nobody_could_answer_is_a_dead_letter_and_no_work(service: OnMemory, key: str, request_: RegisterDataset, why: str) -> None:
    service.publish(TOPIC, key, request_)
    service.flush()

    assert [why in letter.error for letter in dead_letters(service)] == [True]
    assert service.documents() == {}
    assert service.replayed() == {}


def test_garbled_bytes_are_a_dead_letter_and_the_next_request_is_taken(service: OnMemory) -> None:
    headers = (("ce_id", b"1"), ("ce_type", b"trainyard.dataset.v1.RegisterDataset"))
    service.append(NewRecord(TOPIC, b"mnist", b"\xff\xff\xff", headers))

    service.publish(TOPIC, "mnist", a_request())
    answer(service)

    assert len(dead_letters(service)) == 1
    assert isinstance(service.events(TOPIC)[-1].message, DatasetVersionRegistered)


def test_what_an_agent_reports_changes_nothing(service: OnMemory) -> None:
    service.publish(TOPIC, "mnist", DatasetMaterialized(name="mnist", version=1, agent_id="agent-0"))

    assert service.documents() == {}
    assert dead_letters(service) == []


def test_a_new_store_takes_up_what_the_log_leaves_open(service: OnMemory) -> None:
    service.publish(TOPIC, "mnist", a_request("s1"))
    answer(service, "s1")
    service.publish(TOPIC, "mnist", a_request("s2", create_new_version=True))

    replayed = service.replayed()

    assert replayed == service.documents()
    assert (PROBE, "s2") in replayed


# -- transformations, datasets of datasets, names given up


def versions(service: OnMemory) -> list[DatasetVersionRegistered]:
    return [event.message for event in service.events(TOPIC) if isinstance(event.message, DatasetVersionRegistered)]


def test_steps_are_kept_with_the_version_and_files_are_listed_before_them(service: OnMemory) -> None:
    service.publish(TOPIC, "mnist", a_request(steps=[_steps.take(1)]))

    answer(service)

    (fact,) = versions(service)
    assert (list(fact.steps), len(fact.files)) == ([_steps.take(1)], 1)
    with service.store.reading() as documents:
        shown = Shelf(documents).version("mnist", 1)
        assert shown is not None and list(shown.steps) == [_steps.take(1)]


def test_a_version_with_no_file_left_is_refused(service: OnMemory) -> None:
    service.publish(TOPIC, "mnist", a_request(steps=[_steps.skip(1)]))

    answer(service)

    refused = service.events(TOPIC)[-1].message
    assert isinstance(refused, DatasetRejected)
    assert (refused.failure.code, refused.failure.target) == ("UserError", "steps")
    assert "no file left after skip(1)" in refused.failure.message


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ({"steps": [Step(split=Step.Split(percentage=2))]}, "steps"),
        ({"steps": [_steps.take(1)] * 101}, "steps"),
        ({"based_on": "other"}, "urls"),
    ],
)
def test_what_cannot_be_applied_is_refused_at_once(service: OnMemory, fields: dict[str, Any], target: str) -> None:
    service.publish(TOPIC, "mnist", a_request(**fields))
    service.flush()

    refused = service.events(TOPIC)[-1].message

    assert isinstance(refused, DatasetRejected) and refused.failure.target == target
    assert service.pending(PROBE) == []


def a_request_based_on(version: int) -> RegisterDataset:
    return RegisterDataset(submission_id="s2", name="part", based_on="mnist", based_on_version=version, steps=[_steps.take(1)])


def test_a_dataset_of_another_has_its_files_as_they_were_and_its_steps_first(service: OnMemory) -> None:
    service.publish(TOPIC, "mnist", a_request(steps=[_steps.skip(0)]))
    answer(service)

    service.publish(TOPIC, "part", a_request_based_on(1))
    answer(service, "s2")

    whole, part = versions(service)
    assert list(part.files) == list(whole.files)
    assert list(part.steps) == [_steps.skip(0), _steps.take(1)]
    assert (part.based_on, part.based_on_version, whole.based_on) == ("mnist", 1, "")


def test_a_dataset_of_one_that_is_not_there_is_refused(service: OnMemory) -> None:
    service.publish(TOPIC, "part", a_request_based_on(1))

    answer(service, "s2")

    refused = service.events(TOPIC)[-1].message
    assert isinstance(refused, DatasetRejected) and refused.failure.target == "based_on"


def test_a_name_that_is_given_up_leaves_the_lists_and_is_free_and_its_count_goes_on(service: OnMemory) -> None:
    service.publish(TOPIC, "mnist", a_request())
    answer(service)

    service.publish(TOPIC, "mnist", UnregisterDataset(submission_id="u1", name="mnist"))
    service.publish(TOPIC, "mnist", UnregisterDataset(submission_id="u1", name="mnist"))
    service.publish(TOPIC, "mnist", UnregisterDataset(submission_id="u2", name="mnist"))
    service.flush()
    facts = (DatasetUnregistered, DatasetRejected)
    told = [type(event.message) for event in service.events(TOPIC) if isinstance(event.message, facts)]
    with service.store.reading() as documents:
        names, kept = Shelf(documents).names(), Shelf(documents).version("mnist", 1)
    service.publish(TOPIC, "mnist", a_request("s3"))
    answer(service, "s3")

    assert told == [DatasetUnregistered, DatasetRejected]
    assert names == [] and kept is not None
    assert [fact.version for fact in versions(service)] == [1, 2]
    with service.store.reading() as documents:
        assert Shelf(documents).names() == ["mnist"]
