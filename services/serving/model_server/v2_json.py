"""An inference as JSON with binary tensors behind it, as REST carries it, and the answer in the same form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from services.serving.model_server import fast_json, v2_infer, v2_types
from services.serving.model_server.errors import ServeError, invalid
from services.serving.model_server.tensors import STRING, strings
from services.serving.model_server.v2_infer import Answered, Asked, Output, Sent
from services.serving.model_server.v2_types import Datatype

# What may stand in JSON for an element, by the kind of its NumPy type. A number is no boolean and a boolean no number.
_LEAVES: Mapping[str, frozenset[type]] = {
    "f": frozenset({int, float}),
    "i": frozenset({int}),
    "u": frozenset({int}),
    "b": frozenset({bool}),
    "O": frozenset({str}),
}
_WIDE = {"f": np.float64, "i": np.int64, "u": np.uint64, "b": np.bool_}


@dataclass(frozen=True)
class Form:
    """How the outputs are wanted: by name, and else."""

    binary: Mapping[str, bool]
    otherwise: bool

    def is_binary(self, name: str) -> bool:
        return self.binary.get(name, self.otherwise)


def parse(text: bytes) -> Any:
    try:
        return fast_json.loads(text)
    except RecursionError as error:
        raise invalid("failed to parse the request JSON buffer: nested too deep") from error
    except ValueError as error:  # no JSON, no UTF-8, or a number with more digits than Python reads
        raise invalid(f"failed to parse the request JSON buffer: {error}") from error


def parsed_object(text: bytes) -> Mapping[str, Any]:
    return _object(parse(text), "the request")


def asked(model: str, version: str, body: bytes, header_length: int | None, deadline: float | None) -> tuple[Asked, Form]:
    """`header_length`: so many bytes of the body are JSON, and binary tensors the rest; None: all is JSON. Raises ServeError."""
    text = body if header_length is None else body[:header_length]
    request = parsed_object(text)
    parameters = _object(request.get("parameters", {}), "'parameters'")
    outputs, form = _outputs(request, parameters)
    return Asked(
        model=model,
        version=version,
        id=_text(request.get("id", ""), "'id'"),
        inputs=_inputs(request, b"" if header_length is None else body[header_length:], model, _has_no_words(text)),
        outputs=outputs,
        signature=v2_infer.signature_name(parameters.get("signature_name", "")),
        deadline=v2_infer.deadline(parameters.get("timeout", 0), deadline),
    ), form


def _has_no_words(text: bytes) -> bool:
    """No true, false or null among the data, for all that can be seen without a look at each element. All data follow a first "data", as
    long as nobody writes that with escapes."""
    begin = text.find(b'"data"')
    return begin >= 0 and text.find(b"\\", 0, begin) < 0 and text.find(b"u", begin) < 0 and text.find(b"l", begin) < 0


def _inputs(request: Mapping[str, Any], binary: bytes, model: str, no_words: bool) -> list[Sent]:
    found, position = [], 0
    if "inputs" not in request:
        raise invalid("Unable to parse 'inputs': there is no such member")
    for item in _list(request["inputs"], "'inputs'"):
        sent = _object(item, "an input")
        name = _text(sent.get("name"), "'name' of an input")
        parameters = _object(sent.get("parameters", {}), f"'parameters' of input '{name}'")
        v2_infer.refuse_shared_memory(parameters, f"input '{name}'")
        if "binary_data_size" in parameters:
            end = position + _size(parameters["binary_data_size"], name)
            if end > len(binary):
                raise invalid(f"unexpected size for input '{name}', expecting {end - len(binary)} more bytes for model '{model}'")
            read = partial(_read_binary, binary[position:end], name)
            position = end
        elif "data" in sent:
            read = partial(_read_data, sent["data"], name, no_words)
        else:
            raise invalid(f"must specify 'data' for input '{name}', or the parameter binary_data_size")
        datatype = _text(sent.get("datatype"), f"'datatype' of input '{name}'")
        found.append(Sent(name, datatype, _shape(sent.get("shape"), name), read))
    if position != len(binary):
        raise invalid(f"unexpected additional input data for model '{model}'")
    return found


def _outputs(request: Mapping[str, Any], parameters: Mapping[str, Any]) -> tuple[list[str], Form]:
    names, binary = [], {}
    for item in _list(request.get("outputs", []), "'outputs'"):
        output = _object(item, "an output")
        name = _text(output.get("name"), "'name' of an output")
        of_output = _object(output.get("parameters", {}), f"'parameters' of output '{name}'")
        v2_infer.refuse_shared_memory(of_output, f"output '{name}'")
        v2_infer.refuse_classification(of_output, name)
        names.append(name)
        if "binary_data" in of_output:
            binary[name] = _flag(of_output["binary_data"], f"'binary_data' of output '{name}'")
    return names, Form(binary, _flag(parameters.get("binary_data_output", False), "'binary_data_output'"))


# -- the members of a request


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise invalid(f"Unable to parse {what}: it must be an object")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise invalid(f"Unable to parse {what}: it must be an array")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise invalid(f"Unable to parse {what}: it must be a string")
    return value


def _flag(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise invalid(f"Unable to parse {what}: it must be true or false")
    return value


def _size(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise invalid(f"Unable to parse 'binary_data_size' of input '{name}': it must be a number of bytes")
    return value


def _shape(value: Any, name: str) -> tuple[int, ...]:
    shape = _list(value, f"'shape' of input '{name}'")
    if not set(map(type, shape)) <= {int}:
        raise invalid(f"Unable to parse 'shape' of input '{name}': it must be an array of whole numbers")
    return tuple(shape)


# -- elements


def _read_binary(data: bytes, name: str, datatype: Datatype, size: int) -> Any:
    return v2_types.from_raw(data, datatype, size, name)


def _read_data(data: Any, name: str, no_words: bool, datatype: Datatype, size: int) -> Any:
    """Elements one after another, or in lists of lists; either way only their order counts."""
    if not datatype.field:
        raise invalid(f"receiving {datatype.name} data via JSON is not supported. Please use the binary data format for input '{name}'")
    leaves, dtype = _list(data, f"'data' of input '{name}'"), np.dtype(datatype.array)
    if no_words and len(leaves) == size and (quick := fast_json.floats(leaves, dtype)) is not None:
        return quick
    kinds = set(map(type, leaves))
    while list in kinds:
        if len(kinds) > 1:
            raise invalid(f"Unable to parse 'data' of input '{name}': its lists differ in depth")
        leaves = list(chain.from_iterable(leaves))
        kinds = set(map(type, leaves))
    if not kinds <= _LEAVES[dtype.kind]:
        raise invalid(f"Unable to parse 'data' of input '{name}': it has elements that are no {datatype.name}")
    if len(leaves) != size:
        raise invalid(f"input '{name}' got unexpected element count {len(leaves)}, expected {size}")
    return _array(leaves, datatype, dtype, name)


def _array(leaves: list[Any], datatype: Datatype, dtype: Any, name: str) -> Any:
    quick = fast_json.floats(leaves, dtype)
    if quick is not None:
        return quick
    try:
        if datatype.number == STRING:
            return strings([text.encode() for text in leaves], (len(leaves),))
        wide: Any = np.array(leaves, _WIDE[dtype.kind])
    except (OverflowError, UnicodeEncodeError) as error:
        raise _beyond(name, datatype) from error
    if dtype.kind == "u" and min(leaves, default=0) < 0:  # NumPy 1 takes them
        raise _beyond(name, datatype)
    with np.errstate(over="ignore"):
        array = wide.astype(dtype)
    kept = np.isfinite(array) | ~np.isfinite(wide) if dtype.kind == "f" else array == wide
    if not kept.all():
        raise _beyond(name, datatype)
    return array


def _beyond(name: str, datatype: Datatype) -> ServeError:
    return invalid(f"Unable to parse 'data' of input '{name}': it has elements beyond what {datatype.name} holds")


# -- the answer


def answer(answered: Answered, form: Form) -> tuple[bytes, int | None]:
    """The body, and how many bytes of it are JSON where binary tensors follow."""
    tensors, outputs = [], []
    for output in answered.outputs:
        told: dict[str, Any] = {"name": output.name, "datatype": output.datatype.name, "shape": output.array.shape}
        if form.is_binary(output.name):
            tensors.append(v2_types.to_raw(output.array, output.datatype))
            told["parameters"] = {"binary_data_size": len(tensors[-1])}
            outputs.append(fast_json.dumps(told))
        else:
            outputs.append(b'%s,"data":%s}' % (fast_json.dumps(told)[:-1], _data(output)))
    about = {"model_name": answered.model, "model_version": answered.version} | ({"id": answered.id} if answered.id else {})
    head = b'%s,"outputs":[%s]}' % (fast_json.dumps(about)[:-1], b",".join(outputs))
    return (b"".join((head, *tensors)), len(head)) if tensors else (head, None)


def _data(output: Output) -> bytes:
    if not output.datatype.field:
        raise invalid(
            f"sending {output.datatype.name} data via JSON is not supported. Please use the binary data format for output '{output.name}'"
        )
    if output.datatype.number == STRING:
        try:
            return fast_json.dumps([item.decode() for item in v2_types.octets(output.array)])
        except UnicodeDecodeError as error:
            raise invalid(
                f"output '{output.name}' has bytes that are no UTF-8, which JSON cannot carry. Please use the binary data format"
            ) from error
    return fast_json.dumps_array(output.array.ravel())
