import json
from typing import Any

import pytest

from trainyard import UserErrorException
from trainyard._metrics import by_rank, ranks_of, shaped
from trainyard._points import as_point
from trainyard.job.v1.telemetry_pb2 import MetricBatch, MetricPoint


def logged(*points: tuple[str, str, Any], rank: int = 0) -> list[MetricBatch]:
    made = []
    for name, kind, value in points:
        if isinstance(value, float):
            made.append(MetricPoint(name=name, kind=kind, number=value))
        elif isinstance(value, str):
            made.append(MetricPoint(name=name, kind=kind, text=value))
        else:
            made.append(MetricPoint(name=name, kind=kind, json=json.dumps(value)))
    return [MetricBatch(points=made, rank=rank, epoch=1)]


def test_one_value_is_a_scalar_and_several_are_a_list() -> None:
    found = shaped("r", logged(("once", "scalar", 0.5), ("acc", "scalar", 0.1), ("acc", "scalar", 0.2), ("note", "scalar", "ok")))

    assert found == {"once": 0.5, "acc": [0.1, 0.2], "note": "ok"}


def test_rows_become_a_dict_and_then_a_dict_of_lists() -> None:
    assert shaped("r", logged(("r", "row", {"x": 1, "y": 2}))) == {"r": {"x": 1, "y": 2}}
    assert shaped("r", logged(("r", "row", {"x": 1}), ("r", "row", {"x": 3}))) == {"r": {"x": [1, 3]}}


def test_lists_are_joined_and_tables_stay() -> None:
    found = shaped("r", logged(("l", "list", [1, 2]), ("l", "list", [3]), ("t", "table", {"a": [1, 2]})))

    assert found == {"l": [1, 2, 3], "t": {"a": [1, 2]}}


def test_an_image_is_the_name_of_its_file_in_the_run() -> None:
    found = shaped("r_1", logged(("plot", "image", "plot_1.png")))

    assert found == {"plot": "aml://artifactId/ExperimentRun/dcid.r_1/plot_1.png"}


def test_of_several_ranks_that_logged_a_name_the_lowest_is_shown() -> None:
    points = logged(("loss", "scalar", 0.9), rank=1) + logged(("loss", "scalar", 0.5)) + logged(("only", "scalar", 1.0), rank=1)

    assert shaped("r", points) == {"loss": 0.5, "only": 1.0}


def test_a_second_kind_under_a_name_is_left_out_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="'acc'"):
        assert shaped("r", logged(("acc", "scalar", 0.1), ("acc", "list", [1]))) == {"acc": 0.1}


@pytest.mark.parametrize(
    ("logged_as", "kept"), [(3, "3"), (-(2**53), "-9007199254740992"), (2**60, "1152921504606846976"), (3.0, "3.0"), (True, "True")]
)
def test_a_number_comes_back_as_it_was_logged(logged_as: Any, kept: str) -> None:
    point = as_point({"name": "n", "kind": "scalar", "value": logged_as, "at": 0.0})

    assert repr(shaped("r", [MetricBatch(points=[MetricPoint.FromString(point.SerializeToString())])])) == f"{{'n': {kept}}}"


def test_a_number_of_an_older_client_stays_what_it_says() -> None:
    assert repr(shaped("r", [MetricBatch(points=[MetricPoint(name="n", kind="scalar", number=3.0)])])) == "{'n': 3.0}"


@pytest.mark.security
@pytest.mark.parametrize("number", [0.5, float("nan"), float("inf"), -float("inf")])
def test_what_claims_to_be_a_whole_number_and_is_none_stays_what_it_is(number: float) -> None:
    found = shaped("r", [MetricBatch(points=[MetricPoint(name="n", kind="scalar", number=number, integer=True)])])

    assert repr(found) == f"{{'n': {number!r}}}"


def test_nothing_logged_is_an_empty_dict() -> None:
    assert shaped("r", []) == {}


def test_all_ranks_can_be_had_each_with_its_own_values() -> None:
    points = logged(("loss", "scalar", 0.9), rank=2) + logged(("loss", "scalar", 0.5)) + logged(("only", "scalar", 1.0), rank=2)

    assert by_rank("r", points) == {0: {"loss": 0.5}, 2: {"loss": 0.9, "only": 1.0}}
    assert list(by_rank("r", points)) == [0, 2]


def test_what_is_said_again_of_the_same_step_counts_once_and_without_steps_everything_counts() -> None:
    def at(step: int, value: float) -> MetricBatch:
        return MetricBatch(points=[MetricPoint(name="loss", kind="scalar", number=value, step=step)])

    assert shaped("r", [at(1, 0.5), at(2, 0.4), at(1, 0.5), at(2, 0.3)]) == {"loss": [0.5, 0.4, 0.3]}
    assert shaped("r", logged(("loss", "scalar", 0.5), ("loss", "scalar", 0.5))) == {"loss": [0.5, 0.5]}


def test_a_rank_is_a_number_or_all_of_them() -> None:
    assert (ranks_of(None), ranks_of("all"), ranks_of(3)) == (None, [], [3])
    for wrong in (-1, True, "0", 2**31, 1.5):
        with pytest.raises(UserErrorException, match="rank is"):
            ranks_of(wrong)  # type: ignore[arg-type]
