"""The name and the version of the model in a request's bytes, without parsing the rest: fields are stepped over by their length. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SERVING, INFERENCE = "/tensorflow.serving.PredictionService/", "/inference.GRPCInferenceService/"
STREAM, INFER, READY = (f"{INFERENCE}{name}" for name in ("ModelStreamInfer", "ModelInfer", "ModelReady"))


@dataclass(frozen=True)
class _Place:
    """Where what names the model lies: field numbers from the outermost message inwards, and in there those of name and version."""

    path: tuple[int, ...]
    name: int
    version: tuple[int, ...]  # of a message, a number: google.protobuf.Int64Value; else a text


_NUMBER, _TEXTUAL = (2, 1), (2,)
_SPEC, _V2 = _Place((1,), 1, _NUMBER), _Place((), 1, _TEXTUAL)
_PLACES = {
    **{f"{SERVING}{name}": _SPEC for name in ("Predict", "Classify", "Regress", "GetModelMetadata")},
    f"{SERVING}MultiInference": _Place((1, 1), 1, _NUMBER),
    "/tensorflow.serving.ModelService/GetModelStatus": _SPEC,
    **{f"{INFERENCE}{name}": _V2 for name in ("ModelReady", "ModelMetadata", "ModelInfer", "ModelConfig", "ModelStatistics")},
}
_ID = 3  # of a ModelInferRequest
_VARINT, _EIGHT, _TEXT, _FOUR = 0, 1, 2, 5
_LONGEST_NAME = 1000
_LONGEST_VERSION = 19  # digits


class Malformed(Exception):
    """The bytes are no protobuf message."""


@dataclass(frozen=True)
class Asked:
    """Whom a request is for."""

    model: str  # "" where it names none
    version: int | None = None  # None: any, or none that there can be


def is_known(method: str) -> bool:
    """Whether such a call names a model."""
    return method in _PLACES


def asked(method: str, request: bytes) -> Asked:
    """Raises Malformed."""
    place, at, end = _PLACES[method], 0, len(request)
    for number in place.path:
        found = _field(request, at, end, number)
        if found is None:
            return Asked("")
        at, end = found
    name = _field(request, at, end, place.name)
    model = _text(request, name, "the model's name") if name is not None else ""
    if place.version == _TEXTUAL:
        version = _field(request, at, end, *_TEXTUAL)
        return Asked(model, version_in(_text(request, version, "the model's version")) if version is not None else None)
    wrapper, number = place.version
    inside = _field(request, at, end, wrapper)
    return Asked(model, _number(request, *inside, number) if inside is not None else None)


def id_of(request: bytes) -> str:
    """Of a ModelInferRequest; "" where it has none. Raises Malformed."""
    found = _field(request, 0, len(request), _ID)
    return _text(request, found, "the request's id") if found is not None else ""


def version_in(text: str) -> int | None:
    """As the Open Inference Protocol and paths have it; None where it is no number, which the server says."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _LONGEST_VERSION else None


def _text(data: bytes, place: tuple[int, int], what: str) -> str:
    at, end = place
    if end - at > _LONGEST_NAME:
        raise Malformed(f"{what} has {end - at} bytes")
    try:
        return data[at:end].decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"{what} is no UTF-8 text") from error


def _field(data: bytes, at: int, end: int, wanted: int) -> tuple[int, int] | None:
    """Where the bytes of a field with a length begin and end: of several the first, which is all that our clients write."""
    return next(((begin, over) for number, kind, begin, over in _fields(data, at, end) if number == wanted and kind == _TEXT), None)


def _number(data: bytes, at: int, end: int, wanted: int) -> int:
    """Of a field that is one; 0 where it is not there, as protobuf has it."""
    for number, kind, begin, over in _fields(data, at, end):
        if number == wanted and kind == _VARINT:
            return _varint(data, begin, over)[0]
    return 0


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number and kind of each, and where its bytes begin and end."""
    while at < end:
        tag, at = _varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise Malformed("a field has the number 0")
        if kind == _VARINT:
            begin = at
            _, at = _varint(data, at, end)
            yield number, kind, begin, at
            continue
        length = {_EIGHT: 8, _FOUR: 4}.get(kind)
        if kind == _TEXT:
            length, at = _varint(data, at, end)
        if length is None or at + length > end:
            raise Malformed("a field reaches beyond the message's end, or is of no known kind")
        yield number, kind, at, at + length
        at += length


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
