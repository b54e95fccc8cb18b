"""A checkpoint folder that a script writes to, as it comes to lie in the object store."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.trainer_agent.adapters.checkpoints import Checkpoints
from services.trainer_agent.mirror import Mirror, is_wanted
from services.trainer_agent.ports import PreparationFailed
from trainyard import _artifacts
from trainyard._errors import PlatformUnavailableException
from trainyard._objects import MemoryObjects
from trainyard._paths import sha256_file
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet
from trainyard.job.v1.spec_pb2 import Distribution, Horovod, RunSpec

PREFIX = "runs/run/1/checkpoints"
# Together more than an event has room for.
_MANY, _LONG_NAME = 1000, "x" * 200


class Store(MemoryObjects):
    """Counts what is written, and calls `meanwhile` at each write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def put_bytes(self, key: str, content: bytes) -> None:
        self.meanwhile()
        self.written.append(key)
        super().put_bytes(key, content)


class Mirrored:
    """A folder and its mirror, which looks when it is told to."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "outputs"
        self.folder.mkdir()
        self.objects = Store()
        self.told: list[Any] = []
        self.mirror = Mirror(Checkpoints(self.objects, 0.0), PREFIX, self.folder, root / "staging", self.told.append, lambda: False)

    def write(self, path: str, content: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def save(self, name: str, content: str) -> None:
        """As TensorFlow does."""
        self.write(f"{name}.data-00000-of-00001", content)
        self.write(f"{name}.index", "")
        self.write(".new", f'model_checkpoint_path: "{name}"\n')
        (self.folder / ".new").replace(self.folder / "checkpoint")

    def look(self) -> dict[str, str] | None:
        """Path -> content of the set that is told; None where none is."""
        found = self.mirror._look()
        return None if found is None else {file.path: self.objects.get_bytes(file.object_key).decode() for file in found.files}


@pytest.fixture
def mirrored(tmp_path: Path) -> Mirrored:
    return Mirrored(tmp_path)


def test_a_file_is_saved_once_it_has_been_quiet_and_once_only(mirrored: Mirrored) -> None:
    mirrored.write("a/weights.h5", "one")

    looks = [mirrored.look() for _ in range(3)]

    assert looks == [None, {"a/weights.h5": "one"}, None]
    assert mirrored.objects.written == [f"{PREFIX}/blobs/{hashlib.sha256(b'one').hexdigest()}"]


def test_of_a_file_that_is_being_written_the_last_quiet_version_stays_in_the_set(mirrored: Mirrored) -> None:
    mirrored.write("log", "one")
    mirrored.look(), mirrored.look()
    mirrored.write("log", "one two")
    mirrored.write("b", "b")
    mirrored.look()
    mirrored.write("log", "one two three")

    assert mirrored.look() == {"log": "one", "b": "b"}


def test_what_the_script_removes_leaves_the_next_set(mirrored: Mirrored) -> None:
    mirrored.write("a", "a")
    mirrored.write("b", "b")
    mirrored.look(), mirrored.look()
    (mirrored.folder / "a").unlink()
    mirrored.write("c", "c")
    mirrored.look()

    assert mirrored.look() == {"b": "b", "c": "c"}


def test_a_checkpoint_of_tensorflow_is_saved_at_once_and_always_whole(mirrored: Mirrored) -> None:
    mirrored.save("ckpt-1", "one")
    first = mirrored.look()
    mirrored.save("ckpt-2", "two")
    (mirrored.folder / "ckpt-1.index").unlink()
    (mirrored.folder / "ckpt-2.index").unlink()

    assert first is not None and first["checkpoint"] == 'model_checkpoint_path: "ckpt-1"\n'
    assert mirrored.look() is None
    mirrored.save("ckpt-2", "two")
    second = mirrored.look()
    assert second is not None and second["ckpt-2.data-00000-of-00001"] == "two"


def test_a_checkpoint_that_is_removed_while_it_is_sent_is_sent_all_the_same(mirrored: Mirrored) -> None:
    mirrored.save("ckpt-1", "one")

    def remove() -> None:
        for file in mirrored.folder.glob("ckpt-1.*"):
            file.unlink(missing_ok=True)  # contents are sent side by side

    mirrored.objects.meanwhile = remove

    found = mirrored.look()

    assert found is not None and found["ckpt-1.data-00000-of-00001"] == "one"


def test_a_file_that_changes_while_it_is_sent_makes_no_set(mirrored: Mirrored) -> None:
    mirrored.write("a", "one")
    mirrored.look()
    # A link to the file is what is sent: what is written into it shows.
    mirrored.objects.meanwhile = lambda: mirrored.write("a", "other")

    mirrored.look()

    assert mirrored.told == []
    digests = {key.rpartition("/")[2] for key in mirrored.objects.written}
    assert digests <= {hashlib.sha256(b"one").hexdigest()}


@pytest.mark.security
def test_a_link_is_never_followed(mirrored: Mirrored, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    os.symlink(tmp_path / "secret", mirrored.folder / "a")
    os.symlink(tmp_path / "secret", mirrored.folder / "checkpoint")
    mirrored.write("b", "b")
    mirrored.look()

    assert mirrored.look() == {"b": "b"}


def test_equal_contents_are_sent_once(mirrored: Mirrored) -> None:
    mirrored.write("a", "same")
    mirrored.look(), mirrored.look()
    mirrored.write("b", "same")
    mirrored.look()

    assert mirrored.look() == {"a": "same", "b": "same"}
    assert len(mirrored.objects.written) == 1


def test_a_long_list_travels_by_name(mirrored: Mirrored) -> None:
    for number in range(_MANY):
        mirrored.write(f"{number}{_LONG_NAME}", "x")
    mirrored.mirror._look()

    found = mirrored.mirror._look()

    assert (found.count, len(found.files)) == (_MANY, 0)
    assert found.manifest_key.startswith(f"{PREFIX}/manifests/")
    assert len(_artifacts.resolve(mirrored.objects, found).files) == _MANY


async def test_what_a_rank_wrote_before_it_ended_by_itself_is_in_the_last_set(mirrored: Mirrored) -> None:
    mirrored.write("late", "late")

    mirrored.mirror.end(None)
    await mirrored.mirror.run(3600)

    (last,) = mirrored.told
    assert [file.path for file in last.files] == ["late"]


async def test_what_a_killed_rank_may_have_been_writing_is_not_in_the_last_set(mirrored: Mirrored) -> None:
    mirrored.write("old", "old")
    mirrored.write("torn", "to")
    ended = (mirrored.folder / "torn").stat().st_mtime_ns + 1000
    os.utime(mirrored.folder / "old", ns=(ended - 2 * 10**9, ended - 2 * 10**9))

    mirrored.mirror.end(ended)
    await mirrored.mirror.run(3600)

    (last,) = mirrored.told
    assert [file.path for file in last.files] == ["old"]


async def test_a_store_that_fails_ends_nothing_and_the_next_look_makes_up_for_it(mirrored: Mirrored) -> None:
    mirrored.write("a", "a")
    came = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fail() -> None:
        mirrored.objects.meanwhile = lambda: loop.call_soon_threadsafe(came.set)
        raise PlatformUnavailableException("away")

    mirrored.objects.meanwhile = fail
    running = asyncio.create_task(mirrored.mirror.run(0.001))
    await asyncio.wait_for(came.wait(), 30)
    mirrored.mirror.end(None)
    await asyncio.wait_for(running, 30)

    assert [[file.path for file in told.files] for told in mirrored.told] == [["a"]]


@pytest.mark.parametrize(
    ("offer", "wanted"),
    [
        (cluster.LeaseOffered(), False),
        (cluster.LeaseOffered(preemptible=True), True),
        (cluster.LeaseOffered(spec=RunSpec(max_restarts=1)), True),
        (cluster.LeaseOffered(spec=RunSpec(checkpoint_folder="model")), True),
        (cluster.LeaseOffered(spec=RunSpec(distribution=Distribution(node_count=2, horovod=Horovod()))), False),
        (cluster.LeaseOffered(spec=RunSpec(distribution=Distribution(node_count=2, horovod=Horovod(min_nodes=1)))), True),
    ],
)
def test_a_folder_is_mirrored_where_an_attempt_may_begin_with_it(offer: Any, wanted: bool) -> None:
    assert is_wanted(offer) is wanted


# -- back again


def a_set(objects: MemoryObjects, files: dict[str, str]) -> ArtifactSet:
    found = ArtifactSet()
    for path, content in files.items():
        key = f"{PREFIX}/blobs/{hashlib.sha256(content.encode()).hexdigest()}"
        objects.put_bytes(key, content.encode())
        found.files.add(path=path, size_bytes=len(content), sha256=key.rpartition("/")[2], object_key=key)
    return found


def test_a_checkpoint_is_put_back_and_its_index_names_what_lies_beside_it(tmp_path: Path) -> None:
    objects = MemoryObjects()
    files = {"m/c-1.index": "", "m/c-1.data-00000-of-00001": "one", "m/checkpoint": 'model_checkpoint_path: "/other/node/m/c-1"\n'}

    placed = Checkpoints(objects).restore(a_set(objects, files), tmp_path, lambda: False)

    assert (len(placed), (tmp_path / "m" / "c-1.data-00000-of-00001").read_text()) == (3, "one")
    assert (tmp_path / "m" / "checkpoint").read_text() == 'model_checkpoint_path: "c-1"\n'
    assert {path: it.sha256 for path, it in placed.items()} == {path: sha256_file(path) for path in placed}


def test_a_list_that_lies_elsewhere_is_put_back_too(tmp_path: Path) -> None:
    objects = MemoryObjects()
    listed = _artifacts.for_event(objects, PREFIX, a_set(objects, {f"{number}{_LONG_NAME}": "x" for number in range(_MANY)}))
    assert listed.manifest_key

    assert len(Checkpoints(objects).restore(listed, tmp_path, lambda: False)) == _MANY


@pytest.mark.parametrize(
    ("key", "digest", "code"),
    [
        (f"{PREFIX}/blobs/gone", "0" * 64, "CheckpointMissing"),
        (f"{PREFIX}/blobs/other", "0" * 64, "CheckpointCorrupt"),
        ("datastores/blobs/secret", "0" * 64, "CheckpointCorrupt"),
        ("runs/../datastores/blobs/secret", "0" * 64, "CheckpointCorrupt"),
        (f"{PREFIX}/blobs/other", "no digest", "CheckpointCorrupt"),
    ],
)
@pytest.mark.security
def test_a_checkpoint_that_is_not_what_it_says_starts_nothing(tmp_path: Path, key: str, digest: str, code: str) -> None:
    objects = MemoryObjects()
    objects.put_bytes(f"{PREFIX}/blobs/other", b"other")
    wanted = ArtifactSet(files=[Artifact(path="a", size_bytes=5, sha256=digest, object_key=key)])

    with pytest.raises(PreparationFailed) as caught:
        Checkpoints(objects).restore(wanted, tmp_path, lambda: False)

    assert caught.value.failure.code == code
    assert not (tmp_path / "a").exists()


@pytest.mark.security
def test_a_checkpoint_leads_out_of_its_folder_by_no_path(tmp_path: Path) -> None:
    objects, folder = MemoryObjects(), tmp_path / "outputs"
    folder.mkdir()

    with pytest.raises(Exception, match="no safe relative path"):
        Checkpoints(objects).restore(a_set(objects, {"../code.py": "evil"}), folder, lambda: False)

    assert not (tmp_path / "code.py").exists()
