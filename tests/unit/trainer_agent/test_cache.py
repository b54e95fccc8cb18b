"""The node's cache: what may go when it is full, and what may not."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

from services.trainer_agent.adapters.blobs import Blobs
from services.trainer_agent.adapters.data import Data
from trainyard._objects import MemoryObjects
from trainyard.dataset.v1.dataset_pb2 import SourceFile

KB = 1000


def content(name: str) -> bytes:
    return name.encode() * KB


def digest(name: str) -> str:
    return hashlib.sha256(content(name)).hexdigest()


def keep(blobs: Blobs, name: str, used_at: float = 0.0) -> Path:
    with blobs.part(digest(name)) as part:
        part.write_bytes(content(name))
        path, _ = blobs.take_in(part, digest(name))
    os.utime(path.with_name(f"{path.name}.seen"), (used_at, used_at))
    return path


def there(blobs: Blobs, names: str) -> str:
    return "".join(name for name in names if blobs.path(digest(name)).exists())


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, budget_bytes=4 * KB)
    for age, name in enumerate("abcd"):
        keep(blobs, name, used_at=age)

    blobs.get(digest("a"))
    fits = blobs.make_room(2 * KB)

    assert fits
    assert there(blobs, "abcd") == "ad"


def test_nothing_goes_while_there_is_room_or_no_bound(tmp_path: Path) -> None:
    for blobs in (Blobs(tmp_path / "bounded", budget_bytes=2 * KB), Blobs(tmp_path / "free")):
        keep(blobs, "a")

        assert blobs.make_room(KB)
        assert there(blobs, "a") == "a"


def test_what_is_in_use_stays_and_lack_of_room_is_told(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "cache", budget_bytes=3 * KB)
    for name in "abc":
        keep(blobs, name)
    os.link(blobs.path(digest("a")), tmp_path / "mounted")

    with blobs.use() as lease:
        lease.name(digest("b"))
        fits = blobs.make_room(3 * KB)

    assert not fits
    assert there(blobs, "abc") == "ab"
    (tmp_path / "mounted").unlink()
    assert blobs.make_room(3 * KB)
    assert there(blobs, "abc") == ""


def test_a_beginning_that_was_left_behind_counts_and_goes_unless_somebody_fills_it(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, budget_bytes=2 * KB)
    for name in "ab":
        with blobs.part(digest(name)) as part:
            part.write_bytes(content(name))

    with blobs.part(digest("a")) as filled:
        blobs.make_room(2 * KB)
        assert filled.exists()

    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == [digest("a")]


def test_a_file_is_filled_by_one_and_whoever_waits_finds_it(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    filled: list[str] = []

    def want() -> None:
        with blobs.part(digest("a")) as part:
            if blobs.get(digest("a")) is None:
                filled.append("filled")
                part.write_bytes(content("a"))
                blobs.take_in(part, digest("a"))

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert filled == ["filled"]
    assert blobs.get(digest("a")) is not None
    assert list((tmp_path / "parts").iterdir()) == []


def test_data_beyond_the_budget_are_placed_and_said_so(tmp_path: Path) -> None:
    objects, said = MemoryObjects(), []
    for name in "abc":
        objects.put_bytes(f"datastores/blobs/{digest(name)}", content(name))
    data = Data(Blobs(tmp_path / "cache", budget_bytes=2 * KB), objects)
    sources = [
        SourceFile(
            url=f"datastore://d/{name}", path=name, size_bytes=KB, sha256=digest(name), object_key=f"datastores/blobs/{digest(name)}"
        )
        for name in "abc"
    ]

    data.place([(source, tmp_path / "run" / source.path) for source in sources], writable=False, say=said.append)

    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["a", "b", "c"]
    assert len(said) == 1 and "more than its budget" in said[0]
