from datetime import UTC, datetime
from typing import Any

import pytest

from services.dataset import domain
from services.dataset.domain import Answer, Asked, Known
from trainyard import _steps
from trainyard._file_lists import MOST_ENTRIES_IN_LIST
from trainyard.dataset.v1.dataset_pb2 import Dataset, DatasetRejected, DatasetVersionRegistered, RegisterDataset, SourceFile
from trainyard.event.v1.artifact_pb2 import Failure

AT = datetime(2026, 1, 1, tzinfo=UTC)
URL = "http://data.example:8000/mnist/train.gz"


def a_request(**fields: Any) -> RegisterDataset:
    return RegisterDataset(**{"submission_id": "s1", "name": "mnist", "urls": [URL], **fields})


def asked(event_id: str = "e1", **fields: Any) -> Asked:
    return Asked(a_request(**fields), event_id, "mnist")


def a_file(url: str = URL) -> SourceFile:
    return SourceFile(url=url, path="http/data.example:8000/mnist/train.gz", size_bytes=7, etag='"a"', sha256="0" * 64)


def found(**fields: Any) -> Dataset:
    return Dataset(files=[a_file()], **fields)


def refusal(**fields: Any) -> Failure:
    (fact,) = domain.decide(Known(), asked(**fields))
    assert isinstance(fact, DatasetRejected)
    assert fact.submission_id == "s1"
    return fact.failure


def test_a_sound_request_waits_for_its_sources() -> None:
    assert domain.decide(Known(), asked()) == []
    assert domain.evolve(Known(), asked()) == Known(0, asked(), None)


@pytest.mark.parametrize("name", ["", "-mnist", " mnist", "mnist/train", "mnist\n", "münchen", "a:1"])
def test_a_name_outside_the_grammar_is_refused(name: str) -> None:
    failure = refusal(name=name)

    assert (failure.code, failure.target) == ("UserError", "name")
    assert "letter or digit first" in failure.message


@pytest.mark.parametrize("name", ["m", "mnist dataset v1.0_a-b", "9", "a" * 255])
def test_a_name_of_the_grammar_is_taken(name: str) -> None:
    assert domain.decide(Known(), asked(name=name)) == []


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ({"description": "d" * 3001}, "description"),
        ({"tags": {str(n): "" for n in range(51)}}, "tags"),
        ({"urls": []}, "urls"),
        ({"urls": [f"http://h/{n}" for n in range(10_001)]}, "urls"),
    ],
)
def test_a_request_beyond_a_bound_is_refused(fields: dict[str, object], target: str) -> None:
    failure = refusal(**fields)

    assert (failure.code, failure.target) == ("UserError", target)


def test_a_request_at_every_bound_is_taken() -> None:
    assert domain.decide(Known(), asked(description="d" * 3000, tags={str(n): "" for n in range(50)})) == []


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/a",
        "file:///etc/passwd",
        "h/a",
        "http:///a",
        "http://h",
        "http://h/",
        "http://h/folder/",
        "http://h/a b",
        "http://h/a\nb",
        "http://h/a%00b",
        "http://h/../a",
        "http://h/%2e%2e/a",
        "http://h/%2E%2E/a",
        "http://h/%252e%252e/a",
        "http://h/..%2fa",
        "http://h/a%5cb",
        "http://h/a\\b",
        "http://h/a/./b",
        "http://../a",
        "http://h:port/a",
        "http://h:99999/a",
        "http://[::1/a",
        "http://h/" + "a" * 1100,
    ],
)
def test_a_url_that_is_no_file_below_the_mounted_folder_is_refused(url: str) -> None:
    failure = refusal(urls=[URL, url])

    assert failure.code == "UserError"
    assert failure.target == url[:1000]
    assert "What to do" in failure.message


@pytest.mark.parametrize("url", ["http://user:secret@h/a", "http://user:secret@h:port/a", "ftp://user:secret@h/a", "http:user:secret@h/a"])
def test_a_url_with_credentials_is_refused_without_repeating_them(url: str) -> None:
    failure = refusal(urls=[url])

    assert failure.code == "UserError"
    assert "secret" not in failure.message + failure.target


@pytest.mark.parametrize(
    "urls",
    [
        ["http://h/a", "http://h/a"],
        ["http://h/a?part=1", "http://h/a?part=2"],
        ["http://h/a%62", "http://h/ab"],
        ["http://h/a", "http://h/a/b"],
        ["http://h/a/b/c", "http://h/a"],
    ],
)
def test_urls_that_cannot_lie_beside_each_other_are_refused(urls: list[str]) -> None:
    failure = refusal(urls=urls)

    assert failure.code == "UserError"
    assert failure.target in urls
    assert "path of its own" in failure.message


def a_list(**fields: Any) -> dict[str, Any]:
    return {"urls": [], "manifest_key": f"datastores/manifests/{'a' * 64}", "manifest_sha256": "a" * 64, **fields}


def test_a_request_whose_urls_lie_in_the_store_waits_for_its_sources() -> None:
    assert domain.decide(Known(), asked(**a_list(count=MOST_ENTRIES_IN_LIST))) == []


@pytest.mark.parametrize(
    ("fields", "target", "why"),
    [
        (a_list(urls=[URL]), "urls", "has urls and manifest_key"),
        (a_list(based_on="other"), "manifest_key", "has manifest_key and based_on"),
        (a_list(manifest_key="runs/r/1/secret"), "manifest_key", "is not 'datastores/manifests/"),
        (a_list(manifest_sha256="A" * 64), "manifest_key", "is not 'datastores/manifests/"),
        (a_list(manifest_key="datastores/manifests/../x", manifest_sha256="../x"), "manifest_key", "is not 'datastores/manifests/"),
        (a_list(count=MOST_ENTRIES_IN_LIST + 1), "count", "100000 at most"),
    ],
)
def test_a_list_that_no_request_may_name_is_refused_before_anything_is_read(fields: dict[str, Any], target: str, why: str) -> None:
    failure = refusal(**fields)

    assert (failure.code, failure.target) == ("UserError", target)
    assert why in failure.message


def test_a_version_of_many_files_names_their_list() -> None:
    named = Dataset(manifest_key=f"datastores/manifests/{'a' * 64}", manifest_sha256="a" * 64, count=50_000, total_bytes=7)

    (fact,) = domain.conclude(Known(0, asked(), None), named, AT)

    assert isinstance(fact, DatasetVersionRegistered)
    assert (fact.manifest_key, fact.manifest_sha256) == (named.manifest_key, named.manifest_sha256)
    assert (len(fact.files), fact.count, fact.total_bytes) == (0, 50_000, 7)


def test_a_version_that_no_event_can_hold_is_refused() -> None:
    steps = [_steps.filter("x" * 20_000)] * 60

    (fact,) = domain.conclude(Known(0, asked(), None), found(steps=steps), AT)

    assert isinstance(fact, DatasetRejected)
    assert (fact.failure.code, fact.failure.target) == ("UserError", "tags")


@pytest.mark.parametrize("submission_id", ["", "s" * 129, "a\nb"])
def test_a_request_that_no_answer_could_name_is_unanswerable(submission_id: str) -> None:
    assert "submission_id" in domain.unanswerable(a_request(submission_id=submission_id))


def test_an_existing_name_is_refused_at_once_unless_a_new_version_is_asked_for() -> None:
    (fact,) = domain.decide(Known(latest=3), asked())

    assert isinstance(fact, DatasetRejected)
    assert (fact.failure.code, fact.failure.target) == ("AlreadyExists", "mnist")
    assert "latest version is 3" in fact.failure.message
    assert domain.decide(Known(latest=3), asked(create_new_version=True)) == []


def test_what_was_found_becomes_the_next_version() -> None:
    known = Known(2, asked(create_new_version=True, description="digits", tags={"kind": "images"}), None)

    (fact,) = domain.conclude(known, found(), AT)

    assert isinstance(fact, DatasetVersionRegistered)
    assert (fact.submission_id, fact.name, fact.version) == ("s1", "mnist", 3)
    assert (fact.description, dict(fact.tags), list(fact.files)) == ("digits", {"kind": "images"}, [a_file()])
    assert fact.registered_at.ToDatetime(UTC) == AT


def test_a_source_that_cannot_be_read_registers_nothing() -> None:
    failure = Failure(code="SourceUnreachable", message="404", target=URL)

    assert domain.conclude(Known(0, asked(), None), failure, AT) == [DatasetRejected(submission_id="s1", name="mnist", failure=failure)]


def test_of_two_requests_for_a_new_name_the_second_to_finish_finds_it_taken() -> None:
    (fact,) = domain.conclude(Known(1, asked(), None), found(), AT)

    assert isinstance(fact, DatasetRejected)
    assert fact.failure.code == "AlreadyExists"


def test_a_repeated_submission_leads_to_nothing_new() -> None:
    pending, answered = Known(0, asked("e1"), None), Known(1, None, Answer("mnist", 1, "e1"))

    assert domain.decide(pending, asked("e2")) == []
    assert domain.decide(Known(1, asked("e1"), None), asked("e1")) == []
    assert domain.decide(answered, asked("e2", name="-invalid")) == []
    assert domain.evolve(pending, asked("e2")) is pending
    assert domain.evolve(answered, asked("e2")) is answered
    assert domain.conclude(answered, found(), AT) == []


def test_only_the_next_version_counts_and_only_a_submissions_first_answer() -> None:
    first = DatasetVersionRegistered(submission_id="s1", name="mnist", version=1)
    known = domain.evolve(Known(0, asked(), None), first, "e1")

    assert known == Known(1, None, Answer("mnist", 1, "e1"))
    assert domain.evolve(known, DatasetRejected(submission_id="s1", name="mnist"), "e1") is known
    for version in (0, 1, 3):
        other = DatasetVersionRegistered(submission_id="s2", name="mnist", version=version)
        assert domain.evolve(Known(1, None, None), other, "e2") == Known(1, None, None)
