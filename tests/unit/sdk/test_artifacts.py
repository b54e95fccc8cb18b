"""Lists of files: in the event itself, or in objects that it names."""

from __future__ import annotations

import pytest

from trainyard import _artifacts
from trainyard._artifacts import count, for_event, is_listed, resolve, together
from trainyard._objects import MemoryObjects
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet


def listed(*paths: str, whose: str = "a") -> ArtifactSet:
    return ArtifactSet(files=[Artifact(path=path, sha256=whose * 64, object_key=f"{whose}/{path}") for path in paths])


def seen(files: ArtifactSet) -> list[tuple[str, str]]:
    return [(file.path, file.sha256[0]) for file in files.files]


def test_sets_that_are_listed_become_one_list_in_which_the_earlier_set_counts() -> None:
    found = together(listed("c", "b"), listed("a", "b", whose="z"))

    assert seen(found) == [("a", "z"), ("b", "a"), ("c", "a")]


def test_a_list_that_lies_elsewhere_is_named_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainyard._artifacts.MOST_BYTES_IN_EVENT", 0)
    objects = MemoryObjects()
    long = for_event(objects, "runs/r/1", listed("b", "c", whose="z"))

    found = together(listed("a", "b"), long)
    again = together(found, listed("d", "c", whose="y"))

    assert together(long) == together(long, ArtifactSet()) == long
    assert not is_listed(found) and count(found) == 4
    assert seen(resolve(objects, found)) == [("a", "a"), ("b", "a"), ("c", "z")]
    assert seen(resolve(objects, again)) == [("a", "a"), ("b", "a"), ("c", "z"), ("d", "y")]


def test_what_a_message_lists_itself_is_known_by_path_and_the_earlier_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainyard._artifacts.MOST_BYTES_IN_EVENT", 0)
    long = for_event(MemoryObjects(), "runs/r/1", listed("z"))

    found = _artifacts.listed(together(listed("a"), long, listed("a", "b", whose="y")))

    assert {path: file.sha256[0] for path, file in found.items()} == {"a": "a", "b": "y"}
