import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from services.chassis import codec
from services.registry.checking import Checking
from services.registry.domain.registration import Asked, refused
from services.registry.domain.runs import Run, evolve
from services.registry.handlers import Checked
from tests.unit.registry.builders import RUN, a_request, artifacts, completed, queued
from trainyard._errors import PlatformUnavailableException
from trainyard._objects import MemoryObjects
from trainyard.event.v1.artifact_pb2 import ArtifactSet
from trainyard.job.v1 import job_pb2 as job

AT = datetime(2026, 1, 1, tzinfo=UTC)
PATHS = ("outputs/model/a", "outputs/model/b", "outputs/other")


class Told:
    """Runs that the log told of."""

    def __init__(self, *events: Any) -> None:
        self.run: Run | None = None
        for event in events:
            self.run = evolve(self.run, event)

    async def read(self, run_id: str, *, ended: bool) -> Run | None:
        return self.run if run_id == RUN else None


def store_with(*paths: str) -> MemoryObjects:
    objects = MemoryObjects()
    for file in artifacts(*paths).files:
        objects.put_bytes(file.object_key, b"x")
    return objects


async def check(runs: Told, objects: MemoryObjects) -> Checked:
    command = await Checking(runs, objects, lambda: AT)(codec.dumps(Asked(a_request(), "e1", "c1")))
    assert (command.cause_id, command.correlation_id) == ("e1", "c1")
    checked = command.payload
    assert isinstance(checked, Checked)
    return checked


async def test_a_run_whose_chosen_files_are_all_there_lacks_nothing() -> None:
    runs = Told(queued(), completed(*PATHS))

    assert await check(runs, store_with("outputs/model/a", "outputs/model/b")) == Checked("s1", runs.run, None, AT)


async def test_a_file_that_is_gone_is_told_by_its_key() -> None:
    checked = await check(Told(queued(), completed(*PATHS)), store_with("outputs/model/a"))

    assert checked.missing is not None
    assert checked.missing.code == "ArtifactMissing"
    assert f"runs/{RUN}/1/outputs/model/b is missing" in checked.missing.message


async def test_a_file_of_another_size_than_recorded_counts_as_missing() -> None:
    objects = store_with(*PATHS)
    objects.put_bytes(f"runs/{RUN}/1/outputs/model/b", b"longer")

    checked = await check(Told(queued(), completed(*PATHS)), objects)

    assert checked.missing is not None
    assert "outputs/model/b has 6 bytes, not 1" in checked.missing.message


@pytest.mark.parametrize("events", [[], [queued()], [queued(), job.RunStarted(run_id=RUN, epoch=1)], [queued(), completed("logs/0.txt")]])
async def test_a_run_that_cannot_be_registered_from_is_not_looked_up_in_the_store(events: list[Any]) -> None:
    class Untouchable(MemoryObjects):
        def read(self, key: str, start: int = 0) -> Iterator[bytes]:
            raise AssertionError(f"{key} was looked up")

    runs = Told(*events)

    assert await check(runs, Untouchable()) == Checked("s1", runs.run, None, AT)


async def test_a_store_that_does_not_answer_is_no_answer() -> None:
    class Away(MemoryObjects):
        def read(self, key: str, start: int = 0) -> Iterator[bytes]:
            raise PlatformUnavailableException("away")

    with pytest.raises(PlatformUnavailableException):
        await check(Told(queued(), completed(*PATHS)), Away())


async def test_a_run_whose_list_of_files_lies_in_the_store_is_read_there() -> None:
    objects = store_with(*PATHS)
    content = artifacts(*PATHS).SerializeToString(deterministic=True)
    objects.put_bytes("list", content)
    named = ArtifactSet(manifest_key="list", manifest_sha256=hashlib.sha256(content).hexdigest(), count=len(PATHS))
    end = job.RunCompleted(run_id=RUN, epoch=1, outputs=named)

    checked = await check(Told(queued(), end), objects)

    assert checked.missing is None
    assert checked.run is not None and list(checked.run.artifacts.files) == list(artifacts(*PATHS).files)


@pytest.mark.security
async def test_a_key_that_is_none_is_told_and_not_asked_for() -> None:
    outputs = artifacts("outputs/model/a")
    outputs.files[0].object_key = "../../other-bucket/a"
    objects = MemoryObjects()
    objects.put_bytes("../../other-bucket/a", b"x")

    checked = await check(Told(queued(), job.RunCompleted(run_id=RUN, epoch=1, outputs=outputs)), objects)

    assert checked.missing is not None
    assert "is no key of the object store" in checked.missing.message


async def test_a_list_of_files_that_is_gone_is_an_answer_and_says_so() -> None:
    named = ArtifactSet(manifest_key="list", manifest_sha256="a" * 64, count=len(PATHS))
    end = job.RunCompleted(run_id=RUN, epoch=1, outputs=named)

    checked = await check(Told(queued(), end), MemoryObjects())

    assert checked.missing is not None
    assert (checked.missing.code, checked.missing.target) == ("ArtifactMissing", "list")
    assert refused(checked.run, a_request()) is None
