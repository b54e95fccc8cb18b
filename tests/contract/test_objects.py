"""The object store, MinIO and memory: immutable files under keys."""

from __future__ import annotations

import itertools
import os
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from minio import Minio

from tests.conftest import free_port
from trainyard._errors import PlatformUnavailableException, TrainyardException, UserErrorException
from trainyard._objects import MemoryObjects, MinioObjects, ObjectMissing, Objects

pytestmark = pytest.mark.contract
_buckets = itertools.count()
ODD_KEYS = [
    "runs/r1/1/outputs/model/saved_model.pb",
    "a b/c d",
    "-rf",
    "zürich/列車/🚂",
    "100%",
    "50%off",
    "a+b",
    "a&b=c?d#e",
    "a;b,c:d@e$f",
    "'\"`*[x]{y}",
    "a" * 200,
]


@pytest.fixture(params=["memory", pytest.param("minio", marks=pytest.mark.component)])
def objects(request: pytest.FixtureRequest) -> Objects:
    if request.param == "memory":
        return MemoryObjects()
    endpoint, access_key, secret_key = request.getfixturevalue("minio_server")
    store = MinioObjects(endpoint, access_key, secret_key, f"contract-{os.getpid()}-{next(_buckets)}")
    store.make_bucket()
    return store


@pytest.mark.parametrize("key", ODD_KEYS)
def test_what_is_put_is_what_is_got(key: str, objects: Objects) -> None:
    objects.put_bytes(key, b"content")

    assert objects.get_bytes(key) == b"content"
    assert objects.exists(key)
    assert list(objects.list("")) == [key]


@pytest.mark.parametrize("key", ODD_KEYS)
def test_a_signed_url_gives_the_bytes_to_whoever_has_it(key: str, objects: Objects) -> None:
    objects.put_bytes(key, b"content")

    with urllib.request.urlopen(objects.signed_url(key, 60)) as answer:
        assert answer.read() == b"content"


@pytest.mark.parametrize("size", [0, 1, 6 << 20])
def test_files_of_any_size_go_there_and_back(size: int, objects: Objects, tmp_path: Path) -> None:
    content = os.urandom(min(size, 1000)) * (size // 1000 + 1)
    (tmp_path / "there").write_bytes(content[:size])

    objects.put_file("a/file", tmp_path / "there")
    objects.get_file("a/file", tmp_path / "back")

    assert (tmp_path / "back").read_bytes() == content[:size]
    assert objects.size("a/file") == size
    assert objects.get_bytes("a/file") == content[:size]


def test_a_key_that_is_not_there_is_missing(objects: Objects, tmp_path: Path) -> None:
    for ask in (lambda: objects.size("none"), lambda: objects.get_bytes("none"), lambda: objects.get_file("none", tmp_path / "file")):
        with pytest.raises(ObjectMissing, match="has no none") as caught:
            ask()
        assert caught.value.target == "none"
    assert not objects.exists("none")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_object(objects: Objects) -> None:
    objects.put_bytes("folder/file", b"")

    assert not objects.exists("folder")
    assert not objects.exists("folder/")


def test_keys_are_listed_by_prefix_and_sorted(objects: Objects) -> None:
    for key in ("runs/b/1", "runs/a/2", "runs/a/10", "runs/a", "snapshots/x"):
        if key != "runs/a":
            objects.put_bytes(key, b"")

    assert list(objects.list("runs/")) == ["runs/a/10", "runs/a/2", "runs/b/1"]
    assert list(objects.list("runs/a")) == ["runs/a/10", "runs/a/2"]
    assert list(objects.list("none/")) == []


def test_more_keys_than_one_answer_holds_are_listed(objects: Objects) -> None:
    keys = [f"many/{number:04}" for number in range(1100)]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: objects.put_bytes(key, b""), keys))

    assert list(objects.list("many/")) == keys


def test_a_second_put_replaces_the_first(objects: Objects) -> None:
    objects.put_bytes("key", b"first")
    objects.put_bytes("key", b"2nd")

    assert objects.get_bytes("key") == b"2nd"
    assert objects.size("key") == 3


def test_a_file_is_got_in_the_place_of_another(objects: Objects, tmp_path: Path) -> None:
    objects.put_bytes("key", b"new")
    (tmp_path / "file").write_bytes(b"something older and longer")

    objects.get_file("key", tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == b"new"


def test_what_is_removed_is_gone_and_may_be_removed_again(objects: Objects) -> None:
    objects.put_bytes("key", b"content")

    objects.remove("key")
    objects.remove("key")

    assert not objects.exists("key")


def test_a_file_that_is_not_there_is_the_callers_mistake_and_not_the_stores(objects: Objects, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        objects.put_file("key", tmp_path / "none")

    assert not objects.exists("key")


def test_several_threads_may_use_it_at_once(objects: Objects) -> None:
    def use(number: int) -> None:
        for step in range(20):
            objects.put_bytes(f"t/{number}/{step}", f"{number} {step}".encode())
            assert objects.get_bytes(f"t/{number}/{step}") == f"{number} {step}".encode()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(4)))

    assert len(list(objects.list("t/"))) == 80


@pytest.mark.component
def test_a_store_that_is_away_is_unavailable() -> None:
    objects = MinioObjects(f"127.0.0.1:{free_port()}", "a", "b", "bucket")

    with pytest.raises(PlatformUnavailableException, match="does not answer"):
        objects.get_bytes("key")
    with pytest.raises(PlatformUnavailableException, match="does not answer"):
        list(objects.list(""))


@pytest.mark.component
def test_keys_that_are_refused_are_told_apart_from_a_store_that_is_away(minio_server: tuple[str, str, str]) -> None:
    endpoint, _, _ = minio_server
    objects = MinioObjects(endpoint, "nobody", "wrong-secret", "bucket")

    with pytest.raises(TrainyardException, match="refused") as caught:
        objects.get_bytes("key")

    assert not isinstance(caught.value, (PlatformUnavailableException, ObjectMissing))


@pytest.mark.component
def test_a_bucket_is_made_once(minio_server: tuple[str, str, str]) -> None:
    objects = MinioObjects(*minio_server, f"contract-{os.getpid()}-once")
    objects.make_bucket()
    objects.put_bytes("key", b"content")

    objects.make_bucket()

    assert objects.get_bytes("key") == b"content"


# -- parts, streams and listings

PART = 5 << 20


def blocks(count: int) -> list[bytes]:
    """Parts of the least size that the store takes, and a short last one."""
    return [bytes([number]) * PART for number in range(count)] + [b"end"]


def test_parts_become_one_object(objects: Objects) -> None:
    objects.put_parts("big", blocks(3))

    assert objects.size("big") == 3 * PART + 3
    assert b"".join(objects.read("big", 2 * PART)) == bytes([2]) * PART + b"end"


def test_an_object_is_read_from_an_offset_on(objects: Objects) -> None:
    objects.put_bytes("key", b"0123456789")

    assert b"".join(objects.read("key")) == b"0123456789"
    assert b"".join(objects.read("key", 7)) == b"789"
    with pytest.raises(ObjectMissing):
        list(objects.read("none"))


def test_parts_that_break_off_leave_no_object(objects: Objects) -> None:
    def broken() -> Iterator[bytes]:
        yield from blocks(2)[:2]
        raise UserErrorException("the file changed")

    with pytest.raises(UserErrorException, match="the file changed"):
        objects.put_parts("big", broken())

    assert not objects.exists("big")
    objects.put_parts("big", blocks(1))
    assert objects.size("big") == PART + 3


@pytest.mark.component
def test_parts_that_a_broken_attempt_has_sent_are_not_sent_again(
    minio_server: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, access_key, secret_key = minio_server
    objects = MinioObjects(endpoint, access_key, secret_key, f"contract-{os.getpid()}-{next(_buckets)}")
    objects.make_bucket()
    sent: list[int] = []
    upload = Minio._upload_part

    def counted(self: Minio, *arguments: Any) -> Any:
        sent.append(arguments[-1])
        return upload(self, *arguments)

    def broken() -> Iterator[bytes]:
        yield from blocks(2)[:2]
        raise ConnectionError("cut")

    monkeypatch.setattr(Minio, "_upload_part", counted)
    with pytest.raises(PlatformUnavailableException):
        objects.put_parts("big", broken())
    # One of the parts is another now; only this one and the new one go again.
    objects.put_parts("big", [blocks(2)[0], b"x" * PART, b"end"])

    assert sorted(sent) == [1, 2, 2, 3]
    assert b"".join(objects.read("big")) == blocks(2)[0] + b"x" * PART + b"end"


def test_a_listing_tells_sizes_and_which_was_written_last(objects: Objects) -> None:
    for key in ("d/b", "d/a", "e"):
        objects.put_bytes(key, key.encode())

    found = list(objects.entries("d/"))

    assert [(entry.key, entry.size) for entry in found] == [("d/a", 3), ("d/b", 3)]
    assert found[0].modified > found[1].modified
