"""The name of the model in a request's bytes, without parsing the rest: fields are stepped over by their length. Pure."""

from __future__ import annotations

SERVING, INFERENCE = "/tensorflow.serving.PredictionService/", "/inference.GRPCInferenceService/"
# Where the name lies: field numbers from the outermost message inwards.
_PATHS = {
    **{f"{SERVING}{name}": (1, 1) for name in ("Predict", "Classify", "Regress", "GetModelMetadata")},
    f"{SERVING}MultiInference": (1, 1, 1),
    "/tensorflow.serving.ModelService/GetModelStatus": (1, 1),
    **{f"{INFERENCE}{name}": (1,) for name in ("ModelReady", "ModelMetadata", "ModelInfer", "ModelConfig", "ModelStatistics")},
}
_VARINT, _EIGHT, _TEXT, _FOUR = 0, 1, 2, 5
_LONGEST_NAME = 1000


class Malformed(Exception):
    """The bytes are no protobuf message."""


def is_known(method: str) -> bool:
    """Whether such a call names a model."""
    return method in _PATHS


def model_of(method: str, request: bytes) -> str:
    """ "" where it names none. Raises Malformed."""
    at, end = 0, len(request)
    for number in _PATHS[method]:
        found = _field(request, at, end, number)
        if found is None:
            return ""
        at, end = found
    if end - at > _LONGEST_NAME:
        raise Malformed(f"the model's name has {end - at} bytes")
    try:
        return request[at:end].decode()
    except UnicodeDecodeError as error:
        raise Malformed("the model's name is no UTF-8 text") from error


def _field(data: bytes, at: int, end: int, wanted: int) -> tuple[int, int] | None:
    """Where the field's bytes begin and end: of several the first, which is all that our clients write."""
    while at < end:
        tag, at = _varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise Malformed("a field has the number 0")
        if kind == _VARINT:
            _, at = _varint(data, at, end)
            continue
        length = {_EIGHT: 8, _FOUR: 4}.get(kind)
        if kind == _TEXT:
            length, at = _varint(data, at, end)
        if length is None or at + length > end:
            raise Malformed("a field reaches beyond the message's end, or is of no known kind")
        if number == wanted and kind == _TEXT:
            return at, at + length
        at += length
    return None


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Malformed("a number does not end")
