"""TensorFlow Serving's JSON: `instances` (row) and `inputs` (column) forms to arrays and back."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from services.serving.model_server.errors import invalid
from services.serving.model_server.model import Signature, Tensor
from services.serving.model_server.tensors import STRING

_KINDS = {"f": "iuf", "V": "iuf", "i": "iu", "u": "iu", "b": "b"}


def parse(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body)
    except RecursionError as error:
        raise invalid("JSON Parse error: nested too deep") from error
    except ValueError as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(request, dict):
        raise invalid("JSON Value: the request must be an object")
    if ("instances" in request) == ("inputs" in request):
        raise invalid("Missing 'inputs' or 'instances' key" if "inputs" not in request else "Both 'inputs' and 'instances' keys are set")
    if not isinstance(request.get("signature_name", ""), str):
        raise invalid("'signature_name' key must be a string value.")
    return request


def _is_bytes(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"}


def _string(value: Any, alias: str) -> Any:
    if isinstance(value, list):
        return [_string(item, alias) for item in value]
    if isinstance(value, str):
        return value.encode()
    if _is_bytes(value) and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except binascii.Error as error:
            raise invalid(f"Unable to base64 decode input {alias}") from error
    raise invalid(f"JSON value of input {alias} is not of type string")


def _dimensions(value: Any) -> tuple[int, ...]:
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def _leaves(value: Any, depth: int, shape: tuple[int, ...], alias: str) -> list[Any]:
    if depth == len(shape):
        if isinstance(value, list):
            raise invalid(f"input {alias} is ragged: its lists differ in depth or length")
        return [value]
    if not isinstance(value, list) or len(value) != shape[depth]:
        raise invalid(f"input {alias} is ragged: its lists differ in depth or length")
    return [leaf for item in value for leaf in _leaves(item, depth + 1, shape, alias)]


def to_array(value: Any, tensor: Tensor, alias: str) -> Any:
    if tensor.dtype == STRING:
        value = _string(value, alias)
        shape = _dimensions(value)
        leaves = _leaves(value, 0, shape, alias)
        array = np.empty(len(leaves), dtype=object)
        array[:] = leaves
        return array.reshape(shape)
    dtype = np.dtype(tensor.tf_dtype.as_numpy_dtype)
    try:
        inferred = np.asarray(value)
    except (ValueError, OverflowError, RecursionError) as error:
        raise invalid(f"input {alias} is ragged: its lists differ in depth or length") from error
    if inferred.size and inferred.dtype.kind not in _KINDS.get(dtype.kind, ""):
        raise invalid(f"JSON value of input {alias} is not of expected type: {tensor.tf_dtype.name}")
    if inferred.size and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if int(inferred.min()) < limits.min or int(inferred.max()) > limits.max:
            raise invalid(f"JSON value of input {alias} is out of range for {tensor.tf_dtype.name}")
    with np.errstate(over="ignore"):
        return inferred.astype(dtype)


def inputs(request: Mapping[str, Any], signature: Signature) -> dict[str, Any]:
    """Arrays by alias; aliases that are missing or too many are the model's to refuse."""
    columns = _columns(request["inputs"], signature) if "inputs" in request else _rows(request["instances"], signature)
    unknown = sorted(columns.keys() - signature.inputs.keys())
    if unknown:
        raise invalid(f"JSON object: has unknown inputs {', '.join(unknown)}; the signature has {', '.join(sorted(signature.inputs))}")
    return {alias: to_array(value, signature.inputs[alias], alias) for alias, value in columns.items()}


def _columns(value: Any, signature: Signature) -> dict[str, Any]:
    if isinstance(value, dict) and not _is_bytes(value):
        return value
    if len(signature.inputs) != 1:
        raise invalid("'inputs' is a plain value/list, but expecting an object as multiple input tensors required")
    return {next(iter(signature.inputs)): value}


def _rows(instances: Any, signature: Signature) -> dict[str, Any]:
    if not isinstance(instances, list) or not instances:
        raise invalid("Expected 'instances' to be a non-empty list/array")
    named = [isinstance(item, dict) and not _is_bytes(item) for item in instances]
    if not any(named):
        if len(signature.inputs) != 1:
            raise invalid("instances is a plain list, but expecting list of objects as multiple input tensors required")
        return {next(iter(signature.inputs)): instances}
    if not all(named) or any(item.keys() != instances[0].keys() for item in instances):
        raise invalid("Expecting every instance to be an object with the same keys")
    return {alias: [item[alias] for item in instances] for alias in instances[0]}


def _value(array: Any, alias: str, dtype: int) -> Any:
    if dtype != STRING:
        if array.dtype.kind == "c":
            raise invalid(f"output {alias} is complex, which JSON cannot carry; use gRPC")
        return array.astype(np.float32).tolist() if array.dtype.kind == "V" else array.tolist()

    def text(value: Any) -> Any:
        if isinstance(value, list):
            return [text(item) for item in value]
        if alias.endswith("_bytes"):
            return {"b64": base64.b64encode(value).decode()}
        return value.decode(errors="replace")

    return text(array.tolist())


def answer(request: Mapping[str, Any], results: Mapping[str, Any], signature: Signature) -> dict[str, Any]:
    values = {alias: _value(array, alias, signature.outputs[alias].dtype) for alias, array in results.items()}
    if "inputs" in request:
        return {"outputs": next(iter(values.values())) if len(values) == 1 else values}
    sizes = {alias: array.shape[0] if array.ndim else None for alias, array in results.items()}
    if None in sizes.values():
        raise invalid("an output has no batch dimension, which the row form needs; use 'inputs' in place of 'instances'")
    if len(set(sizes.values())) > 1:
        raise invalid(f"outputs have inconsistent batch sizes {sizes}; use 'inputs' in place of 'instances'")
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    rows = zip(*values.values(), strict=True)
    return {"predictions": [dict(zip(values, row, strict=True)) for row in rows]}
