"""How a scoring server takes bodies in, by a clock that the tests turn."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from email.message import Message
from io import BufferedIOBase
from typing import Any, cast

import pytest

from services.serving.scoring_server import bodies
from services.serving.scoring_server.bodies import LARGE_BODY, MAX_BODY, Refused, Rooms


class Client:
    """Sends so many bytes, each time so many seconds after the last ones."""

    def __init__(self, blocks: int, seconds: float) -> None:
        self.now, self.patience = 0.0, 0.0
        self._block, self._seconds = b"x" * blocks, seconds

    def settimeout(self, seconds: float) -> None:
        self.patience = seconds

    def read1(self, most: int) -> bytes:
        if self._seconds > self.patience:
            self.now += self.patience
            raise TimeoutError
        self.now += self._seconds
        return self._block[:most]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    def turned_by(client: Client) -> Client:
        monkeypatch.setattr(bodies.time, "monotonic", lambda: client.now)
        return client

    return turned_by


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


def taken(client: Client, length: int, rooms: Rooms, held: ExitStack) -> bytes:
    return bodies.read(cast(socket.socket, client), cast(BufferedIOBase, client), length, "identity", rooms, held)


def full(held: ExitStack) -> Rooms:
    rooms = Rooms(1, patience=0)
    held.enter_context(rooms.one())
    return rooms


def test_a_body_that_keeps_its_pace_may_be_long_in_coming(clock: Any, held: ExitStack) -> None:
    client = clock(Client(128 << 10, 2.0))

    assert len(taken(client, MAX_BODY, Rooms(), held)) == MAX_BODY
    assert client.now > 900


@pytest.mark.parametrize(("blocks", "seconds"), [(1, 1.0), (32 << 10, 1.0), (LARGE_BODY, 11.0)])
def test_one_that_falls_behind_is_told_so_and_not_by_its_length(clock: Any, held: ExitStack, blocks: int, seconds: float) -> None:
    client = clock(Client(blocks, seconds))

    with pytest.raises(Refused, match="too slowly") as caught:
        taken(client, MAX_BODY, Rooms(), held)

    assert caught.value.status == 408
    assert client.now <= 60


def test_room_is_taken_when_much_of_it_is_here_and_given_back(clock: Any, held: ExitStack) -> None:
    rooms, client = full(held), clock(Client(LARGE_BODY // 2, 0.0))

    assert len(taken(client, LARGE_BODY, rooms, held)) == LARGE_BODY
    with pytest.raises(Refused, match="try again") as caught:
        taken(client, LARGE_BODY + 1, rooms, held)
    assert caught.value.status == 503
    held.close()
    assert len(taken(client, LARGE_BODY + 1, rooms, held)) == LARGE_BODY + 1


def test_what_may_inflate_needs_room_however_small_it_is(clock: Any, held: ExitStack) -> None:
    client = clock(Client(1, 0.0))

    with pytest.raises(Refused, match="try again"):
        bodies.read(cast(socket.socket, client), cast(BufferedIOBase, client), 1, "gzip", full(held), held)


def test_whoever_has_room_that_others_wait_for_has_to_use_it(clock: Any, held: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = clock(Client(256 << 10, 1.0))
    assert len(taken(slow, 16 * LARGE_BODY, Rooms(), held)) == 16 * LARGE_BODY

    monkeypatch.setattr(Rooms, "wanted", True)
    with pytest.raises(Refused, match="too slowly"):
        taken(slow, 16 * LARGE_BODY, Rooms(), held)


@pytest.mark.parametrize(
    ("command", "headers", "status"),
    [
        ("POST", {"Transfer-Encoding": "chunked"}, 501),
        ("POST", {}, 400),
        ("POST", {"Content-Length": "٣"}, 400),
        ("GET", {"Content-Length": "-1"}, 400),
        ("POST", {"Content-Length": str(MAX_BODY + 1)}, 413),
        ("POST", {"Content-Length": "1", "Content-Encoding": "br"}, 501),
    ],
)
def test_what_announces_itself_wrongly_is_refused(command: str, headers: dict[str, str], status: int) -> None:
    message = Message()
    for name, value in headers.items():
        message[name] = value

    with pytest.raises(Refused) as caught:
        bodies.announced(command, message)

    assert caught.value.status == status
