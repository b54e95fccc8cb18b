"""Bodies of requests: how long they may be, how slowly they may come, and room in memory for the large ones."""

from __future__ import annotations

import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from email.message import Message
from io import BufferedIOBase

MAX_BODY = 64 * 1024 * 1024
LARGE_BODY, LARGE_BODIES = 1 << 20, 8  # so many large ones at a time are in memory
_BODY_SECONDS, _LEAST_BYTES_A_SECOND = 10.0, 64 << 10  # how far one may fall behind, and behind what
_WANTED_BYTES_A_SECOND = 1 << 20  # where it has room that others wait for
_ROOM_SECONDS = 30.0


class Refused(Exception):
    """The answer to a request that is not taken."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Rooms:
    """For large bodies, and for what the script makes of them. Thread safe."""

    def __init__(self, rooms: int = LARGE_BODIES, patience: float = _ROOM_SECONDS) -> None:
        self._left = rooms
        self._patience = patience
        self._waiting = 0
        self._changed = threading.Condition()

    @property
    def wanted(self) -> bool:
        """Somebody waits for one."""
        return self._waiting > 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Raises Refused where none becomes free."""
        with self._changed:
            self._waiting += 1
            try:
                free = self._changed.wait_for(lambda: self._left, self._patience)
            finally:
                self._waiting -= 1
            if not free:
                what = f"{LARGE_BODIES} large bodies are being answered, and none was done within {self._patience:.0f} s"
                raise Refused(503, f"{what}; try again")
            self._left -= 1
        try:
            yield
        finally:
            with self._changed:
                self._left += 1
                self._changed.notify()


def announced(command: str, headers: Message) -> tuple[int, str]:
    """Length and encoding of the body. Raises Refused."""
    if "Transfer-Encoding" in headers:
        raise Refused(501, "chunked bodies are not served; send Content-Length")
    lengths = set(headers.get_all("Content-Length", []))
    if not lengths and command != "POST":
        return 0, "identity"
    length = lengths.pop() if len(lengths) == 1 else ""
    if not (length.isascii() and length.isdigit()):
        raise Refused(400, "Content-Length is missing or is no number")
    if len(length) > 12 or int(length) > MAX_BODY:
        raise Refused(413, f"the body exceeds {MAX_BODY} bytes")
    encoding = headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise Refused(501, f"Content-Encoding {encoding} is not served")
    return int(length), encoding


def read(connection: socket.socket, stream: BufferedIOBase, length: int, encoding: str, rooms: Rooms, held: ExitStack) -> bytes:
    """The body, decoded; `held` keeps the room that it took, where it needs any. The connection's timeout is its own meanwhile.

    Raises Refused, and ConnectionResetError where the client has left.
    """
    parts, missing, has_room = [], length, False
    until = time.monotonic() + _BODY_SECONDS
    while missing:
        block = _block(connection, stream, min(missing, LARGE_BODY), until)
        parts.append(block)
        missing -= len(block)
        # Whoever only says that much will come holds no room that others need.
        if not has_room and missing and length - missing >= LARGE_BODY:
            held.enter_context(rooms.one())
            has_room, until = True, time.monotonic() + _BODY_SECONDS
        pace = _WANTED_BYTES_A_SECOND if has_room and rooms.wanted else _LEAST_BYTES_A_SECOND
        until = min(time.monotonic() + _BODY_SECONDS, until + len(block) / pace)
    # A small one may inflate to the most there is.
    if not has_room and (length > LARGE_BODY or encoding != "identity"):
        held.enter_context(rooms.one())
    return b"".join(parts) if encoding == "identity" else _inflate(b"".join(parts))


def _block(connection: socket.socket, stream: BufferedIOBase, most: int, until: float) -> bytes:
    connection.settimeout(max(0.01, until - time.monotonic()))
    try:
        block = stream.read1(most)
    except TimeoutError as error:
        raise Refused(408, "the body of the request comes too slowly") from error
    if not block:
        raise ConnectionResetError("the client left in the middle of its request")
    return block


def _inflate(data: bytes) -> bytes:
    """A small body may inflate to any size: never beyond the limit."""
    try:
        stream = zlib.decompressobj(31)
        plain = stream.decompress(data, MAX_BODY + 1)
    except zlib.error as error:
        raise Refused(400, "the body is not gzip") from error
    if len(plain) > MAX_BODY:
        raise Refused(413, f"the inflated body exceeds {MAX_BODY} bytes")
    if not stream.eof:
        raise Refused(400, "the gzip body is cut short")
    return plain
