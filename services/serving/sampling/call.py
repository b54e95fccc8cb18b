"""One call that was sampled, and its form in a spool: bytes that can be told to be whole."""

from __future__ import annotations

import hashlib
import json
import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

TENSORFLOW_REST, TENSORFLOW_GRPC, OPEN_REST, OPEN_GRPC, SCRIPT = 1, 2, 3, 4, 5
"""How a call came: numbers of trainyard.endpoint.v1.InferenceProtocol."""

MOST_CONTENT = 1 << 16
MOST_PATH = 8192
# Length of what is told about the call, of the two contents, and a checksum of all three.
_HEAD = struct.Struct(">IIII")
_MOST_ABOUT = 64 << 10
_MOST_HEADER = 200


@dataclass(frozen=True)
class Body:
    """What was sent, one way; `content` whole."""

    content: bytes
    content_type: str = ""
    json_bytes: int = 0
    content_encoding: str = ""


@dataclass(frozen=True)
class Call:
    protocol: int
    method: str
    path: str
    status: int
    at_ns: int
    """When it came, in nanoseconds since 1970."""
    latency_ns: int
    request: Body
    response: Body

    @property
    def size(self) -> int:
        """Bytes that it keeps in memory."""
        return len(self.request.content) + len(self.response.content) + 512


@dataclass(frozen=True)
class Payload:
    """As a spool has it: cut where it was too large, and then with the digest of the whole."""

    content: bytes
    size_bytes: int
    sha256: str
    content_type: str
    json_bytes: int
    content_encoding: str


@dataclass(frozen=True)
class Sample:
    sample_id: str
    protocol: int
    method: str
    path: str
    status: int
    at_ns: int
    latency_ns: int
    request: Payload
    response: Payload


def to_bytes(call: Call) -> bytes:
    """The record of a call, under an id of its own."""
    contents = [body.content[:MOST_CONTENT] for body in (call.request, call.response)]
    told = {
        "id": uuid.uuid4().hex,
        "protocol": call.protocol,
        "method": call.method[:_MOST_HEADER],
        "path": call.path[:MOST_PATH],
        "status": call.status,
        "at_ns": call.at_ns,
        "latency_ns": call.latency_ns,
        "request": _about(call.request),
        "response": _about(call.response),
    }
    about = json.dumps(told).encode()
    check = zlib.crc32(contents[1], zlib.crc32(contents[0], zlib.crc32(about)))
    return b"".join((_HEAD.pack(len(about), *map(len, contents), check), about, *contents))


def _about(body: Body) -> dict[str, Any]:
    cut = len(body.content) > MOST_CONTENT
    return {
        "size": len(body.content),
        "sha256": hashlib.sha256(body.content).hexdigest() if cut else "",
        "type": body.content_type[:_MOST_HEADER],
        "json": body.json_bytes,
        "encoding": body.content_encoding[:_MOST_HEADER],
    }


def parsed(data: bytes) -> Iterator[Sample | None]:
    """The samples of a spool's file; None, and an end, where it goes on with what is none: a process died there, or somebody else wrote."""
    at = 0
    while at < len(data):
        found = _one(data, at)
        if found is None:
            yield None
            return
        sample, at = found
        yield sample


def _one(data: bytes, at: int) -> tuple[Sample, int] | None:
    if len(data) - at < _HEAD.size:
        return None
    about, request, response, check = _HEAD.unpack_from(data, at)
    at += _HEAD.size
    end = at + about + request + response
    if about > _MOST_ABOUT or max(request, response) > MOST_CONTENT or end > len(data) or zlib.crc32(data[at:end]) != check:
        return None
    try:
        told = json.loads(data[at : at + about])
        contents = data[at + about : at + about + request], data[at + about + request : end]
        return _sample(told, *contents), end
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _sample(told: dict[str, Any], request: bytes, response: bytes) -> Sample:
    """Raises ValueError, KeyError and TypeError for what is none."""
    return Sample(
        uuid.UUID(_text(told["id"])).hex,
        _number(told["protocol"], SCRIPT),
        _text(told["method"]),
        _text(told["path"], MOST_PATH),
        _number(told["status"], 999),
        _number(told["at_ns"], 1 << 62),
        _number(told["latency_ns"], 1 << 62),
        _payload(told["request"], request),
        _payload(told["response"], response),
    )


def _payload(told: dict[str, Any], content: bytes) -> Payload:
    size, digest = _number(told["size"], 1 << 62), _text(told["sha256"])
    if size < len(content) or (size > len(content)) != (len(digest) == 64):
        raise ValueError("the content is not what was said of it")
    return Payload(content, size, digest, _text(told["type"]), _number(told["json"], 1 << 62), _text(told["encoding"]))


def _text(value: Any, most: int = _MOST_HEADER) -> str:
    if not isinstance(value, str) or len(value) > most:
        raise ValueError("no text of that length")
    value.encode()  # half a surrogate pair has no form in an event
    return value


def _number(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError("no number of that size")
    return value
