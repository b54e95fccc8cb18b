"""A file at a URL that a user named: read through once, hashed on the way. For processes that hold no secrets."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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


async def _stream(http: httpx.AsyncClient, url: str, sink: Callable[[bytes], object]) -> Found:
    digest, size = hashlib.sha256(), 0
    async with http.stream("GET", url) as response:
        if response.status_code != httpx.codes.OK:
            raise Unreachable(url, f"the server answered {response.status_code} {response.reason_phrase}".rstrip())
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
