"""Models in an object store, with a store that does what the test says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import pytest

from services.serving.model_server.config_files import BadConfig
from services.serving.model_server.errors import ServeError
from services.serving.model_server.minio_store import store_from
from services.serving.model_server.object_store import Entry, Mirror, Store, StoreAway, parsed
from services.serving.model_server.sources import Sources
from services.serving.model_server.versions import ModelConfig, check_change
from services.serving.standalone import needs_store

BASE = "s3://models/mnist"


class FakeStore:
    where = "http://store"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.away = False
        self.garbled: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.knows_digests = True

    def put(self, version: int, **files: bytes) -> None:
        for name, content in files.items():
            self.objects[f"mnist/{version}/{name}"] = content

    def list(self, bucket: str, prefix: str) -> Iterable[Entry]:
        if self.away:
            raise StoreAway("it does not answer")
        return [
            Entry(key[len(prefix) :], len(content), hashlib.md5(content, usedforsecurity=False).hexdigest())
            for key, content in self.objects.items()
            if key.startswith(prefix)
        ]

    def get(self, bucket: str, key: str, etag: str, file: Path) -> str:
        if self.away:
            raise StoreAway("it does not answer")
        self.fetched.append(key)
        file.write_bytes(self.garbled.get(key, self.objects[key]))
        return etag if self.knows_digests else ""


@pytest.fixture
def store() -> FakeStore:
    made = FakeStore()
    made.put(1, graph=b"one", weights=b"1")
    made.put(2, graph=b"two", weights=b"2")
    return made


def files(folder: Path) -> dict[str, bytes]:
    return {str(it.relative_to(folder)): it.read_bytes() for it in folder.rglob("*") if it.is_file()}


def test_versions_are_folders_with_numbers_and_each_is_fetched_once(store: FakeStore, tmp_path: Path) -> None:
    store.objects |= {"mnist/notes.txt": b"x", "mnist/latest/graph": b"x", "mnist/3": b"no folder", "other/7/graph": b"x"}
    mirror = Mirror(store, tmp_path)

    found = mirror.versions(BASE)
    paths = {version: path for version, (path, _) in found.items()}

    assert paths == {1: f"{BASE}/1", 2: f"{BASE}/2"}
    assert files(mirror.folder(paths[2])) == {"graph": b"two", "weights": b"2"}
    assert mirror.folder(paths[2]) == mirror.folder(paths[2])
    assert store.fetched == ["mnist/2/graph", "mnist/2/weights"]


def test_a_folder_with_zeros_in_front_of_its_number_keeps_its_name_and_other_digits_are_no_number(store: FakeStore, tmp_path: Path) -> None:
    store.objects |= {"mnist/0003/graph": b"three", "mnist/02/graph": b"other", "mnist/\u0661\u0662/graph": b"twelve"}
    mirror = Mirror(store, tmp_path)

    paths = {version: path for version, (path, _) in mirror.versions(BASE).items()}
    assert paths == {1: f"{BASE}/1", 2: f"{BASE}/2", 3: f"{BASE}/0003"}
    kept = mirror.folder(paths[3])
    assert files(kept) == {"graph": b"three"}
    Mirror(store, tmp_path).versions(BASE)  # the next start sweeps
    store.away = True
    after = Mirror(store, tmp_path)
    again = after.versions(BASE)
    assert {version: path for version, (path, _) in again.items()} == {3: paths[3]}
    assert after.folder(paths[3]) == kept


def test_a_version_that_is_still_uploaded_changes_between_two_looks(store: FakeStore, tmp_path: Path) -> None:
    mirror = Mirror(store, tmp_path)

    before = mirror.versions(BASE)
    store.put(2, more=b"")
    after = mirror.versions(BASE)

    assert before[1] == after[1]
    assert before[2] != after[2]


def test_what_is_replaced_gets_a_folder_of_its_own(store: FakeStore, tmp_path: Path) -> None:
    mirror = Mirror(store, tmp_path)

    before = mirror.folder(f"{BASE}/1")
    store.put(1, graph=b"new")
    after = mirror.folder(f"{BASE}/1")

    assert (files(before)["graph"], files(after)["graph"]) == (b"one", b"new")


@pytest.mark.parametrize(
    ("content", "told"), [(b"longer than it was", "18 bytes in place of 3"), (b"TWO", "other bytes than its tag says")]
)
def test_bytes_that_are_not_what_was_listed_are_never_served(store: FakeStore, tmp_path: Path, content: bytes, told: str) -> None:
    mirror = Mirror(store, tmp_path)
    store.garbled["mnist/2/graph"] = content

    with pytest.raises(StoreAway, match=told):
        mirror.folder(f"{BASE}/2")
    assert not [it for it in tmp_path.rglob("*") if it.is_file()]
    store.garbled.clear()

    assert files(mirror.folder(f"{BASE}/2"))["graph"] == b"two"


@pytest.mark.parametrize("name", ["../../evil", "/evil", "a//b", "./a"])
def test_a_name_that_leads_out_of_the_folder_is_no_file(store: FakeStore, tmp_path: Path, name: str) -> None:
    store.objects[f"mnist/2/{name}"] = b"x"

    with pytest.raises(StoreAway, match="has a name that no folder can hold"):
        Mirror(store, tmp_path / "cache").folder(f"{BASE}/2")
    assert not (tmp_path / "evil").exists()


def test_a_store_that_is_away_is_no_wish_to_unload(store: FakeStore, tmp_path: Path) -> None:
    mirror = Mirror(store, tmp_path)
    mirror.versions(BASE)
    kept = mirror.folder(f"{BASE}/2")

    store.away = True

    with pytest.raises(StoreAway):
        mirror.versions(BASE)
    assert mirror.folder(f"{BASE}/2") == kept
    with pytest.raises(StoreAway):
        mirror.folder(f"{BASE}/1")  # it never came


def test_a_start_without_the_store_serves_what_was_published_last(store: FakeStore, tmp_path: Path) -> None:
    before = Mirror(store, tmp_path)
    for version in (1, 2):
        before.versions(BASE)
        before.folder(f"{BASE}/{version}")
    del store.objects["mnist/2/graph"], store.objects["mnist/2/weights"]
    before.versions(BASE)  # somebody has gone back to version 1
    store.away = True

    after = Mirror(store, tmp_path)

    assert {version: path for version, (path, _) in after.versions(BASE).items()} == {1: f"{BASE}/1"}
    assert files(after.folder(f"{BASE}/1"))["graph"] == b"one"


def test_what_nobody_publishes_any_more_leaves_the_disk_at_the_next_start(store: FakeStore, tmp_path: Path) -> None:
    before = Mirror(store, tmp_path)
    before.versions(BASE)
    old, new = before.folder(f"{BASE}/1"), before.folder(f"{BASE}/2")
    del store.objects["mnist/1/graph"], store.objects["mnist/1/weights"]

    Mirror(store, tmp_path).versions(BASE)

    assert (old.exists(), new.exists()) == (False, True)


def test_what_lay_in_a_versions_place_before_goes_once_nobody_serves_it_and_the_new_is_here(store: FakeStore, tmp_path: Path) -> None:
    mirror, another = Mirror(store, tmp_path), Mirror(store, tmp_path)
    with another.held(f"{BASE}/1") as before:
        store.put(1, graph=b"new")
        with mirror.held(f"{BASE}/1") as after:
            mirror.versions(BASE)
            assert before.is_dir()
    store.put(1, graph=b"newer still")
    mirror.versions(BASE)
    assert before.is_dir()  # where the store goes away now it is all there is, beside the one after it
    assert after.is_dir()

    newest = mirror.folder(f"{BASE}/1")
    mirror.versions(BASE)

    assert list(newest.parent.iterdir()) == [newest]


def test_what_nobody_publishes_any_more_leaves_the_disk_once_nobody_serves_it(store: FakeStore, tmp_path: Path) -> None:
    mirror, another = Mirror(store, tmp_path), Mirror(store, tmp_path)
    with another.held(f"{BASE}/1") as old, mirror.held(f"{BASE}/2") as new:
        del store.objects["mnist/1/graph"], store.objects["mnist/1/weights"]
        mirror.versions(BASE)
        assert files(old) == {"graph": b"one", "weights": b"1"}
    mirror.versions(BASE)

    assert (old.parent.exists(), new.exists()) == (False, True)


# -- the words


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("s3://models", ("models", "")),
        ("s3://models/", ("models", "")),
        ("s3://models/a/b", ("models", "a/b/")),
        ("s3://models/a/b//", ("models", "a/b/")),
    ],
)
def test_a_path_is_a_bucket_and_what_lies_in_it(path: str, meant: tuple[str, str]) -> None:
    assert parsed(path) == meant


@pytest.mark.parametrize("path", ["s3://", "s3:///a", "s3://Models/a", "s3://m/a", "s3://models/../keys", "s3://models/a\nb"])
def test_a_path_that_names_no_folder_is_told(path: str) -> None:
    with pytest.raises(BadConfig, match="write s3://BUCKET/PREFIX"):
        parsed(path)


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, "set AWS_ENDPOINT_URL"),
        ({"AWS_ENDPOINT_URL": "ftp://store"}, "no address of an object store"),
        ({"AWS_ENDPOINT_URL": "http://store/bucket"}, "no address of an object store"),
        ({"AWS_ENDPOINT_URL": "http://"}, "no address of an object store"),
    ],
)
def test_an_object_store_that_cannot_be_found_is_told(environment: dict[str, str], told: str) -> None:
    with pytest.raises(BadConfig, match=told):
        store_from(environment)


@pytest.mark.parametrize(
    ("environment", "where"),
    [
        ({"AWS_ENDPOINT_URL": "https://s3.example", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}, "https://s3.example"),
        ({"AWS_ENDPOINT_URL_S3": "http://one:9000", "AWS_ENDPOINT_URL": "http://two:9000"}, "http://one:9000"),
        ({"MINIO_ENDPOINT": "127.0.0.1:9000", "MINIO_ACCESS_KEY": "a", "MINIO_SECRET_KEY": "b"}, "http://127.0.0.1:9000"),
        ({"AWS_ENDPOINT_URL": "http://me:secret@store:9000"}, "http://store:9000"),
    ],
)
def test_the_usual_names_say_where_the_store_is(environment: dict[str, str], where: str) -> None:
    assert store_from(environment).where == where


def test_without_the_package_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "minio", None)

    with pytest.raises(BadConfig, match="pip install minio"):
        store_from({"AWS_ENDPOINT_URL": "http://store"})


def test_the_store_is_asked_for_at_the_first_model_that_lies_in_one(store: FakeStore, tmp_path: Path) -> None:
    (tmp_path / "here" / "4").mkdir(parents=True)
    made: list[str] = []

    def make() -> Store:
        made.append("made")
        return store

    sources = Sources(tmp_path / "cache", make)
    here, there = ModelConfig("here", str(tmp_path / "here")), ModelConfig("there", BASE)
    (tmp_path / "here" / "\u0661\u0662").mkdir()  # digits of another script
    sources.check([here])
    with sources.held("/a") as folder:
        assert (list(sources.versions(here)), folder, made) == ([4], Path("/a"), [])

    sources.check([here, there])

    assert (sorted(sources.versions(there)), made) == ([1, 2], ["made"])
    with sources.held(f"{BASE}/1") as folder:
        assert files(folder)["weights"] == b"1"


def test_a_list_that_comes_by_request_is_told_what_is_wrong_with_the_store(tmp_path: Path) -> None:
    sources = Sources(tmp_path, lambda: store_from({}))

    with pytest.raises(OSError, match="set AWS_ENDPOINT_URL"):
        sources.versions(ModelConfig("there", BASE))
    check_change({}, [ModelConfig("there", BASE)])
    with pytest.raises(ServeError, match="absolute path or URI"):
        check_change({}, [ModelConfig("there", "s3:models")])


def test_the_executable_sees_from_its_arguments_whether_a_store_is_needed(tmp_path: Path) -> None:
    remote, local = tmp_path / "remote.config", tmp_path / "local.config"
    remote.write_text('model_config_list { config { name: "a" base_path: "s3://models/a" } }')
    local.write_text('model_config_list { config { name: "a" base_path: "/models/a" } }')

    assert needs_store(["--model_base_path=s3://models/a"])
    assert needs_store(["--model-base-path", "s3://models/a"])
    assert needs_store([f"--model_config_file={remote}"])
    assert needs_store(["--model-config-file", str(remote)])
    assert not needs_store([f"--model_config_file={local}", "--model_name=s3"])
    assert not needs_store(["--model_config_file=/nowhere"])
    assert not needs_store(["--model_config_file"])
