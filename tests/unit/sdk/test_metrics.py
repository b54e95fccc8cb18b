import json
from typing import Any

import pytest

from trainyard._metrics import fold
from trainyard.job.v1.telemetry_pb2 import MetricBatch, MetricPoint


def a_batch(*points: tuple[str, str, Any], epoch: int = 1) -> MetricBatch:
    made = []
    for name, kind, value in points:
        if isinstance(value, float):
            made.append(MetricPoint(name=name, kind=kind, number=value))
        elif isinstance(value, str):
            made.append(MetricPoint(name=name, kind=kind, text=value))
        else:
            made.append(MetricPoint(name=name, kind=kind, json=json.dumps(value)))
    return MetricBatch(run_id="r", epoch=epoch, points=made)


def test_one_value_is_a_scalar_and_several_are_a_list() -> None:
    found = fold([a_batch(("once", "scalar", 0.5), ("acc", "scalar", 0.1)), a_batch(("acc", "scalar", 0.2), ("note", "scalar", "ok"))])

    assert found == {"once": 0.5, "acc": [0.1, 0.2], "note": "ok"}


def test_rows_become_a_dict_and_then_a_dict_of_lists() -> None:
    assert fold([a_batch(("r", "row", {"x": 1, "y": 2}))]) == {"r": {"x": 1, "y": 2}}
    assert fold([a_batch(("r", "row", {"x": 1}), ("r", "row", {"x": 3}))]) == {"r": {"x": [1, 3]}}


def test_lists_are_joined_and_tables_stay() -> None:
    found = fold([a_batch(("l", "list", [1, 2]), ("l", "list", [3]), ("t", "table", {"a": [1, 2]}))])

    assert found == {"l": [1, 2, 3], "t": {"a": [1, 2]}}


def test_only_the_newest_attempt_counts() -> None:
    found = fold([a_batch(("acc", "scalar", 0.1)), a_batch(("acc", "scalar", 0.9), epoch=2), a_batch(("late", "scalar", 1.0))])

    assert found == {"acc": 0.9}


def test_a_second_kind_under_a_name_is_left_out_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="'acc'"):
        assert fold([a_batch(("acc", "scalar", 0.1), ("acc", "list", [1]))]) == {"acc": 0.1}


def test_nothing_logged_is_an_empty_dict() -> None:
    assert fold([]) == {}
