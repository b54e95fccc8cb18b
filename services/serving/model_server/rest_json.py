"""TensorFlow Serving's JSON: `instances` (row) and `inputs` (column) forms to arrays and back."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from services.serving.model_server import fast_json
from services.serving.model_server.errors import UNIMPLEMENTED, ServeError, invalid
from services.serving.model_server.served import Served
from services.serving.model_server.signatures import DEFAULT_SIGNATURE, Signature, Tensor
from services.serving.model_server.tensors import MAX_DIMENSIONS, STRING, strings

# Kind of the wanted dtype -> kinds that NumPy may find in the JSON for it. A number is no boolean and a boolean no number.
_KINDS = {"f": "iuf", "V": "iuf", "i": "iu", "u": "iu", "b": "b"}


def predict(model: Served, body: bytes, deadline: float | None = None) -> bytes:
    """The body of the answer to that of a :predict request. Raises ServeError."""
    request = parse(body)
    _check_form(request)
    name = request.get("signature_name") or DEFAULT_SIGNATURE
    signature = model.signatures.get(name)
    if signature is None:
        reason = model.unserved.get(name)
        raise invalid(f'Serving signature name: "{name}" {f"cannot be served: {reason}" if reason else "not found in signature def"}')
    return _answer("instances" in request, model.predict(signature, _inputs(request, signature), (), deadline), signature)


def parse(body: bytes) -> dict[str, Any]:
    """The object that a body is. Raises ServeError."""
    try:
        request = fast_json.loads(body)
    except RecursionError as error:
        raise invalid("JSON Parse error: nested too deep") from error
    except ValueError as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(request, dict):
        raise invalid("JSON Value: Is not object")
    return request


def _check_form(request: Mapping[str, Any]) -> None:
    if "instances" in request and "inputs" in request:
        raise invalid("Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist")
    if "instances" not in request and "inputs" not in request:
        raise invalid("Missing 'inputs' or 'instances' key")
    check_signature_name(request)


def check_signature_name(request: Mapping[str, Any]) -> None:
    if not isinstance(request.get("signature_name", ""), str):
        raise invalid("'signature_name' key must be a string value.")


# -- JSON to arrays


def _inputs(request: Mapping[str, Any], signature: Signature) -> dict[str, Any]:
    """Arrays by alias; aliases that are missing are the model's to refuse."""
    columns = _columns(request["inputs"], signature) if "inputs" in request else _rows(request["instances"], signature)
    unknown = sorted(columns.keys() - signature.inputs.keys())
    if unknown:
        known = ", ".join(sorted(signature.inputs))
        raise invalid(f"JSON object: does not have named input: {', '.join(unknown)}; the signature has {known}")
    return {alias: _to_array(value, signature.inputs[alias], alias) for alias, value in columns.items()}


def _columns(value: Any, signature: Signature) -> dict[str, Any]:
    if isinstance(value, dict) and not is_bytes(value):
        return value
    if len(signature.inputs) != 1:
        raise invalid("inputs is a plain value/list, but expecting an object as multiple input tensors required")
    return {next(iter(signature.inputs)): value}


def _rows(instances: Any, signature: Signature) -> dict[str, Any]:
    if not isinstance(instances, list):
        raise invalid("Expecting 'instances' to be a list/array")
    if not instances:
        raise invalid("No values in 'instances' array")
    named = [isinstance(item, dict) and not is_bytes(item) for item in instances]
    if not any(named):
        if len(signature.inputs) != 1:
            raise invalid("instances is a plain list, but expecting list of objects as multiple input tensors required")
        return {next(iter(signature.inputs)): instances}
    if not all(named):
        raise invalid(f"Expecting object but got a value or list at item {named.index(False)} of input list")
    keys = instances[0].keys()
    odd = next((number for number, item in enumerate(instances) if item.keys() != keys), None)
    if odd is not None:
        raise invalid(f"Failed to process element: {odd} of 'instances' list: keys must be equal to: {','.join(sorted(keys))}")
    return {alias: [item[alias] for item in instances] for alias in keys}


def is_bytes(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"}


def _to_array(value: Any, tensor: Tensor, alias: str) -> Any:
    shape = _shape_of_first(value)
    if len(shape) > MAX_DIMENSIONS:
        raise invalid(f"input {alias} has {len(shape)} dimensions; {MAX_DIMENSIONS} are the most")
    if tensor.dtype == STRING:
        return strings([to_string(leaf, alias) for leaf in _leaves(value, 0, shape, alias)], shape)
    dtype = tensor.array_dtype
    if dtype.kind not in _KINDS:
        raise ServeError(UNIMPLEMENTED, f"input {alias} is of type {tensor.type_name}, which JSON cannot carry; use gRPC")
    quick = fast_json.nested_floats(value, shape, dtype)
    if quick is not None:
        return quick
    try:
        found = np.array(value)
    except (ValueError, OverflowError) as error:
        raise _ragged(alias) from error
    if found.dtype.kind == "O" or found.shape != shape:  # NumPy before 1.24 takes ragged lists for objects
        _leaves(value, 0, shape, alias)
    if found.size and found.dtype.kind not in _KINDS[dtype.kind]:
        raise invalid(f"JSON value of input {alias} is not of expected type: {tensor.type_name}")
    with np.errstate(over="ignore"):
        array = found.astype(dtype)
    if not _fits(found, array):
        raise invalid(f"Cannot convert JSON value of input {alias} to {tensor.type_name} without loss of precision.")
    return array


def _fits(found: Any, array: Any) -> bool:
    """False where a number is beyond what the type can hold."""
    if array.dtype.kind in "iu":
        return bool((array == found).all())
    if array.dtype.kind == "b" or found.dtype.kind != "f":
        return True
    return bool((np.isfinite(array) | ~np.isfinite(found)).all())


def _shape_of_first(value: Any) -> tuple[int, ...]:
    """The shape, if all lists are as long as the first of their level."""
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
            raise _ragged(alias)
        return [value]
    if not isinstance(value, list) or len(value) != shape[depth]:
        raise _ragged(alias)
    return [leaf for item in value for leaf in _leaves(item, depth + 1, shape, alias)]


def _ragged(alias: str) -> ServeError:
    return invalid(f"Encountered list at unexpected size or level: the lists of input {alias} differ in depth or length")


def to_string(value: Any, alias: str) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if not (is_bytes(value) and isinstance(value["b64"], str)):
        raise invalid(f"JSON value of input {alias} is not of expected type: string")
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"Unable to base64 decode input {alias}") from error


# -- arrays to JSON


def _answer(by_row: bool, results: Mapping[str, Any], signature: Signature) -> bytes:
    for alias, array in results.items():
        tensor = signature.outputs[alias]
        if tensor.dtype != STRING and array.dtype.kind not in _KINDS:
            raise ServeError(UNIMPLEMENTED, f"output {alias} is of type {tensor.type_name}, which JSON cannot carry; use gRPC")
    if by_row:
        return b'{"predictions": %s}' % _rows_of(results, signature)
    texts = [_json(array, alias, signature.outputs[alias]) for alias, array in results.items()]
    if len(texts) == 1:
        return b'{"outputs": %s}' % texts[0]
    columns = b", ".join(b"%s: %s" % (fast_json.dumps(alias), text) for alias, text in zip(results, texts, strict=True))
    return b'{"outputs": {%s}}' % columns


def _rows_of(results: Mapping[str, Any], signature: Signature) -> bytes:
    sizes = {alias: len(array) if array.ndim else None for alias, array in results.items()}
    if None in sizes.values():
        raise invalid("an output has no batch dimension, which the row form needs; use 'inputs' in place of 'instances'")
    if len(set(sizes.values())) > 1:
        raise invalid(f"outputs have inconsistent batch sizes {sizes}; use 'inputs' in place of 'instances'")
    if len(results) == 1:
        alias, array = next(iter(results.items()))
        return _json(array, alias, signature.outputs[alias])
    columns = [_value(array, alias, signature.outputs[alias]) for alias, array in results.items()]
    return json.dumps([dict(zip(results, row, strict=True)) for row in zip(*columns, strict=True)]).encode()


def _json(array: Any, alias: str, tensor: Tensor) -> bytes:
    if tensor.dtype == STRING:
        return json.dumps(_value(array, alias, tensor)).encode()
    return fast_json.dumps_array(_known_float(array))


def _value(array: Any, alias: str, tensor: Tensor) -> Any:
    if tensor.dtype == STRING:
        return _text(array.tolist(), as_base64=alias.endswith("_bytes"))
    return fast_json.to_lists(_known_float(array))


def _known_float(array: Any) -> Any:
    """NumPy's own float for one that it does not know, which holds all of its values."""
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def _text(value: Any, *, as_base64: bool) -> Any:
    if isinstance(value, list):
        return [_text(item, as_base64=as_base64) for item in value]
    return {"b64": base64.b64encode(value).decode()} if as_base64 else value.decode(errors="replace")
