"""Which files are saved while a script may be writing any of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from services.trainer_agent import checkpoint_sets
from services.trainer_agent.checkpoint_sets import Seen, is_index, quiet, with_names_of

WHOLE = ["ckpt-1.index", "ckpt-1.data-00000-of-00001"]


def index(*names: str) -> str:
    newest = f'model_checkpoint_path: "{names[0]}"\n'
    return newest + "".join(f'all_model_checkpoint_paths: "{name}"\n' for name in names)


def chosen(
    there: Collection[str], quiet: Collection[str], indexes: Mapping[str, str], folder: str, younger: Collection[str] = ()
) -> list[str] | None:
    """Of files that are as old as each other but for those that are younger."""
    return checkpoint_sets.chosen({path: Seen(1, 1 + (path in younger), 1) for path in there}, quiet, indexes, folder)


def test_a_file_is_quiet_once_it_is_the_same_at_two_looks() -> None:
    before = {"same": Seen(1, 1, 1), "grown": Seen(1, 1, 2), "replaced": Seen(1, 1, 3), "gone": Seen(1, 1, 4)}
    now = {"same": Seen(1, 1, 1), "grown": Seen(2, 2, 2), "replaced": Seen(1, 1, 5), "new": Seen(1, 1, 6)}

    assert quiet(before, now) == {"same"}


def test_what_is_not_quiet_is_left_out() -> None:
    assert chosen(["a", "b"], ["a"], {}, "/f") == ["a"]


def test_a_checkpoint_that_its_index_names_needs_no_quiet_and_the_index_comes_last() -> None:
    found = chosen([*WHOLE, "checkpoint", "zero", "busy"], ["zero"], {"checkpoint": index("ckpt-1")}, "/f")

    assert found == ["ckpt-1.data-00000-of-00001", "ckpt-1.index", "zero", "checkpoint"]


def test_a_set_whose_index_names_a_missing_file_is_none() -> None:
    for missing in WHOLE:
        there = [name for name in [*WHOLE, "checkpoint", "a"] if name != missing]
        assert chosen(there, ["a"], {"checkpoint": index("ckpt-1")}, "/f") is None


def test_a_shard_that_is_missing_makes_a_checkpoint_half() -> None:
    there = ["c.index", "c.data-00000-of-00002", "checkpoint"]

    assert chosen(there, there, {"checkpoint": index("c")}, "/f") is None
    assert chosen([*there, "c.data-00001-of-00002"], [], {"checkpoint": index("c")}, "/f") is not None


def test_a_checkpoint_that_is_being_written_again_under_its_name_is_half_until_it_is_quiet() -> None:
    there = [*WHOLE, "checkpoint"]

    for file in WHOLE:
        assert chosen(there, [], {"checkpoint": index("ckpt-1")}, "/f", younger=[file]) is None
    assert chosen(there, WHOLE, {"checkpoint": index("ckpt-1")}, "/f", younger=WHOLE) is not None


def test_an_older_checkpoint_that_is_gone_hinders_nothing() -> None:
    found = chosen([*WHOLE, "checkpoint"], [], {"checkpoint": index("ckpt-1", "ckpt-0")}, "/f")

    assert found is not None and set(found) == {*WHOLE, "checkpoint"}


def test_an_index_may_lie_deeper_and_name_absolute_paths() -> None:
    there = [f"model/{name}" for name in [*WHOLE, "checkpoint"]]

    for name in ("ckpt-1", "/f/model/ckpt-1", "./ckpt-1", "../model/ckpt-1"):
        assert chosen(there, [], {"model/checkpoint": index(name)}, "/f") is not None


def test_an_index_that_leads_out_is_left_out_and_the_others_are_not() -> None:
    for name in ("../elsewhere/ckpt-1", "/etc/passwd", "/folder/ckpt-1"):
        assert chosen(["a", "checkpoint"], ["a", "checkpoint"], {"checkpoint": index(name)}, "/f") == ["a"]


def test_a_file_of_that_name_which_names_nothing_is_a_file_like_others() -> None:
    assert chosen(["checkpoint"], [], {"checkpoint": "my notes"}, "/f") == []
    assert chosen(["checkpoint"], ["checkpoint"], {"checkpoint": "my notes"}, "/f") == ["checkpoint"]


def test_tensorflows_first_format_is_one_file() -> None:
    assert chosen(["old", "checkpoint"], [], {"checkpoint": index("old")}, "/f") == ["old", "checkpoint"]


def test_only_the_name_itself_is_an_index() -> None:
    assert is_index("a/checkpoint") and is_index("checkpoint")
    assert not is_index("checkpoint/a") and not is_index("mycheckpoint")


def test_absolute_names_of_another_node_become_names_beside_the_index() -> None:
    text = index("/home/a/run.1/code/outputs/ckpt-1", "/elsewhere/other", "ckpt-0")

    assert with_names_of(text, lambda name: name == "ckpt-1") == index("ckpt-1", "/elsewhere/other", "ckpt-0")
