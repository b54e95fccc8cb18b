"""As much of HTTP/1.1 as Gloo's clients speak: one request a connection, everything bounded, nothing interpreted."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

_REQUEST = re.compile(rb"(GET|PUT|DELETE) (/[!-~]{0,400}) HTTP/1\.[01]")
_HEADER = re.compile(rb"([A-Za-z0-9-]{1,64}):[ \t]*([ -~]{0,1000})")
_LENGTH = re.compile(r"[0-9]{1,8}", re.ASCII)
_MOST_HEADERS = 32
_MOST_BODY_BYTES = 4 << 20
_REQUEST_SECONDS = 30.0
_BROKEN = (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError)
_REASONS = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 410: "Gone", 503: "Service Unavailable"}


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    secret: str = ""
    body: bytes = b""


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes = b""


class BadRequest(Exception):
    """What came is no request of ours."""


async def read_head(reader: asyncio.StreamReader) -> tuple[Request, int]:
    """The request without its body, and how many bytes that has: nobody's body is read before the secret was looked at. Raises BadRequest."""
    try:
        async with asyncio.timeout(_REQUEST_SECONDS):
            matched = _REQUEST.fullmatch(await _line(reader))
            if matched is None:
                raise BadRequest("That is no request.")
            headers = await _headers(reader)
    except _BROKEN as error:
        raise BadRequest(f"The request broke off: {type(error).__name__}.") from error
    secret = headers.get("authorization", "").removeprefix("Bearer ")
    return Request(matched[1].decode(), matched[2].decode(), secret), _length(headers)


async def read_body(reader: asyncio.StreamReader, length: int) -> bytes:
    """Raises BadRequest."""
    try:
        async with asyncio.timeout(_REQUEST_SECONDS):
            return await reader.readexactly(length)
    except _BROKEN as error:
        raise BadRequest(f"The request broke off: {type(error).__name__}.") from error


async def read_response(reader: asyncio.StreamReader) -> Response:
    """Raises BadRequest."""
    try:
        status = (await _line(reader)).split(b" ")[1:2]
        headers = await _headers(reader)
        body = await reader.readexactly(_length(headers))
    except _BROKEN as error:
        raise BadRequest(f"The answer broke off: {type(error).__name__}.") from error
    if not status or not status[0].isdigit():
        raise BadRequest("That is no answer.")
    return Response(int(status[0]), body)


def as_bytes(message: Request | Response) -> bytes:
    head = f"Content-Length: {len(message.body)}\r\nConnection: close\r\n\r\n"
    if isinstance(message, Response):
        return f"HTTP/1.1 {message.status} {_REASONS[message.status]}\r\n{head}".encode() + message.body
    return f"{message.method} {message.path} HTTP/1.1\r\nAuthorization: Bearer {message.secret}\r\n{head}".encode() + message.body


async def _line(reader: asyncio.StreamReader) -> bytes:
    return (await reader.readuntil(b"\r\n"))[:-2]


async def _headers(reader: asyncio.StreamReader) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    while line := await _line(reader):
        matched = _HEADER.fullmatch(line)
        if matched is None or len(headers) == _MOST_HEADERS:
            raise BadRequest("Its headers are not ours.")
        headers[matched[1].decode().lower()] = matched[2].decode()
    if "transfer-encoding" in headers:
        raise BadRequest("A body needs a Content-Length.")
    return headers


def _length(headers: Mapping[str, str]) -> int:
    text = headers.get("content-length", "0")
    if not _LENGTH.fullmatch(text) or int(text) > _MOST_BODY_BYTES:
        raise BadRequest(f"A body has at most {_MOST_BODY_BYTES} bytes.")
    return int(text)
