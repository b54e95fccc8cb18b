"""What an answer says as plain values, and how far two of them are apart."""

from __future__ import annotations

import gzip
import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.serving.model_server.wire import Wire
from trainyard._replay import wire
from trainyard._replay.answers import values
from trainyard._replay.comparing import difference
from trainyard._replay.tensors import flattened, of_raw
from trainyard.endpoint.v1.inference_pb2 import Payload

_JSON: list[Any] = [
    {"outputs": [{"name": {}, "datatype": [], "shape": "x", "data": {"a": 1}}]},
    {"outputs": [{"parameters": {"binary_data_size": 3}, "datatype": "FP32"}]},
    {"outputs": [{"parameters": [], "data": [[[]], 1, [2]]}]},
    {"predictions": [math.inf]},
]
WIRE = Wire()
PREDICT, INFER = f"{wire.PREDICTION}Predict", wire.INFER
V1, V2 = "/v1/models/half:predict", "/v2/models/half/infer"


# -- differences


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"predictions": [[1.0, 2]]}, {"predictions": [[1, 2.0]]}),
        ({"a": math.nan}, {"a": math.nan}),
        ([math.inf, -math.inf], [math.inf, -math.inf]),
        ("text", "text"),
        (b"bytes", b"bytes"),
        (True, True),
        (None, None),
        ([], []),
        (10**400, 10**400),
    ],
)
def test_what_is_equal_has_no_difference(before: Any, after: Any) -> None:
    assert difference(before, after).size == 0


@pytest.mark.parametrize(
    ("before", "after", "where"),
    [
        ({"a": [1, {"b": "x"}]}, {"a": [1, {"b": "y"}]}, "a[1].b"),
        ([1, 2], [1, 2, 3], ""),
        ({"a": 1}, {"b": 1}, "a"),
        ([math.nan], [1.0], "[0]"),
        ([math.inf], [1.0], "[0]"),
        ([math.inf], [-math.inf], "[0]"),
        ([1], [True], "[0]"),
        ([1], ["1"], "[0]"),
        ([0], [None], "[0]"),
        ("text", b"text", ""),
        ([10**400], [1.5], "[0]"),
    ],
)
def test_what_are_no_two_numbers_is_infinitely_far_apart(before: Any, after: Any, where: str) -> None:
    found = difference(before, after)

    assert (found.size, found.where) == (math.inf, where)


def test_of_several_differences_the_largest_is_told_with_its_place_and_values() -> None:
    found = difference({"p": [0.1, 0.2, 5.0]}, {"p": [0.1, 0.25, 5.01]})

    assert (round(found.size, 6), found.where, found.before, found.after) == (0.05, "p[1]", "0.2", "0.25")


def test_large_numbers_differ_by_their_part_and_small_ones_by_their_distance() -> None:
    assert difference([1000.0], [1001.0]).size == pytest.approx(1 / 1001)
    assert difference([1e-9], [2e-9]).size == pytest.approx(1e-9)
    assert difference([2**60], [2**60 + 1]).size == pytest.approx(2**-60)


def test_depth_is_no_danger() -> None:
    deep: Any = []
    other: Any = [1]
    for _ in range(100_000):
        deep, other = [deep], [other]

    assert difference(deep, other).size == math.inf
    assert flattened(deep) == []


# -- answers


def of_rest(body: Any, path: str = V1, **fields: Any) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return values("POST", path, Payload(content=content, **fields))


def test_json_is_taken_as_it_is_and_inflated_where_it_was_compressed() -> None:
    body = {"predictions": [1.5]}

    assert of_rest(body) == body
    assert of_rest(gzip.compress(json.dumps(body).encode()), content_encoding="gzip") == body


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_told_of_a_model_and_is_bytes_of_a_script(body: bytes) -> None:
    with pytest.raises(ValueError):
        of_rest(body)

    assert of_rest(body, "/score") == body


@pytest.mark.parametrize(("body", "encoding"), [(b"no gzip", "gzip"), (gzip.compress(b"{}" * 100)[:20], "gzip"), (b"x", "br")])
def test_what_cannot_be_inflated_is_told(body: bytes, encoding: str) -> None:
    with pytest.raises(ValueError):
        of_rest(body, content_encoding=encoding)


def test_open_inference_json_and_binary_say_the_same() -> None:
    plain = {
        "model_name": "half", "model_version": "3", "id": "i",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [[2.5, 3.0]]}],
    }  # fmt: skip
    head = {
        **plain,
        "model_version": "4",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}],
    }
    told = json.dumps(head).encode()

    binary = of_rest(told + struct.pack("<2f", 2.5, 3.0), V2, json_bytes=len(told))

    assert of_rest(plain, V2) == binary
    assert binary["outputs"]["y"]["values"] == [2.5, 3.0]


@pytest.mark.parametrize("body", [{}, [], {"outputs": [1]}, {"outputs": {}}])
def test_what_has_no_outputs_is_no_answer_of_open_inference(body: Any) -> None:
    with pytest.raises(ValueError):
        of_rest(body, V2)


@pytest.mark.parametrize(
    ("datatype", "content", "found"),
    [
        ("INT8", b"\xff\x01", [-1, 1]),
        ("BOOL", b"\x00\x01", [False, True]),
        ("UINT64", b"\xff" * 8, [(1 << 64) - 1]),
        ("FP16", struct.pack("<e", 1.5), [1.5]),
        ("BF16", b"\xc0\x3f", [1.5]),
        ("BYTES", b"\x02\0\0\0ab\0\0\0\0", [b"ab", b""]),
        ("NEW", b"x", [b"x"]),
    ],
)
def test_raw_tensors_are_numbers_texts_or_what_they_are(datatype: str, content: bytes, found: list[Any]) -> None:
    assert of_raw(datatype, content) == found


@pytest.mark.parametrize(("datatype", "content"), [("FP32", b"abc"), ("BYTES", b"\xff\0\0\0a"), ("BYTES", b"\x01")])
def test_raw_tensors_that_are_cut_are_told(datatype: str, content: bytes) -> None:
    with pytest.raises(ValueError):
        of_raw(datatype, content)


def predicted(**tensor: Any) -> Any:
    response = WIRE.PredictResponse()
    made = response.outputs["y"]
    for size in tensor.pop("shape"):
        made.tensor_shape.dim.add(size=size)
    for name, value in tensor.items():
        getattr(made, name).extend(value) if isinstance(value, list) else setattr(made, name, value)
    response.model_spec.name = "half"
    return values(PREDICT, "", Payload(content=response.SerializeToString()))


def test_predict_answers_say_the_same_in_every_form() -> None:
    typed = predicted(dtype=1, shape=[1, 2], float_val=[2.5, 2.5])

    assert typed == {"y": {"dtype": 1, "shape": [1, 2], "values": [2.5, 2.5]}}
    assert predicted(dtype=1, shape=[1, 2], float_val=[2.5]) == typed
    assert predicted(dtype=1, shape=[1, 2], tensor_content=struct.pack("<2f", 2.5, 2.5)) == typed
    assert predicted(dtype=19, shape=[1], half_val=[0x3E00])["y"]["values"] == [1.5]
    assert predicted(dtype=14, shape=[1], half_val=[0x3FC0])["y"]["values"] == [1.5]
    assert predicted(dtype=7, shape=[1], string_val=[b"x"])["y"]["values"] == [b"x"]
    assert predicted(dtype=23, shape=[1], uint64_val=[7])["y"]["values"] == [7]


def test_classes_values_and_both_are_compared_by_what_they_say() -> None:
    classes, regression, both = WIRE.ClassificationResponse(), WIRE.RegressionResponse(), WIRE.MultiInferenceResponse()
    classes.result.classifications.add().classes.add(label="cat", score=0.5)
    regression.result.regressions.add(value=1.5)
    both.results.add().regression_result.regressions.add(value=2.5)

    def said(name: str, message: Any) -> Any:
        return values(f"{wire.PREDICTION}{name}", "", Payload(content=message.SerializeToString()))

    assert said("Classify", classes) == [[[{"label": "cat", "score": 0.5}]]]
    assert said("Regress", regression) == [[1.5]]
    assert said("MultiInference", both) == [[2.5]]


def test_infer_answers_say_the_same_raw_and_typed() -> None:
    kind = WIRE.message("inference.ModelInferResponse")
    raw, typed = kind(model_version="1"), kind(model_version="2")
    raw.outputs.add(name="y", datatype="INT32", shape=[2])
    raw.raw_output_contents.append(struct.pack("<2i", 1, 2))
    typed.outputs.add(name="y", datatype="INT32", shape=[2]).contents.int_contents.extend([1, 2])

    said = [values(INFER, "", Payload(content=it.SerializeToString())) for it in (raw, typed)]

    assert said[0] == said[1] == {"y": {"datatype": "INT32", "shape": [2], "values": [1, 2]}}


def test_bytes_that_are_no_message_are_told() -> None:
    with pytest.raises(ValueError):
        values(PREDICT, "", Payload(content=b"\xff" * 10))


@given(
    st.sampled_from([(PREDICT, ""), (f"{wire.PREDICTION}MultiInference", ""), (INFER, ""), ("POST", V1), ("POST", V2), ("POST", "/score")]),
    st.one_of(st.binary(max_size=200), st.sampled_from(_JSON).map(lambda it: json.dumps(it).encode())),
    st.integers(0, 300),
    st.sampled_from(["", "gzip", "deflate"]),
)
def test_whatever_lies_in_the_log_is_told_as_values_or_as_none(call: tuple[str, str], content: bytes, length: int, encoding: str) -> None:
    """Anybody may write there."""
    try:
        found = values(*call, Payload(content=content, json_bytes=length, content_encoding=encoding))
    except ValueError:
        return

    assert difference(found, found).size == 0


# -- requests


def test_a_request_goes_to_the_other_model_with_all_else_as_it_was() -> None:
    request = WIRE.PredictRequest(output_filter=["y"])
    request.model_spec.name, request.model_spec.signature_name = "half", "other"
    request.model_spec.version.value = 3
    request.inputs["x"].CopyFrom(type(request.inputs["x"])(dtype=1, float_val=[1.0]))

    sent = WIRE.PredictRequest.FromString(wire.addressed(PREDICT, request.SerializeToString(), "third"))

    assert (sent.model_spec.name, sent.model_spec.signature_name, sent.model_spec.HasField("version")) == ("third", "other", False)
    assert (list(sent.output_filter), list(sent.inputs["x"].float_val)) == (["y"], [1.0])


def test_every_task_of_several_and_an_infer_go_to_the_other_model() -> None:
    several = WIRE.MultiInferenceRequest()
    for signature in ("a", "b"):
        task = several.tasks.add(method_name="tensorflow/serving/regress")
        task.model_spec.name, task.model_spec.version_label, task.model_spec.signature_name = "half", "stable", signature
    infer = WIRE.message("inference.ModelInferRequest")(model_name="half", model_version="7", id="i", raw_input_contents=[b"1"])

    sent = WIRE.MultiInferenceRequest.FromString(wire.addressed(f"{wire.PREDICTION}MultiInference", several.SerializeToString(), "third"))
    asked = type(infer).FromString(wire.addressed(INFER, infer.SerializeToString(), "third"))

    assert [(it.model_spec.name, it.model_spec.version_label, it.model_spec.signature_name, it.method_name) for it in sent.tasks] == [
        ("third", "", "a", "tensorflow/serving/regress"),
        ("third", "", "b", "tensorflow/serving/regress"),
    ]
    assert (asked.model_name, asked.model_version, asked.id, list(asked.raw_input_contents)) == ("third", "", "i", [b"1"])


def test_no_other_method_is_known() -> None:
    assert wire.is_known(PREDICT)
    assert not wire.is_known("/tensorflow.serving.ModelService/HandleReloadConfigRequest")
