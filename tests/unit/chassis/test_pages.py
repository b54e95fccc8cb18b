"""Lists that come in answers of a size that any client takes."""

from __future__ import annotations

import pytest

from services.chassis.grpc_server import Refused
from services.chassis.pages import PAGE_BYTES, number_of, page
from trainyard.dataset.v1.dataset_pb2 import Dataset


def some(*megabytes: float) -> list[Dataset]:
    return [Dataset(name=str(number), description="x" * int(size * (1 << 20))) for number, size in enumerate(megabytes)]


def name(dataset: Dataset) -> str:
    return dataset.name


def test_an_answer_holds_what_fits_and_names_the_last_where_more_follows() -> None:
    first, token = page(some(1, 1, 0.5, 1, 1), name)
    rest, none = page(some(1, 1, 0.5), name)

    assert ([it.name for it in first], token) == (["0", "1", "2"], "2")
    assert sum(it.ByteSize() for it in first) <= PAGE_BYTES
    assert ([it.name for it in rest], none) == (["0", "1", "2"], "")
    assert page([], name) == ([], "")


def test_one_that_is_larger_than_an_answer_comes_alone() -> None:
    found, token = page(some(5, 0.1), name)

    assert ([it.name for it in found], token) == (["0"], "0")


@pytest.mark.parametrize("token", ["x", "-1", "1.5", "\u0661", "9" * 21])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(Refused, match="page token"):
        number_of(token)
