"""One connection of the REST front: bytes to requests and answers to bytes, without ever waiting. When it is its turn is the loop's affair."""

from __future__ import annotations

import selectors
import socket
import ssl
from enum import Enum

from services.serving.model_server.errors import ServeError
from services.serving.model_server.http_messages import (
    MAX_HEAD,
    MAX_LINE,
    Answer,
    BadRequest,
    Headers,
    Request,
    body_length,
    error_answer,
    json_answer,
    parse_head,
    to_bytes,
)
from services.serving.model_server.peer import has_gone
from services.serving.model_server.rest_rooms import LARGE_BODIES, LARGE_BODY, Rooms

IDLE_SECONDS = 60  # a connection that says nothing for so long, or takes no answer for so long, is closed
_HEAD_SECONDS = 10.0  # from its first byte to its last
_BODY_SECONDS, _LEAST_BYTES_A_SECOND = 10.0, 64 << 10  # how far a body may fall behind, and behind what
_WANTED_BYTES_A_SECOND = 1 << 20  # where it has room that others wait for
_ROOM_SECONDS = 30.0
_BYTES_A_TURN = 256 << 10
_LINGER_SECONDS, _LINGER_BYTES = 1.0, 1 << 20
_USUAL_HEAD = 4096  # a longer one is not kept for a comparison with the next
_BLOCK, _LARGE_BLOCK = 1 << 16, 1 << 20
_END = b"\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_WOULD_WAIT = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Phase(Enum):
    SHAKING = "the two agree on TLS"
    HEAD = "the next request is awaited"
    BODY = "its body is awaited"
    ROOM = "its body waits for room in memory"
    CALL = "it is being answered"
    ANSWER = "the client takes the answer"
    LINGER = "nothing more is said, and the client is heard out"
    OVER = "closed"


class Connection:
    """The loop's alone, but for `put`. What its methods raise, OSError for the most part, ends it."""

    def __init__(self, accepted: socket.socket, tls: ssl.SSLContext | None, rooms: Rooms, now: float) -> None:
        self.socket: socket.socket = accepted
        self.phase = Phase.HEAD
        self.spoke = now
        """When it came, or was answered last."""
        self.until = now + IDLE_SECONDS
        """By then something has to have happened; infinite where that is not the client's affair."""
        self.registered = 0
        """What the loop's selector looks for."""
        self.more = False
        """Its turn was over before all was taken that is here: `go_on` takes the rest. The selector may know nothing of that."""
        self._rooms = rooms
        self._has_room = False
        self._buffer = b""
        self._parts: list[bytes] = []
        self._body = b""  # while it waits for room
        self._missing = 0
        self._head_begun = False
        self._known_head = b""  # clients send the same one again and again
        self._head = Request("", "", Headers())
        self._keep = self._may_keep = True
        self._length = self._known_length = 0
        self._out: memoryview | None = None
        self._lingers = _LINGER_BYTES
        self._shakes = READ
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tls = tls is not None
        if tls is not None:
            self.socket = tls.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
            self.phase = Phase.SHAKING

    @property
    def under_way(self) -> bool:
        """From the head of a request to the last byte of its answer."""
        return self.phase in _UNDER_WAY

    @property
    def wanted(self) -> int:
        """What the selector is to look for; while a call is under way it does not matter."""
        if self.phase is Phase.SHAKING:
            return self._shakes
        if self.phase is Phase.ANSWER:
            return WRITE
        return self.registered & READ if self.phase in (Phase.CALL, Phase.ROOM) else READ

    @property
    def idles(self) -> bool:
        """No request has begun."""
        return self.phase is Phase.HEAD and not (self._head_begun or self._buffer)

    # -- what comes in

    def ready(self, now: float) -> Request | None:
        """It may be read, or written to: a request, once one is here as a whole."""
        if self.phase is Phase.SHAKING:
            return self._shake(now)
        if self.phase is Phase.ANSWER:
            return self._flushed(now)
        if self.phase is Phase.LINGER:
            self._hear_out()
            return None
        return self._read(now)

    def _shake(self, now: float) -> Request | None:
        assert isinstance(self.socket, ssl.SSLSocket)
        try:
            self.socket.do_handshake()
        except ssl.SSLWantReadError:
            self._shakes = READ
            return None
        except ssl.SSLWantWriteError:
            self._shakes = WRITE
            return None
        self.phase = Phase.HEAD
        return self._read(now)

    def _read(self, now: float) -> Request | None:
        left = _BYTES_A_TURN
        while self.phase in (Phase.HEAD, Phase.BODY):
            if left <= 0:
                self.more = True
                return None
            try:
                block = self.socket.recv(min(self._missing, _LARGE_BLOCK) if self._missing else _BLOCK)
            except _WOULD_WAIT:
                return None
            if not block:
                self.end()
                return None
            left -= len(block)
            request = self._take(block, now)
            if request is not None or not self._tls:
                return request
            # TLS keeps what it has deciphered to itself, and the selector knows nothing of that.
        return None

    def _take(self, block: bytes, now: float) -> Request | None:
        if self._missing:
            self._parts.append(block)
            self._missing -= len(block)
            if not self._missing:
                return self._whole(b"".join(self._parts), now)
            pace = _WANTED_BYTES_A_SECOND if self._has_room and self._rooms.wanted else _LEAST_BYTES_A_SECOND
            self.until = min(now + _BODY_SECONDS, self.until + len(block) / pace)
            # Whoever only says that much will come holds no room that others need.
            if not self._has_room and self._length - self._missing >= LARGE_BODY:
                self._room(now)
            return None
        if not self._head_begun and block.lstrip(b"\r\n"):
            self._head_begun, self.until = True, now + _HEAD_SECONDS
        self._buffer = self._buffer + block if self._buffer else block
        return self._next(now)

    def _next(self, now: float) -> Request | None:
        """Out of what is here already."""
        try:
            if not self._take_head():
                return None
        except BadRequest as error:
            self._refuse(json_answer(error.status, {"error": error.message}), now)
            return None
        except ServeError as error:
            self._refuse(error_answer(error), now)
            return None
        self._keep, self._length = self._may_keep, self._known_length
        if self._head.method == "GET" and self._length:
            self._keep, self._length = False, 0  # what was not read would be taken for the next request
        if (self._head.headers.get("expect") or "").lower() == "100-continue":
            self._send(_CONTINUE)  # the client holds its body back until it hears this
        return self._begin_body(now)

    def _take_head(self) -> bool:
        """Raises BadRequest, and ServeError for a body whose length cannot be known."""
        buffer = self._buffer
        if buffer[:1] in (b"\r", b"\n"):
            buffer = self._buffer = buffer.lstrip(b"\r\n")
        end = buffer.find(_END)
        line = buffer.find(b"\r\n", 0, MAX_LINE + 2)
        if line < 0 and len(buffer) > MAX_LINE:
            raise BadRequest(414, f"the request line is longer than {MAX_LINE} bytes")
        if end < 0:
            if len(buffer) > MAX_HEAD:
                raise BadRequest(431, f"the headers are longer than {MAX_HEAD} bytes")
            return False
        head, self._buffer = buffer[:end], buffer[end + len(_END) :]
        if head != self._known_head:
            self._known_head = b""
            self._head, self._may_keep = parse_head(head)
            self._known_length = body_length(self._head.headers)
            self._known_head = head if len(head) <= _USUAL_HEAD else b""
        return True

    def _begin_body(self, now: float) -> Request | None:
        length, buffer = self._length, self._buffer
        if len(buffer) >= length:
            self._buffer = buffer[length:]
            return self._whole(buffer[:length], now)
        self._parts, self._buffer = [buffer], b""
        self._missing = length - len(buffer)
        self.phase, self.until = Phase.BODY, now + _BODY_SECONDS
        return None

    def _whole(self, body: bytes, now: float) -> Request | None:
        """The body is here."""
        self._parts, self.until = [], _NEVER
        # A small one may inflate to the most there is.
        needs_room = len(body) > LARGE_BODY or "content-encoding" in self._head.headers
        if needs_room and not self._has_room and not self._room(now):
            self._body = body
            return None
        return self._asked(body)

    def _asked(self, body: bytes) -> Request:
        self.phase = Phase.CALL
        return Request(self._head.method, self._head.target, self._head.headers, body)

    def _room(self, now: float) -> bool:
        self._has_room = self._rooms.enter(self)
        if not self._has_room:
            self.phase, self.until = Phase.ROOM, now + _ROOM_SECONDS
        return self._has_room

    def admitted(self, now: float) -> Request | None:
        """There is room for its body now."""
        self._has_room = True
        if self._missing:
            self.phase, self.until = Phase.BODY, now + _BODY_SECONDS
            return self._read(now)
        body, self._body, self.until = self._body, b"", _NEVER
        return self._asked(body)

    def looked_at(self, now: float) -> None:
        """Ends it where its time is over. Whoever waits for room is not read, and so not heard leaving."""
        if self.phase is Phase.ROOM and not has_gone(self.socket):
            if self.until <= now:
                self._rooms.forget(self)
                full = f"{LARGE_BODIES} large bodies are being answered, and none was done within {_ROOM_SECONDS:.0f} s; try again"
                self._refuse(json_answer(503, {"error": full}), now)
        elif self.phase is Phase.BODY and self.until <= now:
            self._refuse(json_answer(408, {"error": "the body of the request comes too slowly"}), now)
        elif self.phase is Phase.ROOM or self.until <= now:
            self.end()

    # -- what goes out

    def put(self, answer: Answer, *, last: bool) -> None:
        """As much of it as can be sent at once; in whatever thread answered the call. Raises OSError."""
        self._keep = self._keep and not last
        self._send(to_bytes(answer, close=not self._keep))

    def _send(self, data: bytes) -> None:
        """What cannot be sent at once is kept."""
        if self._out is not None:
            self._out = memoryview(bytes(self._out) + data)
            return
        try:
            sent = self.socket.send(data)
        except _WOULD_WAIT:
            sent = 0
        if sent < len(data):
            self._out = memoryview(data)[sent:]

    def answered(self, now: float) -> Request | None:
        """After `put`: the next request, if that is here already."""
        return self.go_on(now) if self.finished(now) else None

    def finished(self, now: float) -> bool:
        """After `put`: whether another request may follow at once."""
        self._give_room_back()
        if self._out is not None:
            self.phase, self.until = Phase.ANSWER, now + IDLE_SECONDS
            return False
        self.spoke = now
        if not self._keep:
            self._hang_up(now)
            return False
        self._buffer = self._buffer.lstrip(b"\r\n")
        self._head_begun = bool(self._buffer)
        self.phase, self.until = Phase.HEAD, now + (_HEAD_SECONDS if self._buffer else IDLE_SECONDS)
        return True

    def go_on(self, now: float) -> Request | None:
        """With what is here already."""
        self.more = False
        request = self._next(now) if self._buffer and self.phase is Phase.HEAD else None
        return self._read(now) if request is None and self._tls else request

    def _flushed(self, now: float) -> Request | None:
        assert self._out is not None
        try:
            self._out = self._out[self.socket.send(self._out) :]
        except _WOULD_WAIT:
            return None
        if self._out:
            return None
        self._out = None
        return self.answered(now)

    def _refuse(self, answer: Answer, now: float) -> None:
        """What came in is of no more use, and neither is the connection."""
        self.put(answer, last=True)
        self.answered(now)

    def _hang_up(self, now: float) -> None:
        self.phase, self.until = Phase.LINGER, now + _LINGER_SECONDS
        self._forget()
        self.socket.shutdown(socket.SHUT_WR)

    def _hear_out(self) -> None:
        """What the client still sends is read and forgotten, for a moment: closing before would tear the answer up on its way."""
        try:
            block = self.socket.recv(_BLOCK)
        except _WOULD_WAIT:
            return
        self._lingers -= len(block)
        if not block or self._lingers <= 0:
            self.end()

    def end(self) -> None:
        """The socket is the loop's to close."""
        self.phase, self._out, self.more = Phase.OVER, None, False
        self._forget()
        self._give_room_back()
        self._rooms.forget(self)

    def _forget(self) -> None:
        self._buffer = self._body = b""
        self._parts = []

    def _give_room_back(self) -> None:
        if self._has_room:
            self._has_room = False
            self._rooms.leave()


_NEVER = float("inf")
_UNDER_WAY = frozenset((Phase.BODY, Phase.ROOM, Phase.CALL, Phase.ANSWER))
