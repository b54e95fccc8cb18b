"""HTTP/1.1 as far as a model server needs it: heads to requests, answers to bytes. No sockets here."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus

from services.serving.model_server.encoding import inflate
from services.serving.model_server.errors import RESOURCE_EXHAUSTED, UNIMPLEMENTED, ServeError, invalid

MAX_BODY = 64 * 1024 * 1024
MAX_LINE = 65536
MAX_HEAD = 2 * MAX_LINE
MAX_HEADERS = 100
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_METHODS = frozenset({"GET", "POST"})
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class BadRequest(Exception):
    """What came in is no request that can be answered; the connection is of no more use."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Headers(dict[str, str]):
    """By name in whatever case; a name that came several times has its values joined."""

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        return super().get(name.lower(), default)


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    """Path and query as they were sent."""
    headers: Headers
    body: bytes = b""
    """Without its Content-Encoding."""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Content-Type is JSON where nothing else is said."""
    prompt: bool = False
    """Whoever asks the same again is answered in microseconds, and without a wait for anybody else."""


def json_answer(status: int, body: object, *, prompt: bool = False) -> Answer:
    return Answer(status, json.dumps(body).encode(), prompt=prompt)


def error_answer(error: ServeError) -> Answer:
    return json_answer(error.http_status, {"error": error.message})


def parse_head(head: bytes) -> tuple[Request, bool]:
    """A request without its body, and whether the connection may be kept. Raises BadRequest."""
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/"):
        raise BadRequest(400, f"Bad request line: {lines[0][:200]!r}")
    method, target, protocol = words
    if protocol not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequest(505, f"{protocol[:20]} is not spoken here; use HTTP/1.1")
    if len(lines) > MAX_HEADERS + 1:
        raise BadRequest(431, f"more than {MAX_HEADERS} headers")
    headers = Headers()
    for line in lines[1:]:
        _add(headers, line)
    if method not in _METHODS:
        raise BadRequest(501, f"Unsupported method ({method[:20]!r})")
    told = headers.get("connection", "") or ""
    keep = "close" not in told.lower() if protocol == "HTTP/1.1" else "keep-alive" in told.lower()
    return Request(method, target, headers), keep


def _add(headers: Headers, line: str) -> None:
    name, colon, value = line.partition(":")
    name = name.lower()
    if not (colon and name) or not _TOKEN.issuperset(name):
        raise BadRequest(400, f"Bad header: {line[:200]!r}")
    value = value.strip(" \t")
    if _CONTROL.search(value):
        # Whoever comes after us may take it for the end of the header.
        raise BadRequest(400, f"Bad header: {name[:200]!r} has a control character")
    headers[name] = f"{headers[name]}, {value}" if name in headers else value


def body_length(headers: Headers) -> int:
    """Of the body that follows. Raises ServeError where that cannot be known, or is too much."""
    if "transfer-encoding" in headers:
        raise ServeError(UNIMPLEMENTED, "chunked bodies are not served; send Content-Length")
    told = headers.get("content-length")
    if told is None:
        return 0  # as HTTP has it, and as tritonclient 2.51 sends an empty body
    lengths = {length.strip() for length in told.split(",")}
    length = lengths.pop() if len(lengths) == 1 else ""
    if not (length.isascii() and length.isdigit()):
        raise invalid("Content-Length is no number")
    if len(length) > 12 or int(length) > MAX_BODY:
        raise too_large("the body")
    return int(length)


def decoded(body: bytes, headers: Headers) -> bytes:
    """The body without its Content-Encoding. Raises ServeError."""
    return inflate(body, headers.get("content-encoding") or "", MAX_BODY)


def too_large(what: str) -> ServeError:
    return ServeError(RESOURCE_EXHAUSTED, f"{what} exceeds {MAX_BODY} bytes", http_status=413)


def to_bytes(answer: Answer, *, close: bool) -> bytes:
    head = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Error')}", _date()]
    if "Content-Type" not in answer.headers:
        head.append("Content-Type: application/json")
    head += [f"{name}: {value}" for name, value in answer.headers.items()]
    head.append(f"Content-Length: {len(answer.body)}")
    if close:
        head.append("Connection: close")
    return "\r\n".join(head).encode("latin-1", "replace") + b"\r\n\r\n" + answer.body


_dated = (0, "")


def _date() -> str:
    global _dated
    now = int(time.time())
    if _dated[0] != now:
        _dated = now, f"Date: {formatdate(now, usegmt=True)}"
    return _dated[1]
