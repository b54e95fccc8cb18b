"""One connection of the REST front by a clock that the tests turn, over a socket that is none."""

from __future__ import annotations

import socket
from typing import cast

import pytest

from services.serving.model_server import rest_connection
from services.serving.model_server.http_messages import MAX_BODY
from services.serving.model_server.rest_connection import Connection, Phase
from services.serving.model_server.rest_rooms import LARGE_BODIES, LARGE_BODY, Rooms

_SMALL = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"


class Wire:
    """What the client said and nobody has read, and what was said to it."""

    def __init__(self) -> None:
        self.said, self.heard = b"", b""

    def recv(self, most: int) -> bytes:
        if not self.said:
            raise BlockingIOError
        block, self.said = self.said[:most], self.said[most:]
        return block

    def send(self, data: bytes) -> int:
        self.heard += data
        return len(data)

    def setblocking(self, _: bool) -> None: ...
    def setsockopt(self, *_: int) -> None: ...
    def shutdown(self, _: int) -> None: ...


def connected(rooms: Rooms | None = None) -> tuple[Connection, Wire]:
    wire = Wire()
    return Connection(cast(socket.socket, wire), None, rooms or Rooms(), 0.0), wire


def says(connection: Connection, wire: Wire, words: bytes, now: float) -> object:
    wire.said += words
    return connection.ready(now)


def test_a_head_has_a_deadline_that_no_further_byte_moves() -> None:
    connection, wire = connected()
    says(connection, wire, b"G", 50.0)
    deadline = connection.until

    says(connection, wire, b"ET / ", 55.0)

    assert connection.until == deadline < 50 + rest_connection.IDLE_SECONDS
    connection.looked_at(deadline)
    assert connection.phase is Phase.OVER


def test_empty_lines_before_a_head_move_no_deadline_and_begin_none() -> None:
    connection, wire = connected()
    deadline = connection.until

    says(connection, wire, b"\r\n", 50.0)

    assert connection.until == deadline
    assert connection.idles


def test_a_body_has_to_go_on_coming() -> None:
    connection, wire = connected()
    says(connection, wire, b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n", 0.0)

    for now in range(5, 40, 5):
        says(connection, wire, b"x" * 5 * (64 << 10) if now < 15 else b"x", float(now))
        connection.looked_at(float(now))
        assert (connection.phase is Phase.BODY) == (now < 25)


def test_whose_body_comes_too_slowly_is_told_so() -> None:
    connection, wire = connected()
    says(connection, wire, b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n", 0.0)

    connection.looked_at(10.0)

    assert wire.heard.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close" in wire.heard
    assert connection.phase is Phase.LINGER


@pytest.mark.parametrize(("pace", "stays"), [(64 << 10, False), (2 << 20, True)])
def test_whoever_has_room_that_others_wait_for_has_to_use_it(pace: int, stays: bool) -> None:
    rooms = Rooms()
    connection, wire = connected(rooms)
    says(connection, wire, b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % MAX_BODY, 0.0)
    says(connection, wire, b"x" * LARGE_BODY, 0.0)
    says(connection, wire, b"x" * pace, 1.0)
    for now in range(2, 20):  # nobody waits: a slow line is no harm
        says(connection, wire, b"x" * (64 << 10), float(now))
        connection.looked_at(float(now))
    assert connection.phase is Phase.BODY
    waits = _waits_behind(rooms)

    for now in range(20, 40):
        if connection.phase is Phase.BODY:
            says(connection, wire, b"x" * pace, float(now))
        connection.looked_at(float(now))

    assert (connection.phase is Phase.BODY) == stays
    assert (rooms.next() is waits) == (not stays)


def _waits_behind(rooms: Rooms) -> Connection:
    for _ in range(LARGE_BODIES):
        waits, wire = connected(rooms)
        says(waits, wire, b"POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 0.0)
    assert rooms.wanted
    return waits


def test_a_large_body_takes_room_when_much_of_it_is_here() -> None:
    rooms = _without_room()
    connection, wire = connected(rooms)
    says(connection, wire, b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (2 * LARGE_BODY), 0.0)
    says(connection, wire, b"x" * (LARGE_BODY - 1), 1.0)
    assert connection.phase is Phase.BODY
    says(connection, wire, b"x", 1.0)
    assert connection.phase is Phase.ROOM

    rooms.leave()
    assert rooms.next() is connection
    connection.admitted(2.0)
    request = says(connection, wire, b"y" * LARGE_BODY, 2.0)

    assert isinstance(request, rest_connection.Request)
    assert request.body == b"x" * LARGE_BODY + b"y" * LARGE_BODY


@pytest.mark.parametrize("head", [b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", b"Content-Length: 2000000\r\n\r\n"])
def test_who_waits_for_room_in_vain_is_told_so_and_is_in_nobodys_way(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_connection, "has_gone", lambda _: False)
    rooms = _without_room()
    connection, wire = connected(rooms)
    says(connection, wire, b"POST / HTTP/1.1\r\n" + head, 0.0)
    says(connection, wire, b"x" * 1_500_000, 0.0)
    assert connection.phase is Phase.ROOM

    connection.looked_at(29.0)
    assert not wire.heard
    connection.looked_at(30.0)

    assert wire.heard.startswith(b"HTTP/1.1 503 ")
    assert b"Connection: close" in wire.heard
    rooms.leave()
    assert rooms.next() is None


def test_who_left_while_waiting_for_room_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = _without_room()
    connection, wire = connected(rooms)
    says(connection, wire, b"POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 0.0)
    monkeypatch.setattr(rest_connection, "has_gone", lambda _: True)

    connection.looked_at(1.0)

    assert connection.phase is Phase.OVER
    rooms.leave()
    assert rooms.next() is None


def test_what_is_left_for_the_next_turn_is_here_and_not_read_for() -> None:
    connection, wire = connected()
    request = says(connection, wire, _SMALL * 2, 0.0)
    assert request is not None

    assert connection.finished(0.0)
    assert connection.go_on(0.0) is not None
    assert connection.finished(0.0)
    assert connection.go_on(0.0) is None
    assert connection.idles


def _without_room() -> Rooms:
    rooms = Rooms()
    for _ in range(LARGE_BODIES):
        assert rooms.enter(connected()[0])
    return rooms
