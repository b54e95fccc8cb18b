from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard import Dataset, UserErrorException, _steps
from trainyard._dataset import FileDataset
from trainyard.dataset.v1.dataset_pb2 import Dataset as Message
from trainyard.dataset.v1.dataset_pb2 import SourceFile, Step

paths = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), unique=True, max_size=40)
shares = st.floats(0, 1, exclude_min=True, exclude_max=True)
seeds = st.integers(0, 2**64 - 1)


def files(names: list[str]) -> list[SourceFile]:
    return [SourceFile(path=name, size_bytes=number) for number, name in enumerate(names)]


def after(names: list[str], *steps: Any) -> list[str]:
    return [file.path for file in _steps.apply(files(names), steps)]


@given(paths, shares, seeds)
def test_the_parts_of_a_split_share_no_file_and_leave_none_out_and_keep_the_order(names: list[str], share: float, seed: int) -> None:
    first, rest = (after(names, _steps.split(share, seed, second=second)) for second in (False, True))

    assert not set(first) & set(rest)
    assert sorted(first + rest) == sorted(names)
    assert first == [name for name in names if name in first]
    assert rest == [name for name in names if name in rest]


@given(paths, paths, shares, seeds)
def test_files_that_are_added_move_no_other_file_to_the_other_part(names: list[str], more: list[str], share: float, seed: int) -> None:
    before = after(names, _steps.split(share, seed, second=False))

    larger = after(list(dict.fromkeys([*more, *names])), _steps.split(share, seed, second=False))

    assert set(before) == set(larger) & set(names)


@given(paths, st.integers(0, 50))
def test_take_and_skip_of_one_number_are_the_whole(names: list[str], count: int) -> None:
    assert after(names, _steps.take(count)) + after(names, _steps.skip(count)) == names


@given(paths, st.integers(0, 40))
def test_bounds_of_size_part_the_files(names: list[str], size: int) -> None:
    small, large = after(names, _steps.filter(max_bytes=size)), after(names, _steps.filter(min_bytes=size + 1))

    assert small + large == names


def test_a_split_is_about_as_large_as_asked() -> None:
    names = [f"images/{number}.png" for number in range(10_000)]

    assert 6800 < len(after(names, _steps.split(0.7, 1, second=False))) < 7200


def test_a_pattern_is_a_glob_as_in_gitignore() -> None:
    names = ["a/train.gz", "train.txt", "b/c/train.gz", "train.gz"]

    assert after(names, _steps.filter("*.gz")) == ["a/train.gz", "b/c/train.gz", "train.gz"]
    assert after(names, _steps.filter("/*.gz")) == ["train.gz"]
    assert after(names, _steps.filter("b/**")) == ["b/c/train.gz"]


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (Step(), "none of"),
        (Step(split=Step.Split(percentage=0)), "between 0 and 1"),
        (Step(split=Step.Split(percentage=1)), "between 0 and 1"),
        (Step(split=Step.Split(percentage=float("nan"))), "between 0 and 1"),
    ],
)
def test_what_cannot_be_applied_is_told(step: Step, why: str) -> None:
    assert why in _steps.wrong([step])


def test_more_than_a_hundred_steps_are_refused() -> None:
    assert _steps.wrong([_steps.take(1)] * 100) == ""
    assert "101 transformations" in _steps.wrong([_steps.take(1)] * 101)


# -- as a user writes them


def a_registered_dataset() -> FileDataset:
    sizes = {"a.gz": 10, "b.gz": 20, "c.txt": 30}
    listed = [SourceFile(url=f"http://h/{name}", path=f"http/h/{name}", size_bytes=size, sha256="0" * 64) for name, size in sizes.items()]
    return FileDataset([file.url for file in listed], Message(name="letters", version=2, files=listed))


def test_conditions_are_written_as_in_azure() -> None:
    letters = a_registered_dataset()
    size = letters.file_metadata["Size"]

    assert letters.filter(size > 10).to_path() == ["/http/h/b.gz", "/http/h/c.txt"]
    assert letters.filter((size >= 10) & (size < 30)).to_path() == ["/http/h/a.gz", "/http/h/b.gz"]
    assert letters.filter(size <= 10.5).filter("*.gz").to_path() == ["/http/h/a.gz"]
    assert letters.filter(size == 30).to_path() == ["/http/h/c.txt"]
    assert letters.filter(size > 10).take(1).skip(0).steps == ["filter(Size >= 11)", "take(1)", "skip(0)"]


def test_a_transformed_version_has_no_name_but_a_run_knows_where_it_came_from() -> None:
    first, rest = a_registered_dataset().random_split(0.5, seed=7)

    message = first.as_named_input("letters").as_mount()._to_message()

    assert (first.name, first.version, first.id) == (None, None, None)
    assert (message.dataset, message.version, len(message.files)) == ("letters", 2, 3)
    assert [step.split.seed for step in message.steps] == [7]
    assert sorted(first.to_path() + rest.to_path()) == sorted(a_registered_dataset().to_path())


@pytest.mark.parametrize(
    "ask",
    [
        lambda it: it.filter((it.file_metadata["Size"] > 1) | (it.file_metadata["Size"] < 1)),
        lambda it: it.filter(~(it.file_metadata["Size"] > 1)),
        lambda it: it.filter(it.file_metadata["CanSeek"]),
        lambda it: it.filter(None),
        lambda it: it.take(-1),
        lambda it: it.take(1.5),
        lambda it: it.random_split(1.5),
        lambda it: it.as_hdfs(),
        lambda it: it.as_named_input("1st"),
        lambda it: it.as_mount("../up"),
    ],
)
def test_what_has_no_meaning_is_refused_at_once(ask: Any) -> None:
    with pytest.raises(UserErrorException):
        ask(a_registered_dataset())


def test_a_filter_by_size_needs_sizes() -> None:
    unread = Dataset.File.from_files("http://h/a")

    with pytest.raises(UserErrorException, match="once the dataset is registered"):
        unread.filter(unread.file_metadata["Size"] > 1).to_path()
