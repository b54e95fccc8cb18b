from __future__ import annotations

from collections.abc import Sequence

import pytest

from services.dataset.adapters.datastore_sources import StoredOrOther
from services.dataset.ports import Progress, Unreachable
from trainyard._datastore_files import blob_key, mark_key
from trainyard._objects import MemoryObjects
from trainyard.dataset.v1.dataset_pb2 import SourceFile


class Web:
    async def read(self, urls: Sequence[str], progress: Progress) -> list[SourceFile]:
        return [SourceFile(url=url, path=f"web/{url[-1]}") for url in urls]


def a_store(*paths: str) -> MemoryObjects:
    objects = MemoryObjects()
    for number, path in enumerate(paths):
        objects.put_bytes(mark_key("d", path, number, f"{number}" * 64), b"")
    return objects


def nobody(files: int, size: int) -> None:
    """Nobody listens."""


async def test_sources_of_both_kinds_are_read_where_they_are() -> None:
    sources = StoredOrOther(a_store("m/a", "m/b"), Web())

    found = await sources.read(["datastore://d/m/*", "http://h/x"], nobody)

    assert [(file.path, file.size_bytes, file.sha256[:1], file.object_key) for file in found] == [
        ("web/x", 0, "", ""),
        ("a", 0, "0", blob_key("0" * 64)),
        ("b", 1, "1", blob_key("1" * 64)),
    ]


async def test_a_place_with_no_file_is_unreachable_and_says_what_there_is() -> None:
    with pytest.raises(Unreachable, match=r"has no file 'm/\*.gz'; it has: m/a") as caught:
        await StoredOrOther(a_store("m/a"), Web()).read(["datastore://d/m/*.gz"], nobody)

    assert caught.value.url == "datastore://d/m/*.gz"


@pytest.mark.parametrize("urls", [["datastore://d/a/x", "datastore://e/b/x"], ["datastore://d/a/x", "datastore://e/b/x/y"]])
async def test_files_of_two_datastores_that_cannot_lie_beside_each_other_are_refused(urls: list[str]) -> None:
    objects = a_store("a/x")
    for path in ("b/x", "b/x/y"):
        objects.put_bytes(mark_key("e", path, 1, "1" * 64), b"")
    asked = ["datastore://d/a/", "datastore://e/b/"] if urls[1].endswith("y") else urls

    with pytest.raises(Unreachable, match="would"):
        await StoredOrOther(objects, Web()).read(asked, nobody)
