"""Lists of files that a user has written into the object store by hand: an agent gives a run nothing but what runs may read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from services.trainer_agent.adapters.blobs import Blobs
from services.trainer_agent.adapters.data import Data
from services.trainer_agent.adapters.snapshots import Snapshots
from services.trainer_agent.inputs import Inputs
from services.trainer_agent.layout import Folders
from services.trainer_agent.ports import PreparationFailed
from trainyard import _file_lists
from trainyard._artifacts import put_list, resolve
from trainyard._errors import TrainyardException, UserErrorException
from trainyard._objects import MemoryObjects
from trainyard.dataset.v1.dataset_pb2 import Dataset, SourceFile
from trainyard.event.v1.artifact_pb2 import ArtifactSet
from trainyard.job.v1.spec_pb2 import DatasetInput, Snapshot

pytestmark = pytest.mark.security
CONTENT = b"a secret"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
GARBAGE = b"\xff\xff\xff"
OF_GARBAGE = hashlib.sha256(GARBAGE).hexdigest()


@pytest.mark.parametrize("key", [
    f"snapshots/blobs/{DIGEST}", f"runs/../snapshots/blobs/{DIGEST}", f"uploads/a/../../snapshots/blobs/{DIGEST}", f"datastores/blobs/../manifests/{DIGEST}",
    "datastores/names/x", "/runs/x", "secrets", "runs",
])  # fmt: skip
def test_a_key_that_leads_to_what_no_run_may_read_is_refused(key: str, tmp_path: Path) -> None:
    objects = MemoryObjects()
    objects.put_bytes(key, CONTENT)
    data = Data(Blobs(tmp_path / "cache"), objects)
    source = SourceFile(url="datastore://a/b", path="b", size_bytes=len(CONTENT), sha256=DIGEST, object_key=key)

    with pytest.raises(PreparationFailed, match="is no file that a run may read") as caught:
        data.place([(source, tmp_path / "given")], writable=False)

    assert caught.value.failure.code == "UserError"
    assert not (tmp_path / "given").exists()


def test_a_list_that_is_no_list_is_refused_with_its_name_wherever_it_is_read(tmp_path: Path) -> None:
    objects = MemoryObjects()
    keys = [f"datastores/manifests/{OF_GARBAGE}", f"snapshots/trees/{OF_GARBAGE}", f"runs/r/1/manifests/{OF_GARBAGE}"]
    for key in keys:
        objects.put_bytes(key, GARBAGE)
    blobs = Blobs(tmp_path / "cache")
    named = {"manifest_sha256": OF_GARBAGE}

    with pytest.raises(TrainyardException, match="holds no list of files") as of_data:
        Data(blobs, objects).files_of(DatasetInput(name="x", manifest_key=keys[0], **named))  # type: ignore[arg-type]
    with pytest.raises(TrainyardException, match="holds no list of files") as of_source:
        Snapshots(objects, blobs).unpack(Snapshot(id="s", manifest_key=keys[1], **named), tmp_path / "code")  # type: ignore[arg-type]
    with pytest.raises(TrainyardException, match="holds no list of files") as of_outputs:
        resolve(objects, ArtifactSet(manifest_key=keys[2], **named))  # type: ignore[arg-type]

    assert [caught.value.target for caught in (of_data, of_source, of_outputs)] == keys


def refused_lists(tmp_path: Path, objects: MemoryObjects, of_input: bytes, of_source: bytes) -> list[TrainyardException]:
    """What comes of an object that is named as the list of an input, and of one that is named as a snapshot's."""
    digests = [hashlib.sha256(content).hexdigest() for content in (of_input, of_source)]
    keys = [f"datastores/manifests/{digests[0]}", f"snapshots/trees/{digests[1]}"]
    for key, content in zip(keys, (of_input, of_source), strict=True):
        objects.put_bytes(key, content)
    blobs = Blobs(tmp_path / "cache")
    with pytest.raises(TrainyardException) as data:
        Data(blobs, objects).files_of(DatasetInput(name="x", manifest_key=keys[0], manifest_sha256=digests[0]))
    with pytest.raises(TrainyardException) as source:
        Snapshots(objects, blobs).unpack(Snapshot(id="s", manifest_key=keys[1], manifest_sha256=digests[1]), tmp_path / "code")
    assert [caught.value.target for caught in (data, source)] == keys
    return [data.value, source.value]


def test_a_list_of_more_files_than_a_node_takes_is_refused_with_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainyard._artifacts.MOST_ENTRIES_IN_LIST", 2)
    dataset = Dataset(files=[SourceFile(path=path) for path in "abc"])
    snapshot = Snapshot(files=[{"path": "a"}], empty_folders=["b", "c"])

    refused = refused_lists(tmp_path, MemoryObjects(), dataset.SerializeToString(), snapshot.SerializeToString())
    with pytest.raises(UserErrorException, match="has 3 entries, and 2 is the most") as unsent:
        put_list(MemoryObjects(), "snapshots/trees", snapshot)

    assert {error.code for error in (*refused, unsent.value)} == {"ListTooLong"}
    assert all("has 3 entries, and 2 is the most" in error.message for error in refused)


def test_an_object_that_is_too_large_to_be_a_list_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unread(MemoryObjects):
        def size(self, key: str) -> int:
            return len(self.kept[key])

        def get_bytes(self, key: str) -> bytes:
            raise AssertionError(f"{key} was read")

    monkeypatch.setattr("trainyard._artifacts.MOST_BYTES_IN_LIST", 99)

    refused = refused_lists(tmp_path, Unread(), b"x" * 100, b"x" * 100)

    assert [(error.code, "takes 100 bytes, and 99 is the most" in error.message) for error in refused] == [("ListTooLong", True)] * 2


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        (["a", "../b"], "is no safe relative path"),
        (["/etc/passwd"], "is no safe relative path"),
        (["a", "b", "a"], "two of its files have the path 'a'"),
        (["a/b", "a"], "'a/b' lies below 'a', which is a file"),
    ],
)
def test_a_list_that_no_folder_can_hold_is_refused_before_a_file_is_fetched(paths: list[str], why: str, tmp_path: Path) -> None:
    objects = MemoryObjects()
    key, sha256, _ = _file_lists.put(objects, [SourceFile(path=path) for path in paths])
    item = DatasetInput(name="x", manifest_key=key, manifest_sha256=sha256)

    with pytest.raises(TrainyardException) as caught:
        Data(Blobs(tmp_path / "cache"), objects).files_of(item)

    assert caught.value.code == "WrongContent"
    assert why in caught.value.message and key in caught.value.message


@pytest.mark.parametrize("path", ["../a", "/etc/a", "a/../../b", "", "a\0b", "a\\b"])
def test_a_snapshot_writes_nothing_outside_of_its_folder(path: str, tmp_path: Path) -> None:
    objects = MemoryObjects()
    objects.put_bytes(f"snapshots/blobs/{DIGEST}", CONTENT)
    (tmp_path / "code").mkdir()
    snapshot = Snapshot(id="s", files=[{"path": path, "size_bytes": len(CONTENT), "sha256": DIGEST}])

    with pytest.raises(TrainyardException):
        Snapshots(objects, Blobs(tmp_path / "cache")).unpack(snapshot, tmp_path / "code")

    assert sorted(it.name for it in tmp_path.iterdir() if it.name != "cache") == ["code"] and not list((tmp_path / "code").iterdir())


def a_source(content: bytes, objects: MemoryObjects, path: str = "a") -> SourceFile:
    digest = hashlib.sha256(content).hexdigest()
    objects.put_bytes(f"datastores/blobs/{digest}", content)
    return SourceFile(
        url=f"datastore://s/{path}", path=path, size_bytes=len(content), sha256=digest, object_key=f"datastores/blobs/{digest}"
    )


@pytest.mark.parametrize("writable", [False, True])
def test_an_input_that_is_placed_over_another_never_writes_into_the_nodes_cache(writable: bool, tmp_path: Path) -> None:
    objects = MemoryObjects()
    blobs = Blobs(tmp_path / "cache")
    data = Data(blobs, objects)
    one, two = a_source(b"one", objects), a_source(b"two", objects)
    data.place([(one, tmp_path / "elsewhere"), (one, tmp_path / "given")], writable=False)

    data.place([(two, tmp_path / "given")], writable=writable)

    assert (tmp_path / "given").read_bytes() == b"two"
    assert (tmp_path / "elsewhere").read_bytes() == blobs.path(one.sha256).read_bytes() == b"one"


def test_two_files_of_one_place_are_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    objects = MemoryObjects()
    data = Data(Blobs(tmp_path / "cache"), objects)

    with pytest.raises(PreparationFailed, match="Two files of one input would lie at 'given'") as caught:
        data.place([(a_source(text, objects), tmp_path / "given") for text in (b"one", b"two")], writable=False)

    assert caught.value.failure.code == "UserError" and not (tmp_path / "given").exists()


def test_a_dangling_link_that_is_no_agents_stays(tmp_path: Path) -> None:
    objects = MemoryObjects()
    folders = Folders.make(tmp_path / "home", "agent-0", "run", 1)
    link = tmp_path / "somebodys"
    link.symlink_to(tmp_path / "not mounted now")
    item = DatasetInput(name="x", files=[a_source(b"one", objects)], mode=DatasetInput.MODE_MOUNT, path_on_compute=str(link))

    with pytest.raises(PreparationFailed, match="Choose another path_on_compute"):
        Inputs(Data(Blobs(tmp_path / "cache"), objects), folders, lambda _: None).place(item)
    folders.remove()

    assert link.readlink() == tmp_path / "not mounted now"
