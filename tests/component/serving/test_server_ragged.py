"""Rows of different lengths: a ragged tensor is its values and where its rows end, for whoever calls and by whatever protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest

from tests.component.serving.conftest import Running, TensorFlow, predict_request, serving, tensor

pytestmark = pytest.mark.component
FLOAT, STRING, INT64 = 1, 7, 9


@pytest.fixture(scope="module")
def ragged(tensorflow: TensorFlow) -> Iterator[Running]:
    model = ["--model-name=ragged", f"--model-path={tensorflow.models / 'ragged' / 'model'}", "--version=1"]
    with serving(tensorflow.python, *model) as server:
        yield server


def ask(server: Running, body: Any) -> Any:
    return httpx.post(f"{server.rest}/v1/models/ragged:predict", json=body, timeout=30).json()


def infer(server: Running, signature: str, *inputs: dict[str, Any]) -> Any:
    body = {"inputs": inputs, "parameters": {"signature_name": signature} if signature else {}}
    return httpx.post(f"{server.rest}/v2/models/ragged/infer", json=body, timeout=30).json()


def test_ragged_tensors_are_taken_and_given_over_grpc(ragged: Running) -> None:
    inputs = {"x": tensor(FLOAT, [3], float_val=[1.0, 2.0, 4.0]), "x_1": tensor(INT64, [4], int64_val=[0, 2, 2, 3])}

    outputs = ragged.ask(predict_request(inputs, model="ragged")).outputs

    assert list(outputs["sum"].float_val) == [3.0, 0.0, 4.0]
    assert list(outputs["doubled"].float_val) == [2.0, 4.0, 8.0]
    assert list(outputs["doubled_1"].int64_val) == [0, 2, 2, 3]


def test_ragged_tensors_are_taken_and_given_over_rest(ragged: Running) -> None:
    deep = {"x": ["a", "b", "c"], "x_1": [0, 2, 3], "x_2": [0, 1, 1, 3]}

    assert ask(ragged, {"inputs": {"x": [1, 2, 4], "x_1": [0, 2, 2, 3]}}) == {
        "outputs": {"sum": [3.0, 0.0, 4.0], "doubled": [2.0, 4.0, 8.0], "doubled_1": [0, 2, 2, 3]}
    }
    assert ask(ragged, {"signature_name": "deep", "inputs": deep}) == {
        "outputs": {"same": deep["x"], "same_1": deep["x_1"], "same_2": deep["x_2"], "lengths": [2, 1]}
    }, "of two rows, of which one has two and the other one row"
    assert ask(ragged, {"signature_name": "words", "inputs": ["a b", "", "c"]}) == {
        "outputs": {"words": ["a", "b", "c"], "words_1": [0, 2, 2, 3]}
    }


def test_ragged_tensors_are_taken_and_given_by_the_open_protocol(ragged: Running) -> None:
    told = infer(ragged, "words", {"name": "s", "datatype": "BYTES", "shape": [3], "data": ["a b", "", "c"]})

    assert {it["name"]: it["data"] for it in told["outputs"]} == {"words": ["a", "b", "c"], "words_1": [0, 2, 2, 3]}
    about = httpx.get(f"{ragged.rest}/v2/models/ragged", timeout=30).json()
    assert {it["name"] for it in about["inputs"]} == {"x", "x_1"}
    assert {it["name"] for it in about["outputs"]} == {"sum", "doubled", "doubled_1"}


@pytest.mark.parametrize("splits", [[0, 2, 100], [5, 2], [-1, 3], [0, 1 << 62]])
def test_rows_that_end_nowhere_are_refused(ragged: Running, splits: list[int]) -> None:
    assert "error" in ask(ragged, {"inputs": {"x": [1, 2, 4], "x_1": splits}})
    assert ask(ragged, {"inputs": {"x": [1], "x_1": [0, 1]}})["outputs"]["sum"] == [1.0]


def test_a_signature_that_cannot_be_served_says_why_and_how_to_save_it(ragged: Running) -> None:
    why = "its output found is not dense (sparse); save it with dense ones, of a SparseTensor its indices, values and dense_shape"
    with pytest.raises(grpc.RpcError) as caught:
        ragged.ask(predict_request({"x": tensor(FLOAT, [1, 1], float_val=[1.0])}, "sparse", "ragged"))
    x = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}

    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert f'Serving signature key "sparse" cannot be served: {why}' in (caught.value.details() or "")
    assert (
        f'Serving signature name: "sparse" cannot be served: {why}' in ask(ragged, {"signature_name": "sparse", "inputs": [[1.0]]})["error"]
    )
    assert f'"sparse" cannot be served: {why}' in infer(ragged, "sparse", x)["error"]
