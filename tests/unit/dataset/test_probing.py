"""What the worker finds for a submission, and what of it travels by name."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from services.chassis import codec
from services.dataset.domain import Asked
from services.dataset.handlers import Probed
from services.dataset.ports import Progress, Unreachable
from services.dataset.probing import Probing
from trainyard import _file_lists, _steps
from trainyard._objects import MemoryObjects
from trainyard.dataset.v1.dataset_pb2 import Dataset, RegisterDataset, SourceFile
from trainyard.event.v1.artifact_pb2 import Failure

AT = datetime(2026, 1, 1, tzinfo=UTC)
URLS = ["http://h:80/a%20b", "https://h/c?d"]
MANY = [f"http://data.example/{'folder/' * 10}{number}" for number in range(5_000)]


def an_intent(**fields: Any) -> bytes:
    return codec.dumps(Asked(RegisterDataset(submission_id="s1", name="mnist", **fields), "e1", "c1"))


class Shelved:
    """Sources that hold one byte each, but for those that cannot be read."""

    def __init__(self, *unreachable: str, etag: str = "") -> None:
        self._unreachable = unreachable
        self._etag = etag

    async def read(self, urls: Sequence[str], progress: Progress) -> list[SourceFile]:
        for number, url in enumerate(urls, 1):
            if url in self._unreachable:
                raise Unreachable(url, "the connection was refused")
            progress(number, number)
        return [SourceFile(url=url, path=url.partition("//")[2], size_bytes=1, sha256="0" * 64, etag=self._etag) for url in urls]


def no_version(name: str, version: int) -> None:
    return None


async def found(intent: bytes, sources: Shelved | None = None, objects: MemoryObjects | None = None, base: Dataset | None = None) -> Any:
    probing = Probing(sources or Shelved(), objects or MemoryObjects(), lambda name, version: base, lambda: AT)
    return (await probing(intent)).payload.found


def in_the_store(objects: MemoryObjects, files: Sequence[SourceFile]) -> dict[str, Any]:
    """The fields of a message that name the list of these files."""
    return dict(zip(("manifest_key", "manifest_sha256", "count"), _file_lists.put(objects, files), strict=True))


def named(objects: MemoryObjects, *urls: str) -> dict[str, Any]:
    return in_the_store(objects, [SourceFile(url=url) for url in urls])


async def test_what_lies_at_the_sources_becomes_the_answer() -> None:
    command = await Probing(Shelved(), MemoryObjects(), no_version, lambda: AT)(an_intent(urls=URLS, steps=[_steps.take(1)]))

    assert (command.cause_id, command.correlation_id) == ("e1", "c1")
    probed = command.payload
    assert isinstance(probed, Probed)
    assert (probed.submission_id, probed.at) == ("s1", AT)
    assert isinstance(probed.found, Dataset)
    assert [(file.url, file.path) for file in probed.found.files] == [(url, url.partition("//")[2]) for url in URLS]
    assert list(probed.found.steps) == [_steps.take(1)]


async def test_a_source_that_cannot_be_read_is_told_by_its_url() -> None:
    failure = await found(an_intent(urls=URLS), Shelved(URLS[1]))

    assert isinstance(failure, Failure)
    assert (failure.code, failure.target) == ("SourceUnreachable", URLS[1])
    assert "the connection was refused" in failure.message


@pytest.mark.parametrize(("length", "kept"), [(1024, 1024), (1025, 0)])
async def test_an_etag_beyond_reason_is_not_registered(length: int, kept: int) -> None:
    whole = await found(an_intent(urls=URLS), Shelved(etag="x" * length))

    assert [len(file.etag) for file in whole.files] == [kept, kept]


async def test_files_that_are_too_many_for_an_event_are_listed_in_the_store() -> None:
    objects = MemoryObjects()

    whole = await found(an_intent(**named(objects, *MANY)), objects=objects)

    assert (len(whole.files), whole.count, whole.total_bytes) == (0, len(MANY), len(MANY))
    assert [file.url for file in _file_lists.of(objects, whole)] == MANY


async def test_a_version_that_is_based_on_a_long_one_names_the_same_list() -> None:
    objects = MemoryObjects()
    files = [SourceFile(url=url, path=url.partition("//")[2]) for url in MANY]
    base = Dataset(name="whole", version=1, steps=[_steps.skip(1)], total_bytes=9, **in_the_store(objects, files))

    part = await found(an_intent(based_on="whole", based_on_version=1, steps=[_steps.take(2)]), objects=objects, base=base)

    assert (part.manifest_key, part.count, part.total_bytes) == (base.manifest_key, len(MANY), 9)
    assert list(part.steps) == [_steps.skip(1), _steps.take(2)]


async def test_steps_that_leave_nothing_of_a_long_list_are_refused() -> None:
    objects = MemoryObjects()

    failure = await found(an_intent(**named(objects, *MANY), steps=[_steps.skip(len(MANY))]), objects=objects)

    assert (failure.code, failure.target) == ("UserError", "steps")


def altered(objects: MemoryObjects) -> dict[str, Any]:
    request = named(objects, *URLS)
    objects.put_bytes(request["manifest_key"], b"something else")
    return request


def removed(objects: MemoryObjects) -> dict[str, Any]:
    request = named(objects, *URLS)
    objects.remove(request["manifest_key"])
    return request


def garbage(objects: MemoryObjects) -> dict[str, Any]:
    digest = hashlib.sha256(b"\xff\xff\xff").hexdigest()
    objects.put_bytes(f"datastores/manifests/{digest}", b"\xff\xff\xff")
    return {"manifest_key": f"datastores/manifests/{digest}", "manifest_sha256": digest}


@pytest.mark.security
@pytest.mark.parametrize(
    ("hostile", "why"),
    [
        (altered, "its digest differs"),
        (removed, "The object store has no datastores/manifests/"),
        (garbage, "holds no list of files"),
        (lambda objects: named(objects), "has no URLs"),
        (lambda objects: {**named(objects, *URLS), "count": 3}, "has 2 files; the request says 3"),
        (lambda objects: named(objects, "http://h/../a"), "no safe relative path"),
        (lambda objects: named(objects, "http://h/a", "http://h/a"), "Give each file a path of its own"),
        (lambda objects: named(objects, "file:///etc/passwd"), "http(s) URLs"),
    ],
)
async def test_a_hostile_list_of_urls_registers_nothing_and_is_told_once(hostile: Any, why: str) -> None:
    objects = MemoryObjects()

    failure = await found(an_intent(**hostile(objects)), objects=objects)

    assert isinstance(failure, Failure)
    assert failure.code == "UserError"
    assert why in failure.message
