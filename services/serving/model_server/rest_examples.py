"""TensorFlow Serving's JSON for Classify and Regress: examples in, classes and numbers out."""

from __future__ import annotations

from typing import Any

import numpy as np

from services.serving.model_server.errors import invalid
from services.serving.model_server.rest_json import check_signature_name, is_bytes, parse, to_string

_MOST_FLOAT = float(np.finfo(np.float32).max)


def request(message: Any, body: bytes) -> Any:
    """A ClassificationRequest or RegressionRequest, filled from the body of :classify or :regress. Raises ServeError."""
    asked = parse(body)
    check_signature_name(asked)
    message.model_spec.signature_name = asked.get("signature_name") or ""
    examples = asked.get("examples")
    if examples is None:
        raise invalid("key 'examples' is expected and was not found")
    if not isinstance(examples, list):
        raise invalid("Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid("'examples' value is an empty array")
    into = message.input.example_list
    if "context" in asked:
        into = message.input.example_list_with_context
        _fill_example(into.context, asked["context"])
    for example in examples:
        _fill_example(into.examples.add(), example)
    return message


def classes(result: Any) -> dict[str, Any]:
    """What :classify answers: for each example its labels and scores."""
    return {"results": [[[it.label, _short(it.score)] for it in one.classes] for one in result.classifications]}


def values(result: Any) -> dict[str, Any]:
    """What :regress answers: a number for each example."""
    return {"results": [_short(it.value) for it in result.regressions]}


def _short(value: float) -> float:
    return float(str(np.float32(value)))


# -- JSON to examples


def _fill_example(example: Any, features: Any) -> None:
    if not isinstance(features, dict):
        raise invalid(f"Example must be JSON object but got JSON {_kind(features)}")
    for name, content in features.items():
        feature = example.features.feature[name]
        for value in content if isinstance(content, list) else [content]:
            _add_to_feature(feature, name, value)


def _add_to_feature(feature: Any, name: str, value: Any) -> None:
    if isinstance(value, bool):
        _list_of(feature, name, "int64_list").append(int(value))
    elif isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
        _list_of(feature, name, "int64_list").append(value)
    elif isinstance(value, float):
        if np.isfinite(value) and abs(value) > _MOST_FLOAT:
            raise invalid(f"Cannot convert JSON value: {value} to float without loss of precision.")
        _list_of(feature, name, "float_list").append(value)
    elif isinstance(value, str) or is_bytes(value):
        _list_of(feature, name, "bytes_list").append(to_string(value, name))
    else:
        raise invalid(f"Feature: {name} has element with unexpected JSON type: {_kind(value)}")


def _list_of(feature: Any, name: str, kind: str) -> Any:
    found = feature.WhichOneof("kind")
    if found not in (None, kind):
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {found.removesuffix('_list')}")
    return getattr(feature, kind).value


def _kind(value: Any) -> str:
    """As TensorFlow Serving names what JSON has."""
    kinds: dict[type, str] = {dict: "Object", list: "Array", str: "String", bool: str(value), type(None): "Null"}
    return kinds.get(type(value), "Number")
