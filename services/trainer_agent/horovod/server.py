"""The sockets of a ring: who may speak to it is seen before anything else is read."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection

import structlog

from services.trainer_agent.horovod.http import BadRequest, Request, Response, as_bytes, read_body, read_head, read_response

log = structlog.get_logger()
_MOST_CONNECTIONS = 4_000
_AGAIN_SECONDS = 0.2
Answer = Callable[[Request], Awaitable[Response]]


class Server:
    """`secrets` and `peers` (addresses) are looked at anew for each request; `answer` gets only what has one of each."""

    def __init__(self, secrets: Callable[[], Collection[str]], peers: Callable[[], Collection[str]], answer: Answer) -> None:
        self._secrets = secrets
        self._peers = peers
        self._answer = answer
        self._connections: set[asyncio.Task[None]] = set()
        self._bound: list[socket.socket] = []
        self._listening: list[asyncio.Task[None]] = []

    def listen(self, address: str, port: int) -> int:
        """The port, bound by the time it returns; 0 = any free one. Raises OSError."""
        bound = _bind(address, port)
        self._bound.append(bound)
        self._listening.append(asyncio.create_task(self._accept(bound)))
        return int(bound.getsockname()[1])

    def listen_soon(self, address: str, port: int) -> None:
        """As `listen`, where the port may be held for some moments yet."""
        self._listening.append(asyncio.create_task(self._when_free(address, port)))

    async def close(self) -> None:
        tasks = [*self._listening, *self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # A task that was cancelled before its first step has closed nothing.
        for bound in self._bound:
            bound.close()

    async def _when_free(self, address: str, port: int) -> None:
        while True:
            try:
                bound = _bind(address, port)
            except OSError as error:
                log.warning("waits for the port of a rendezvous", address=address, port=port, reason=str(error))
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            self._bound.append(bound)
            return await self._accept(bound)

    async def _accept(self, bound: socket.socket) -> None:
        server = await asyncio.start_server(self._connected, sock=bound, limit=1 << 14)
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            response = await self._one(reader, str(writer.get_extra_info("peername")[0]))
            writer.write(as_bytes(response))
            await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            # Whoever asked is gone, or the ring is closed.
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, peer: str) -> Response:
        if len(self._connections) > _MOST_CONNECTIONS:
            return Response(503, b"Too many connections.")
        if not _is_among(peer, self._peers()):
            return Response(403, b"This address is not of the run.")
        try:
            request, length = await read_head(reader)
            if not any(hmac.compare_digest(request.secret.encode(), it.encode()) for it in self._secrets()):
                return Response(403, b"The run's secret is missing or wrong.")
            body = await read_body(reader, length)
        except BadRequest as error:
            return Response(400, str(error).encode())
        return await self._answer(Request(request.method, request.path, request.secret, body))


async def ask(request: Request, address: str, port: int, own_address: str, seconds: float) -> Response:
    """Another ring's answer. Raises OSError, TimeoutError, BadRequest."""
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection(address, port, local_addr=(own_address, 0))
        try:
            writer.write(as_bytes(request))
            await writer.drain()
            return await read_response(reader)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def _bind(address: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
        bound.listen(1024)
    except OSError:
        bound.close()
        raise
    bound.setblocking(False)
    return bound


def _is_among(peer: str, allowed: Collection[str]) -> bool:
    """A process that speaks to an address of its own machine's loopback does so from 127.0.0.1, whichever of them it is."""
    if peer in allowed:
        return True
    loopback = any(ipaddress.ip_address(it).is_loopback for it in allowed)
    return loopback and ipaddress.ip_address(peer).is_loopback
