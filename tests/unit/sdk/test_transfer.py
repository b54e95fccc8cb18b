from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainyard import _artifacts, _transfer
from trainyard._errors import PlatformUnavailableException, TrainyardException
from trainyard._objects import MemoryObjects
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactList, ArtifactSet


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Breaking(MemoryObjects):
    """Breaks off after so many blocks, as often as asked."""

    def __init__(self, breaks: int, blocks: int = 1) -> None:
        super().__init__()
        self.breaks = breaks
        self.blocks = blocks
        self.starts: list[int] = []

    def read(self, key: str, start: int = 0) -> Iterator[bytes]:
        self.starts.append(start)
        for number, block in enumerate(super().read(key, start)):
            if self.breaks and number == self.blocks:
                self.breaks -= 1
                raise PlatformUnavailableException("cut")
            yield block


DATA = bytes(range(256)) * 16 * 1024  # 4 MiB


def receive(objects: MemoryObjects, target: Path, data: bytes = DATA) -> None:
    _transfer.receive(objects, "key", target, size=len(data), sha256=sha256(data))


def test_a_download_that_breaks_goes_on_where_it_ended(tmp_path: Path) -> None:
    objects = Breaking(breaks=2)
    objects.put_bytes("key", DATA)

    receive(objects, tmp_path / "new" / "file")

    assert (tmp_path / "new/file").read_bytes() == DATA
    assert objects.starts == [0, 1 << 20, 2 << 20]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_what_came_before_an_outage_is_not_fetched_again(tmp_path: Path) -> None:
    objects = Breaking(breaks=99, blocks=1)
    objects.put_bytes("key", DATA)
    objects.breaks, objects.blocks = 10, 0
    with pytest.raises(PlatformUnavailableException):
        receive(objects, tmp_path / "file")
    assert not (tmp_path / "file").exists()
    next(tmp_path.iterdir()).write_bytes(DATA[: 3 << 20])
    objects.breaks = 0
    objects.starts.clear()

    receive(objects, tmp_path / "file")

    assert objects.starts == [3 << 20]
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_spoilt_beginning_is_thrown_away(tmp_path: Path) -> None:
    objects = Breaking(breaks=0)
    objects.put_bytes("key", DATA)
    part = tmp_path / "part"
    part.write_bytes(b"x" * 100)

    _transfer.fill(objects, "key", part, size=len(DATA), sha256=sha256(DATA))

    assert objects.starts == [100, 0]
    assert part.read_bytes() == DATA


def test_other_bytes_than_those_named_never_reach_the_target(tmp_path: Path) -> None:
    objects = MemoryObjects()
    objects.put_bytes("key", b"other")

    with pytest.raises(_transfer.WrongBytes):
        receive(objects, tmp_path / "file", b"these")

    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    objects = MemoryObjects()
    objects.put_bytes("key", b"")

    receive(objects, tmp_path / "file", b"")

    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize("size", [0, 10, (8 << 20) + 1, 33 << 20])
def test_the_digest_is_that_of_the_bytes_as_sent(tmp_path: Path, size: int) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    (tmp_path / "file").write_bytes(data)
    objects = MemoryObjects()
    passed: list[int] = []

    sent = _transfer.send(objects, "key", tmp_path / "file", told=passed.append)

    assert (sent.size, sent.sha256, sum(passed)) == (size, sha256(data), size)
    assert objects.get_bytes("key") == data


@pytest.mark.parametrize("size", [10, 9 << 20])
def test_a_file_that_changed_leaves_nothing_under_the_digest_of_another(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(b"x" * size)
    objects = MemoryObjects()

    with pytest.raises(_transfer.ChangedWhileSent, match="file changed"):
        _transfer.send(objects, "key", tmp_path / "file", sha256=sha256(b"y" * size))

    assert objects.kept == {}


# -- lists of files


def files(*paths: str, mark: str = "1") -> list[Artifact]:
    return [Artifact(path=path, size_bytes=1, sha256=mark * 64, object_key=f"runs/r/{mark}/{path}") for path in paths]


def test_a_short_list_stays_in_the_event_and_a_long_one_is_named() -> None:
    objects = MemoryObjects()
    short, long = ArtifactSet(files=files("a", "b")), ArtifactSet(files=files(*(f"{number:05}" for number in range(10_000))))

    assert _artifacts.for_event(objects, "runs/r/1", short) is short
    named = _artifacts.for_event(objects, "runs/r/1", long)

    assert named.ByteSize() < 1000 and _artifacts.count(named) == 10_000
    assert _artifacts.resolve(objects, named) == long
    assert _artifacts.resolve(objects, short) == short


def test_of_several_nodes_lists_the_first_that_has_a_path_counts() -> None:
    objects = MemoryObjects()
    content = ArtifactSet(files=files("b", "c", mark="2")).SerializeToString(deterministic=True)
    objects.put_bytes("list", content)
    second = ArtifactList(manifest_key="list", manifest_sha256=sha256(content), count=2)

    whole = _artifacts.resolve(objects, ArtifactSet(parts=[ArtifactList(files=files("a", "b")), second]))

    assert [(file.path, file.sha256[0]) for file in whole.files] == [("a", "1"), ("b", "1"), ("c", "2")]


def test_a_list_that_was_tampered_with_is_refused() -> None:
    objects = MemoryObjects()
    objects.put_bytes("list", b"")

    with pytest.raises(TrainyardException, match="its digest differs"):
        _artifacts.resolve(objects, ArtifactSet(manifest_key="list", manifest_sha256="0" * 64, count=1))
