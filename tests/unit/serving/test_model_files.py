"""A version's files on the node: fetched once, checked, whole or not there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from services.serving.adapters.model_files import CachedModelFiles, digest_of
from services.serving.domain.model_version import ModelVersion
from services.serving.ports import CannotServe
from tests.unit.serving.builders import SAVED_MODEL, a_version
from trainyard._errors import PlatformUnavailableException
from trainyard._objects import MemoryObjects
from trainyard.event.v1.artifact_pb2 import Artifact


class CountingObjects(MemoryObjects):
    def __init__(self, version: ModelVersion, contents: dict[str, bytes]) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.away = False
        for file in version.files.files:
            self.put_bytes(file.object_key, contents[file.path])

    def get_file(self, key: str, path: Path) -> None:
        self.fetched.append(key)
        if self.away:
            raise PlatformUnavailableException("it does not answer")
        super().get_file(key, path)


def unsaid(_: str) -> None:
    """Nobody listens."""


async def test_files_are_fetched_once_and_lie_as_they_were_registered(tmp_path: Path) -> None:
    version = a_version()
    objects = CountingObjects(version, SAVED_MODEL)

    first = await CachedModelFiles(objects, tmp_path).fetch(version, unsaid)
    second = await CachedModelFiles(objects, tmp_path).fetch(version, unsaid)

    assert first == second
    assert first.digest == digest_of(list(version.files.files))
    assert first.path == tmp_path / "models" / first.digest / "model"
    assert (first.path / "saved_model.pb").read_bytes() == b"graph"
    assert (first.path / "variables" / "variables.index").read_bytes() == b"index"
    assert len(objects.fetched) == 2


async def test_two_versions_with_the_same_files_share_one_folder(tmp_path: Path) -> None:
    objects = CountingObjects(a_version(), SAVED_MODEL)

    one = await CachedModelFiles(objects, tmp_path).fetch(a_version("mnist", 1), unsaid)
    other = await CachedModelFiles(objects, tmp_path).fetch(a_version("words", 7), unsaid)

    assert one == other
    assert len(objects.fetched) == 2


def test_the_digest_is_the_one_that_the_registry_works_out() -> None:
    files = [Artifact(path="model/b", sha256="2" * 64), Artifact(path="model/a", sha256="1" * 64)]

    assert digest_of(files) == "86002c441969c36833fc9df1dae48c8a1eaaab9b95e563d82310f29f81dd6ce7"


async def test_bytes_that_changed_are_named_and_nothing_of_them_stays(tmp_path: Path) -> None:
    version = a_version()
    objects = CountingObjects(version, {**SAVED_MODEL, "model/saved_model.pb": b"graPh"})

    with pytest.raises(CannotServe) as caught:
        await CachedModelFiles(objects, tmp_path).fetch(version, unsaid)

    assert (caught.value.failure.code, caught.value.failure.target) == ("ArtifactCorrupt", "model/saved_model.pb")
    assert "runs/r/1/outputs/model/saved_model.pb" in caught.value.failure.message
    assert list((tmp_path / "models").iterdir()) == []


async def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    version = a_version()
    objects = CountingObjects(version, SAVED_MODEL)
    objects.remove("runs/r/1/outputs/model/variables/variables.index")

    with pytest.raises(CannotServe) as caught:
        await CachedModelFiles(objects, tmp_path).fetch(version, unsaid)

    assert (caught.value.failure.code, caught.value.failure.target) == ("ArtifactMissing", "model/variables/variables.index")
    assert list((tmp_path / "models").iterdir()) == []


async def test_a_store_that_does_not_answer_is_no_fault_of_the_version(tmp_path: Path) -> None:
    version = a_version()
    objects = CountingObjects(version, SAVED_MODEL)
    objects.away = True
    files = CachedModelFiles(objects, tmp_path)

    with pytest.raises(PlatformUnavailableException):
        await files.fetch(version, unsaid)
    objects.away = False

    assert ((await files.fetch(version, unsaid)).path / "saved_model.pb").exists()


@pytest.mark.parametrize("path", ["../../evil/saved_model.pb", "/etc/saved_model.pb", "model/../../x"])
async def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    contents = {**SAVED_MODEL, path: b"evil"}
    version = a_version(files=contents)
    objects = CountingObjects(version, contents)

    with pytest.raises(CannotServe) as caught:
        await CachedModelFiles(objects, tmp_path / "cache").fetch(version, unsaid)

    assert (caught.value.failure.code, caught.value.failure.target) == ("ArtifactCorrupt", path)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(b"gra"), lambda path: path.write_bytes(b"graPh")], ids=["gone", "cut", "changed"]
)
async def test_a_folder_with_a_damaged_file_is_fetched_anew(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    version = a_version()
    files = CachedModelFiles(CountingObjects(version, SAVED_MODEL), tmp_path)
    folder = await files.fetch(version, unsaid)
    damage(folder.path / "saved_model.pb")

    again = await files.fetch(version, unsaid)

    assert again == folder
    assert (folder.path / "saved_model.pb").read_bytes() == b"graph"


@pytest.mark.parametrize("away", [True, False], ids=["store away", "object gone"])
async def test_a_changed_file_that_cannot_be_fetched_anew_is_named_with_both_digests(tmp_path: Path, away: bool) -> None:
    version = a_version()
    objects = CountingObjects(version, SAVED_MODEL)
    files = CachedModelFiles(objects, tmp_path)
    folder = await files.fetch(version, unsaid)
    (folder.path / "saved_model.pb").write_bytes(b"graPh")
    objects.away = away
    if not away:
        objects.remove("runs/r/1/outputs/model/saved_model.pb")

    with pytest.raises(PlatformUnavailableException if away else CannotServe) as caught:
        await files.fetch(version, unsaid)

    assert "model/saved_model.pb changed in this node's cache" in str(caught.value)
    assert all(hashlib.sha256(it).hexdigest() in str(caught.value) for it in (b"graph", b"graPh"))


async def test_a_folder_that_another_process_published_meanwhile_is_used(tmp_path: Path) -> None:
    version = a_version()
    objects = CountingObjects(version, SAVED_MODEL)
    plain = objects.get_file

    class Overtaken(CountingObjects):
        def get_file(self, key: str, path: Path) -> None:
            plain(key, path)
            published = tmp_path / "models" / digest_of(list(version.files.files))
            for name, content in SAVED_MODEL.items():
                (published / name).parent.mkdir(parents=True, exist_ok=True)
                (published / name).write_bytes(content)

    folder = await CachedModelFiles(Overtaken(version, SAVED_MODEL), tmp_path).fetch(version, unsaid)

    assert (folder.path / "saved_model.pb").read_bytes() == b"graph"
    assert [path.name for path in (tmp_path / "models").iterdir()] == [folder.digest]
