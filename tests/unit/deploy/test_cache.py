from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from deploy.local import cache


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def make(folder: Path) -> None:
    (folder / "binary").write_text("whole")


def test_a_part_is_made_once_and_found_afterwards() -> None:
    made: list[Path] = []

    def count(folder: Path) -> None:
        made.append(folder)
        make(folder)

    first, second = cache.build("minio", count), cache.build("minio", count)

    assert first == second == cache.part("minio")
    assert (first / "binary").read_text() == "whole"
    assert len(made) == 1


def test_what_a_broken_off_build_left_behind_is_swept_away() -> None:
    def breaks_off(folder: Path) -> None:
        (folder / "binary").write_text("ha")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.build("minio", breaks_off)
    with pytest.raises(FileNotFoundError, match="make setup"):
        cache.part("minio")

    assert (cache.build("minio", make) / "binary").read_text() == "whole"


def test_a_folder_that_is_not_marked_as_whole_is_made_anew() -> None:
    half = cache.folder("minio")
    half.mkdir(parents=True)
    (half / "binary").write_text("ha")

    assert (cache.build("minio", make) / "binary").read_text() == "whole"
    assert sorted(path.name for path in cache.folder("minio").iterdir()) == [".complete", "binary"]


def test_another_pin_is_another_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = cache.folder("minio")
    pins = tmp_path / "versions.toml"
    pins.write_text('minio = "another"\n')
    monkeypatch.setattr(cache, "PINS", pins)

    assert cache.folder("minio") != before


def _build_slowly(entered: str, go: str) -> None:
    def slow(folder: Path) -> None:
        with open(entered, "a") as file:
            file.write("x")
        while not Path(go).exists():
            pass
        make(folder)

    cache.build("minio", slow)


def test_two_builders_at_once_make_it_once(tmp_path: Path) -> None:
    entered, go = tmp_path / "entered", tmp_path / "go"
    spawn = multiprocessing.get_context("spawn")
    builders = [spawn.Process(target=_build_slowly, args=(str(entered), str(go))) for _ in range(2)]
    for builder in builders:
        builder.start()

    while not entered.exists():
        pass
    go.touch()
    for builder in builders:
        builder.join(60)

    assert [builder.exitcode for builder in builders] == [0, 0]
    assert entered.read_text() == "x"
