"""Models that a client uploads: the request, what the registry makes of it, and the check of the bytes."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.chassis import codec
from services.chassis.records import Unavailable
from services.registry.checking import Checking
from services.registry.domain import registration
from services.registry.domain.registration import NOTHING_READ, Asked, Known
from services.registry.domain.runs import Run
from services.registry.handlers import Checked
from tests.unit.registry.builders import RUN, an_upload, completed
from tests.unit.registry.test_registration import run_after
from trainyard._objects import MemoryObjects
from trainyard.event.v1.artifact_pb2 import ArtifactSet
from trainyard.model.v1.model_pb2 import DatasetRef, Lineage, ModelVersionRegistered, ModelVersionRejected, RegisterModelVersion

AT = datetime(2026, 1, 1, tzinfo=UTC)
CONTENTS = {"model/saved_model.pb": b"graph", "model/variables/v": b"weights"}


def decided(request: RegisterModelVersion) -> list[registration.Fact]:
    return registration.decide(Known(), Asked(request, "e1", request.model))


def listed(*paths: str) -> RegisterModelVersion:
    return an_upload(dict.fromkeys(paths, b"x"))


def test_an_uploaded_folder_waits_for_the_check_of_its_bytes_and_becomes_a_version_without_a_run() -> None:
    request = an_upload(CONTENTS, datasets=[DatasetRef(name="mnist", version=2)])

    assert decided(request) == []
    (fact,) = registration.conclude(Known(3, Asked(request, "e1", "c1")), None, None, AT)

    assert isinstance(fact, ModelVersionRegistered)
    assert (fact.version, fact.artifacts) == (4, request.files)
    assert fact.artifacts.files[0].object_key == f"uploads/models/{fact.digest}/model/saved_model.pb"
    assert fact.lineage == Lineage(datasets=[DatasetRef(name="mnist", version=2)])


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../a", "model/../../a", "model//a", "a\\b", "model/a\n", "model/%2e%2e/a", "model/a ", "C:/a", "model/\u202e/.."],
)
def test_a_hostile_path_is_refused_by_name(path: str) -> None:
    (fact,) = decided(listed(path))

    assert isinstance(fact, ModelVersionRejected)
    assert (fact.failure.code, fact.failure.target) == ("UserError", path)


def _elsewhere(request: RegisterModelVersion) -> None:
    request.files.files[0].object_key = "runs/another_1/1/outputs/secret"


def _of_other_files(request: RegisterModelVersion) -> None:
    request.files.files[0].sha256 = "0" * 64


def _doubled(request: RegisterModelVersion) -> None:
    request.files.files.append(request.files.files[-1])


def _no_digest(request: RegisterModelVersion) -> None:
    request.files.files[0].sha256 = "F" * 64


def _with_a_path(request: RegisterModelVersion) -> None:
    request.path = "outputs/model"


def _with_a_run_whose_files_they_are_not(request: RegisterModelVersion) -> None:
    request.run_id = RUN


def _empty(request: RegisterModelVersion) -> None:
    request.files.CopyFrom(ArtifactSet())


def _many_datasets(request: RegisterModelVersion) -> None:
    request.datasets.extend(DatasetRef(name=str(number), version=1) for number in range(51))


def _nameless_dataset(request: RegisterModelVersion) -> None:
    request.datasets.add(name="", version=1)


@pytest.mark.parametrize(
    "spoil",
    [
        _elsewhere,
        _of_other_files,
        _doubled,
        _no_digest,
        _with_a_path,
        _with_a_run_whose_files_they_are_not,
        _empty,
        _many_datasets,
        _nameless_dataset,
    ],
)
def test_a_list_that_could_not_be_a_models_is_refused_at_once(spoil: Callable[[RegisterModelVersion], None]) -> None:
    request = an_upload(CONTENTS)
    spoil(request)

    (fact,) = decided(request)

    assert isinstance(fact, ModelVersionRejected)
    assert fact.failure.code == "UserError"


@pytest.mark.parametrize("paths", [("a", "b"), ("model", "other/x"), ("model/a", "model/a/b")])
def test_what_is_neither_one_file_nor_one_folder_is_refused(paths: tuple[str, ...]) -> None:
    (fact,) = decided(listed(*paths))

    assert isinstance(fact, ModelVersionRejected)


def test_datasets_that_the_caller_names_stand_beside_those_of_the_run_each_once() -> None:
    run = run_after(completed("outputs/model"))
    request = RegisterModelVersion(submission_id="s1", model="m", run_id=RUN, path="outputs/model")
    request.datasets.extend([DatasetRef(name="mnist", version=2), DatasetRef(name="words", version=7)])

    (fact,) = registration.conclude(Known(0, Asked(request, "e1", "m")), run, None, AT)

    assert isinstance(fact, ModelVersionRegistered)
    assert [(it.name, it.version) for it in fact.lineage.datasets] == [("mnist", 2), ("words", 7)]
    assert fact.lineage.run_id == RUN


def of_a_run(key: str = f"uploads/{RUN}/1/model") -> RegisterModelVersion:
    request = an_upload({"model/b": b"x", "model/a": b"y"}, run_id=RUN)
    for file in request.files.files:
        file.object_key = f"{key}/{file.path}"
    request.files.CopyFrom(ArtifactSet(files=reversed(list(request.files.files))))
    return request


def test_files_uploaded_for_a_run_that_goes_on_become_a_version_with_its_lineage() -> None:
    run = run_after()

    assert not run.has_ended
    assert decided(of_a_run()) == []
    (fact,) = registration.conclude(Known(0, Asked(of_a_run(), "e1", "c1")), run, None, AT)
    (unknown,) = registration.conclude(Known(0, Asked(of_a_run(), "e1", "c1")), None, None, AT)

    assert isinstance(fact, ModelVersionRegistered)
    assert ([file.path for file in fact.artifacts.files], fact.lineage.run_id) == (["model/a", "model/b"], RUN)
    assert isinstance(unknown, ModelVersionRejected)
    assert unknown.failure.code == "RunNotFound"


@pytest.mark.parametrize(
    "key", ["uploads/another_1/x", f"uploads/{RUN}", f"runs/{RUN}/1", f"uploads/{RUN}/../another_1", f"uploads/{RUN}x/y"]
)
def test_files_that_lie_elsewhere_than_the_runs_own_uploads_are_refused(key: str) -> None:
    request = of_a_run(key)
    request.files.files[0].object_key = key

    (fact,) = decided(request)

    assert isinstance(fact, ModelVersionRejected)
    assert fact.failure.code == "UserError"


async def test_an_agents_word_for_a_digest_is_taken_and_the_size_is_looked_at() -> None:
    class Runs:
        async def read(self, run_id: str, *, ended: bool) -> Run | None:
            assert not ended, "it would wait for the end of a run that waits for it"
            return run_after()

    objects = MemoryObjects()
    for file in of_a_run().files.files:
        objects.put_bytes(file.object_key, b"?")
    command = await Checking(Runs(), objects, lambda: AT)(codec.dumps(Asked(of_a_run(), "e1", "c1")))

    assert command.payload == Checked("s1", run_after(), None, AT)


async def test_for_a_childs_model_all_is_read_that_the_log_says_of_the_run_that_asks_too() -> None:
    asked: list[tuple[str, bool]] = []

    class Runs:
        async def read(self, run_id: str, *, ended: bool) -> Run | None:
            asked.append((run_id, ended))
            return run_after()

    for parent in ("parent", RUN):
        request = of_a_run()
        request.by.run_id, request.by.epoch = parent, 1
        await Checking(Runs(), MemoryObjects(), lambda: AT)(codec.dumps(Asked(request, "e1", "c1")))

    assert asked == [(RUN, False), ("parent", False), (RUN, False)]


class NoRuns:
    async def read(self, run_id: str, *, ended: bool) -> Run | None:
        raise AssertionError("an uploaded model has no run")


async def checked(request: RegisterModelVersion, objects: MemoryObjects) -> Checked:
    command = await Checking(NoRuns(), objects, lambda: AT)(codec.dumps(Asked(request, "e1", "c1")))
    assert isinstance(command.payload, Checked)
    return command.payload


def store_of(request: RegisterModelVersion, contents: dict[str, bytes]) -> MemoryObjects:
    objects = MemoryObjects()
    for file in request.files.files:
        objects.put_bytes(file.object_key, contents[file.path])
    return objects


async def test_uploaded_bytes_that_are_as_said_lack_nothing() -> None:
    request = an_upload(CONTENTS)

    found = await checked(request, store_of(request, CONTENTS))

    assert replace(found, reading=NOTHING_READ) == Checked("s1", None, None, AT)
    assert "no SavedModel that can be read" in found.reading.warnings[0]


@pytest.mark.security
@pytest.mark.parametrize(
    ("path", "content", "why"),
    [
        ("model/weights.bin", pickle.dumps({"w": [0.5]}), "is a pickle"),
        ("model/weights.h5", b"x", "is HDF5"),
        ("model/assets.zip", b"PK", "is an archive"),
        ("model/architecture.json", b'{"class_name": "Lambda", "config": {"name": "evil"}}', "'evil', a Lambda"),
        ("model.keras", b"PK\x03\x04 no more", "does not end as a zip"),
    ],
)
async def test_what_no_model_may_hold_is_refused_with_the_file_named(path: str, content: bytes, why: str) -> None:
    request = an_upload({path: content})

    found = await checked(request, store_of(request, {path: content}))

    assert found.missing is not None
    assert (found.missing.code, found.missing.target) == ("ModelRefused", path)
    assert why in found.missing.message


async def test_an_uploaded_file_with_other_bytes_of_the_same_size_is_told_by_both_digests() -> None:
    request = an_upload(CONTENTS)

    found = await checked(request, store_of(request, {**CONTENTS, "model/saved_model.pb": b"GRAPH"}))

    assert found.missing is not None
    assert found.missing.code == "ArtifactMissing"
    assert request.files.files[0].sha256 in found.missing.message
    assert "upload them again" in found.missing.message


async def test_an_uploaded_file_that_is_missing_or_shorter_is_told_by_its_key() -> None:
    request = an_upload(CONTENTS)
    objects = store_of(request, {**CONTENTS, "model/variables/v": b"w"})
    objects.remove(request.files.files[0].object_key)

    found = await checked(request, objects)

    assert found.missing is not None
    assert f"{request.files.files[0].object_key} is missing" in found.missing.message
    assert "has 1 bytes, not 7" in found.missing.message


async def test_an_upload_whose_files_are_just_being_removed_waits() -> None:
    request = an_upload(CONTENTS)
    digest = request.files.files[0].object_key.split("/")[2]
    checking = Checking(NoRuns(), store_of(request, CONTENTS), lambda: AT, is_being_removed=lambda asked: asked == digest)

    with pytest.raises(Unavailable):
        await checking(codec.dumps(Asked(request, "e1", "c1")))
