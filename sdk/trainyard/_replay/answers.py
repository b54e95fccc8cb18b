"""What an answer says, as plain values that can be compared: without what names the version that gave it."""

from __future__ import annotations

import json
import zlib
from typing import Any

from trainyard._replay import wire
from trainyard._replay.tensors import flattened, of_raw, of_tensorflow

_MOST_INFLATED = 64 << 20
_OWN = ("model_name", "model_version")


def values(method: str, path: str, payload: Any) -> Any:
    """Of a Payload that answered a call which went well. Raises ValueError for what is no answer to it."""
    content = _inflated(payload.content, payload.content_encoding)
    if wire.is_known(method):
        return _of_rpc(method, content)
    if path.lower().startswith("/v2/"):
        return _of_open_rest(content, payload.json_bytes)
    try:
        return _json(content)
    except ValueError:
        if path.lower().startswith("/v1/"):
            raise
        return content  # a script may answer with what it likes


def _of_rpc(method: str, content: bytes) -> Any:
    message = wire.answer(method, content)
    if method == wire.INFER:
        return {it.name: _open_output(it, place, message.raw_output_contents) for place, it in enumerate(message.outputs)}
    if method.endswith("/Predict"):
        return {it.key: of_tensorflow(it.value) for it in message.outputs}
    results = message.results if method.endswith("/MultiInference") else [message.result]
    return [_result(it) for it in results]


def _result(result: Any) -> Any:
    """A ClassificationResult, a RegressionResult, or what holds one of them."""
    names = {field.name for field in result.DESCRIPTOR.fields}
    if "classifications" in names:
        return [[{"label": it.label, "score": it.score} for it in row.classes] for row in result.classifications]
    if "regressions" in names:
        return [it.value for it in result.regressions]
    return _result(result.classification_result if result.HasField("classification_result") else result.regression_result)


def _open_output(output: Any, place: int, raw: Any) -> dict[str, Any]:
    if raw:
        if place >= len(raw):
            raise ValueError("an output has no content")
        found = of_raw(output.datatype, raw[place])
    else:
        found = next((list(content) for _, content in output.contents.ListFields()), [])
    return {"datatype": output.datatype, "shape": list(output.shape), "values": found}


def _of_open_rest(content: bytes, json_bytes: int) -> Any:
    told = _json(content[: json_bytes or len(content)])
    if not isinstance(told, dict) or not isinstance(told.get("outputs"), list):
        raise ValueError("the answer has no outputs")
    rest, outputs = content[json_bytes:] if json_bytes else b"", {}
    for output in told["outputs"]:
        if not isinstance(output, dict):
            raise ValueError("an output is no object")
        parameters = output.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if isinstance(size, int) and 0 <= size <= len(rest):
            found, rest = of_raw(str(output.get("datatype")), rest[:size]), rest[size:]
        else:
            found = flattened(output.get("data", []))
        outputs[str(output.get("name"))] = {"datatype": output.get("datatype"), "shape": output.get("shape"), "values": found}
    return {**{name: value for name, value in told.items() if name not in _OWN}, "outputs": outputs}


def _json(content: bytes) -> Any:
    """Raises ValueError."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


def _inflated(content: bytes, encoding: str) -> bytes:
    """Raises ValueError."""
    if not encoding:
        return content
    try:
        # Both forms of deflate, and gzip.
        stream = zlib.decompressobj(47)
        plain = stream.decompress(content, _MOST_INFLATED)
    except zlib.error as error:
        raise ValueError(f"the answer is no {encoding[:50]}") from error
    if not stream.eof:
        raise ValueError(f"the answer's {encoding[:50]} is cut short")
    return plain
