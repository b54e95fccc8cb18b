"""Data larger than the cache: files are fetched as they are opened. Runs where /dev/fuse may be used and Debian's libfuse is there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.trainer_agent.adapters import lazy
from services.trainer_agent.adapters.blobs import Blobs
from services.trainer_agent.adapters.data import Data
from trainyard._objects import MinioObjects
from trainyard.dataset.v1.dataset_pb2 import SourceFile

pytestmark = [pytest.mark.component, pytest.mark.skipif(not lazy.is_possible(), reason="needs /dev/fuse, libfuse and mfusepy")]
NAMES = ("a", "deep/b", "deep/er/c d")
SIZE = 300_000


def content(name: str) -> bytes:
    return (name.encode() * SIZE)[:SIZE]


@pytest.fixture
def objects(minio_server: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MinioObjects:
    endpoint, access_key, secret_key = minio_server
    store = MinioObjects(endpoint, access_key, secret_key, f"lazy-{os.getpid()}")
    store.make_bucket()
    settings = {"ENDPOINT": endpoint, "ACCESS_KEY": access_key, "SECRET_KEY": secret_key, "BUCKET": store.bucket}
    for name, value in settings.items():
        monkeypatch.setenv(f"TRAINYARD_OBJECT_STORE__{name}", value)
    monkeypatch.setenv("TRAINYARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRAINYARD_AGENT__CACHE_BYTES", str(2 * SIZE))
    return store


@pytest.fixture
def lent(objects: MinioObjects, tmp_path: Path) -> Iterator[Path]:
    files = []
    for name in NAMES:
        sha256 = hashlib.sha256(content(name)).hexdigest()
        objects.put_bytes(f"datastores/blobs/{sha256}", content(name))
        key = f"datastores/blobs/{sha256}"
        files.append((SourceFile(url=f"datastore://d/{name}", path=name, size_bytes=SIZE, sha256=sha256, object_key=key), name))
    folder = tmp_path / "data"
    folder.mkdir()
    assert Data(Blobs(tmp_path / "cache/blobs", 2 * SIZE), objects).lend(files, folder)
    yield folder
    lazy.detach_below(folder)


def cached(tmp_path: Path) -> int:
    return len([path for path in (tmp_path / "cache/blobs").rglob("*") if len(path.name) == 64])


def test_files_are_listed_at_once_and_fetched_as_they_are_opened_within_the_budget(lent: Path, tmp_path: Path) -> None:
    listed = sorted(str(path.relative_to(lent)) for path in lent.rglob("*") if path.is_file())
    sizes = {path.stat().st_size for path in lent.rglob("*") if path.is_file()}
    before = cached(tmp_path)

    read = {name: (lent / name).read_bytes() == content(name) for name in NAMES}

    assert (listed, sizes, before) == (sorted(NAMES), {SIZE}, 0)
    assert read == dict.fromkeys(NAMES, True)
    assert cached(tmp_path) == 2


def test_an_open_file_is_kept_whatever_else_is_read_and_nothing_can_be_written(lent: Path, tmp_path: Path) -> None:
    with (lent / "a").open("rb") as held:
        for name in NAMES[1:]:
            (lent / name).read_bytes()
        kept = (tmp_path / "cache/blobs").rglob(hashlib.sha256(content("a")).hexdigest())

        assert len(list(kept)) == 1 and held.read() == content("a")
    with pytest.raises(OSError):
        (lent / "a").write_bytes(b"x")
    with pytest.raises(OSError):
        (lent / "new").write_bytes(b"x")
    with pytest.raises(FileNotFoundError):
        (lent / "none").read_bytes()


def test_a_mount_is_gone_with_its_folder(lent: Path) -> None:
    lazy.detach_below(lent.parent)

    assert not os.path.ismount(lent) and list(lent.iterdir()) == []


def test_what_the_cache_can_hold_is_not_lent(objects: MinioObjects, tmp_path: Path) -> None:
    source = SourceFile(url="datastore://d/a", path="a", size_bytes=SIZE, sha256="0" * 64)

    assert not Data(Blobs(tmp_path / "cache/blobs", 2 * SIZE), objects).lend([(source, "a")], tmp_path)
