"""Datastores and what datasets make of their paths, on an object store in memory."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from trainyard import DataPath, DataPathComputeBinding, DataReferenceConfiguration, Dataset, Datastore, UserErrorException, Workspace
from trainyard._datastore_files import list_files, mark_key
from trainyard._objects import MemoryObjects
from trainyard._stored_sources import parse
from trainyard.job.v1.spec_pb2 import DatasetInput


class Platform(Workspace):
    """Nothing but an object store."""

    @cached_property
    def _objects(self) -> MemoryObjects:
        return MemoryObjects()


@pytest.fixture
def store() -> Datastore:
    kept = {"endpoint": "memory", "bucket": "trainyard"}
    return Platform.from_dict({"workspace_name": "w", "trainyard": {"object_store": kept}}).get_default_datastore()


def fill(store: Datastore, folder: Path, *paths: str, text: str = "", **options: Any) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text or path)
    store.upload(folder, show_progress=False, **options)


def test_a_path_has_what_was_written_there_last_and_a_content_is_kept_once(store: Datastore, tmp_path: Path) -> None:
    fill(store, tmp_path, "a", text="1")
    fill(store, tmp_path, "a", "b", text="2")
    assert [(file.path, file.size) for file in store.stored()] == [("a", 1), ("b", 1)]
    first = {file.path: file.sha256 for file in store.stored()}

    fill(store, tmp_path, "a", text="2", overwrite=True)
    fill(store, tmp_path, "a", text="1", overwrite=True)
    again = {file.path: file.sha256 for file in store.stored()}
    fill(store, tmp_path, "a", text="2", overwrite=True)

    assert again == first
    assert len({file.sha256 for file in store.stored()}) == 1
    assert len(list(store.workspace._objects.list("datastores/blobs/"))) == 2


def test_marks_that_are_none_are_passed_over(store: Datastore) -> None:
    objects = store.workspace._objects
    for key in ("datastores/files/workspaceblobstore/a", "datastores/files/workspaceblobstore/a/@nonsense.1"):
        objects.put_bytes(key, b"")
    objects.put_bytes(mark_key("workspaceblobstore", "a/@x", 3, "0" * 64), b"")

    assert [file.path for file in list_files(objects, "workspaceblobstore")] == ["a/@x"]


@pytest.mark.parametrize("path", ["../a", "a/../b", "a//b", "a\nb", "a\\b", "a/.", "u\u0308", "a/%2e%2e/b", "a*", "x" * 900, "y" * 256])
def test_a_path_that_could_lead_elsewhere_is_refused_before_anything_is_sent(store: Datastore, tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(UserErrorException):
        store.upload_files([tmp_path / "file"], target_path=path)

    assert store.workspace._objects.kept == {}


@pytest.mark.parametrize("url", ["datastore://d//a", "datastore://d/../a", "datastore:///a", "datastore://-d/a", "datastore://d/a/../*.gz"])
def test_a_source_that_could_lead_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(UserErrorException):
        parse(url)


def test_a_download_goes_on_where_files_are_missing_and_keeps_others(store: Datastore, tmp_path: Path) -> None:
    fill(store, tmp_path / "up", "m/a", "m/b", "m2/c")
    (tmp_path / "down/m").mkdir(parents=True)
    (tmp_path / "down/m/a").write_text("mine")

    assert store.download(str(tmp_path / "down"), "m", show_progress=False) == 1
    assert (tmp_path / "down/m/a").read_text() == "mine"
    assert store.download(str(tmp_path / "down"), "m", overwrite=True, show_progress=False) == 2
    assert (tmp_path / "down/m/a").read_text() == "m/a"
    assert not (tmp_path / "down/m2").exists()


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["m"], ["/test/c.gz", "/train/a.gz", "/train/b.txt"]),
        (["m/"], ["/test/c.gz", "/train/a.gz", "/train/b.txt"]),
        (["m/train/*.gz"], ["/a.gz"]),
        (["m/*.gz"], None),
        (["m/**/*.gz"], ["/test/c.gz", "/train/a.gz"]),
        (["**"], ["/m/test/c.gz", "/m/train/a.gz", "/m/train/b.txt", "/n"]),
        (["m/train/?.txt"], ["/b.txt"]),
        (["m/train/b.txt"], ["/b.txt"]),
        (["m/train", "m/test"], ["/train/a.gz", "/train/b.txt", "/test/c.gz"]),
        (["m/train/a.gz", "m/**"], ["/train/a.gz", "/test/c.gz", "/train/b.txt"]),
        (["m/tr"], None),
        ([""], ["/m/test/c.gz", "/m/train/a.gz", "/m/train/b.txt", "/n"]),
    ],
)
def test_files_lie_below_the_folder_that_was_named(store: Datastore, tmp_path: Path, paths: list[str], expected: list[str] | None) -> None:
    fill(store, tmp_path, "m/train/a.gz", "m/train/b.txt", "m/test/c.gz", "n")

    if expected is None:
        with pytest.raises(UserErrorException, match="has no file"):
            Dataset.File.from_files([(store, path) for path in paths])
    else:
        assert Dataset.File.from_files([(store, path) for path in paths]).to_path() == expected


def test_a_dataset_is_made_of_local_files_folders_and_globs_and_uploads_them_once(
    store: Datastore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workspace, "from_config", lambda *_: store.workspace)
    for name in ("a/x.gz", "a/y.txt", "z.gz"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(name)

    folder = Dataset.File.from_files(str(tmp_path / "data"))
    before = len(store.workspace._objects.kept)
    again = Dataset.File.from_files(tmp_path / "data")
    glob = Dataset.File.from_files(f"{tmp_path}/data/**/*.gz")
    one = Dataset.File.from_files(str(tmp_path / "data/z.gz"))

    assert folder.to_path() == again.to_path() == ["/a/x.gz", "/a/y.txt", "/z.gz"]
    assert glob.to_path() == ["/a/x.gz", "/z.gz"]
    assert one.to_path() == ["/z.gz"]
    assert folder._urls == again._urls and before > 0
    with pytest.raises(UserErrorException, match="no file at"):
        Dataset.File.from_files(str(tmp_path / "none"))


def test_a_folder_is_uploaded_to_a_place_of_ones_own(store: Datastore, tmp_path: Path) -> None:
    fill(store, tmp_path, "other/file")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.npz").write_text("a")
    (tmp_path / "in/b.txt").write_text("b")

    found = Dataset.File.upload_directory(tmp_path / "in", DataPath(store, "place"), pattern="*.npz", show_progress=False)
    found.download(str(tmp_path / "down"))

    assert found.to_path() == ["/a.npz"]
    assert (tmp_path / "down/a.npz").read_text() == "a"
    with pytest.raises(UserErrorException, match="is there already"):
        found.download(str(tmp_path / "down"))


def test_a_mounted_dataset_is_read_only_and_gone_afterwards(store: Datastore, tmp_path: Path) -> None:
    fill(store, tmp_path / "up", "d/a")
    dataset = Dataset.File.from_files((store, "d"))

    with dataset.mount(str(tmp_path / "here")) as mounted:
        text, mode = (tmp_path / "here/a").read_text(), (tmp_path / "here/a").stat().st_mode

    assert (text, mode & 0o222) == ("d/a", 0)
    assert list((tmp_path / "here").iterdir()) == []
    with pytest.raises(UserErrorException, match="not mounted"):
        _ = mounted.mount_point


def test_a_data_path_becomes_an_input_that_stays_a_folder(store: Datastore, tmp_path: Path) -> None:
    fill(store, tmp_path, "run/model/checkpoint")
    path = DataPath(store, "run/model")

    reference = path.create_data_reference("resume", DataPathComputeBinding(mode="download", path_on_compute="here"))
    given = reference.to_config()._to_input("resume")._to_message()

    assert str(reference) == "$AZUREML_DATAREFERENCE_resume"
    assert (given.name, given.mode, given.path_on_compute, given.always_folder) == ("resume", DatasetInput.MODE_DOWNLOAD, "here", True)
    assert [(file.path, file.url) for file in given.files] == [("checkpoint", "datastore://workspaceblobstore/run/model/checkpoint")]
    assert not path._to_input("x").dataset._files()[0].object_key.endswith("checkpoint")
    assert store.path("run/model/checkpoint")._to_input("one").always_folder is False


def test_a_reference_made_by_hand_is_found_in_the_workspace_that_config_json_names(
    store: Datastore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, tmp_path, "data/a.gz")
    monkeypatch.setattr(Workspace, "from_config", lambda: store.workspace)

    given = DataReferenceConfiguration(datastore_name=store.name, path_on_datastore="data", mode="download")._to_input("mine")._to_message()

    assert (given.name, given.mode, [file.path for file in given.files]) == ("mine", DatasetInput.MODE_DOWNLOAD, ["a.gz"])
    with pytest.raises(UserErrorException, match="no datastore 'nope'"):
        DataReferenceConfiguration("nope")._to_input("mine")
    with pytest.raises(UserErrorException, match="names no datastore"):
        DataReferenceConfiguration()._to_input("mine")


def test_what_a_run_cannot_do_with_a_datastore_is_told(store: Datastore) -> None:
    for ask in (store.as_upload, lambda: DataPathComputeBinding(mode="upload"), lambda: DataPathComputeBinding(mode="fly")):
        with pytest.raises(UserErrorException):
            ask()


def test_names_are_registered_and_given_up(store: Datastore) -> None:
    made = Datastore.register_azure_blob_container(store.workspace, "mine", container_name="c", account_name="a", account_key="secret")

    assert sorted(store.workspace.datastores) == ["mine", "workspaceartifactstore", "workspaceblobstore"]
    assert not any(b"secret" in content for content in store.workspace._objects.kept.values())
    made.unregister()
    with pytest.raises(UserErrorException, match="there is: workspaceartifactstore, workspaceblobstore"):
        Datastore.get(store.workspace, "mine")
    with pytest.raises(UserErrorException, match="default datastore and stays"):
        store.unregister()
