"""A file at a URL that a user named: read through, hashed on the way, or kept and gone on with after a break.

For clients, and for processes of the platform that hold no secrets.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx

# No compression: size and digest must be those of the file, whoever asks for it.
_HEADERS = {"accept-encoding": "identity", "accept": "*/*", "user-agent": "trainyard"}


@dataclass(frozen=True)
class Limits:
    """Seconds, but for the two counts."""

    at_once: int = 8
    redirects: int = 5
    connect: float = 10.0
    silence: float = 30.0
    file: float = 3600.0


@dataclass(frozen=True)
class Found:
    """What lay there: bytes, the server's ETag or "", and the digest."""

    size: int
    etag: str
    sha256: str


class Unreachable(Exception):
    """A file cannot be read where its URL says: which, and what happened."""

    def __init__(self, url: str, what: str) -> None:
        super().__init__(what)
        self.url = url


class _BrokenOff(Exception):
    """It may go on where it ended."""


def client(limits: Limits, tls: ssl.SSLContext | None = None) -> httpx.AsyncClient:
    """Follows redirects, and only to http and https."""
    return httpx.AsyncClient(
        headers=_HEADERS,
        verify=tls or httpx.create_ssl_context(),
        follow_redirects=True,
        max_redirects=limits.redirects,
        timeout=httpx.Timeout(limits.silence, connect=limits.connect, pool=None),
    )


async def read(http: httpx.AsyncClient, url: str, limits: Limits, sink: Callable[[bytes], object] = lambda block: None) -> Found:
    """The whole body, block by block into `sink`. Raises Unreachable."""
    try:
        async with asyncio.timeout(limits.file):
            return await _stream(http, url, sink)
    except Unreachable:
        raise
    except Exception as error:
        # A server far away can make the client fail in any way; whatever it is, it is an answer and no reason to try for ever.
        raise Unreachable(url, _told(error, limits)) from error


async def download(
    http: httpx.AsyncClient, url: str, part: Path, limits: Limits, told: Callable[[int], object] = lambda number: None
) -> Found:
    """The whole file into `part`. A beginning that is there is kept if the server can go on from it and its file is still the same one;
    that is known by ETag or Last-Modified, which lie beside it in `<part>.tag` until the file is whole. A connection that breaks is taken
    up again as long as each attempt brings something. Raises Unreachable.

    `told` gets the number of bytes that came, and less than zero where they had to be thrown away.
    """
    most = _size(part)
    told(most)
    while True:
        try:
            async with asyncio.timeout(limits.file):
                found = await _fill(http, url, part, told)
        except Unreachable:
            raise
        except Exception as error:
            have = _size(part)
            if have <= most or not isinstance(error, httpx.TransportError | _BrokenOff | TimeoutError):
                raise Unreachable(url, _told(error, limits)) from error
            most = have
        else:
            _tag(part).unlink(missing_ok=True)
            return found


async def _fill(http: httpx.AsyncClient, url: str, part: Path, told: Callable[[int], object]) -> Found:
    have, tag = _size(part), _tag(part).read_text("latin-1") if _tag(part).exists() else ""
    asked = {"range": f"bytes={have}-", "if-range": tag} if have and tag else {}
    with part.open("r+b" if part.exists() else "w+b") as file:
        async with http.stream("GET", url, headers=asked) as response:
            digest = _beginning(response, url, file, have)
            if not file.tell():
                told(-have)
                file.truncate()
            etag, length = response.headers.get("etag", ""), response.headers.get("content-length")
            _tag(part).write_text(etag if etag and not etag.startswith("W/") else response.headers.get("last-modified", ""), "latin-1")
            came = 0
            try:
                async for block in response.aiter_raw():
                    digest.update(block)
                    file.write(block)
                    came += len(block)
                    told(len(block))
            except httpx.RemoteProtocolError as error:
                if length:
                    raise _BrokenOff(f"the body ended after {came} of {length} bytes") from error
                raise
            return Found(file.tell(), etag, digest.hexdigest())


def _beginning(response: httpx.Response, url: str, file: BinaryIO, have: int) -> hashlib._Hash:
    """The digest of what is kept; the file stands where the body goes on: at its end, or at its start."""
    digest = hashlib.sha256()
    if response.status_code == httpx.codes.PARTIAL_CONTENT and response.headers.get("content-range", "").startswith(f"bytes {have}-"):
        while block := file.read(1 << 20):
            digest.update(block)
    elif response.status_code != httpx.codes.OK:
        raise _refused(response, url)
    return digest


def _refused(response: httpx.Response, url: str) -> Unreachable:
    return Unreachable(url, f"the server answered {response.status_code} {response.reason_phrase}".rstrip())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _tag(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


async def _stream(http: httpx.AsyncClient, url: str, sink: Callable[[bytes], object]) -> Found:
    digest, size = hashlib.sha256(), 0
    async with http.stream("GET", url) as response:
        if response.status_code != httpx.codes.OK:
            raise _refused(response, url)
        try:
            async for block in response.aiter_raw():
                digest.update(block)
                size += len(block)
                sink(block)
        except httpx.RemoteProtocolError as error:
            if length := response.headers.get("content-length"):
                raise Unreachable(url, f"the body ended after {size} of {length} bytes") from error
            raise
        return Found(size, response.headers.get("etag", ""), digest.hexdigest())


def _told(error: Exception, limits: Limits) -> str:
    match error:
        case httpx.ConnectTimeout():
            return f"no connection within {limits.connect:g} s"
        case httpx.TimeoutException():
            return f"the server sent nothing for {limits.silence:g} s"
        case TimeoutError():
            return f"it was not read to its end within {limits.file:g} s"
        case httpx.TooManyRedirects():
            return f"it redirects more than {limits.redirects} times"
        case httpx.UnsupportedProtocol():
            return "it redirects to something that is neither http nor https"
        case httpx.ConnectError():
            return _why_no_connection(error)
        case _BrokenOff():
            return str(error)
        case httpx.RemoteProtocolError():
            return f"the server broke off or does not speak HTTP: {error}"
        case _:
            return f"{type(error).__name__}: {error}"


def _why_no_connection(error: BaseException) -> str:
    causes = list(_causes(error))
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return "its host's name was not found"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "the connection was refused"
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    return f"TLS failed: {tls.reason or tls}" if tls is not None else f"no connection: {error}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and whatever led to it."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                yield from _causes(inner)
        error = error.__cause__ or error.__context__
