"""Sockets that listen for REST calls, held here and lent to server processes: one that takes over takes from the queue that the one before
took from, so whoever connects while they change places is answered by either."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from services.serving.listening import listen


class Taken(Exception):
    """Somebody else listens there."""


@dataclass
class Lent:
    listening: socket.socket
    port: int
    owner: str
    users: int = 0


class Lending:
    def __init__(self) -> None:
        self._held: dict[int, Lent] = {}

    def take(self, host: str, port: int, owner: str) -> Lent:
        """Listening there from now on, until the last who took it has given it back; 0: any port that is free. Raises Taken, also where it is
        another owner's."""
        lent = self._held.get(port)
        if lent is not None and lent.owner != owner:
            raise Taken(f"REST port {host}:{port} is taken by {lent.owner}")
        if lent is None:
            listening = _listen(host, port)
            port = listening.getsockname()[1]
            lent = self._held[port] = Lent(listening, port, owner)
        lent.users += 1
        return lent

    def give_back(self, lent: Lent) -> None:
        lent.users -= 1
        if not lent.users:
            del self._held[lent.port]
            lent.listening.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        listening = listen(host, port)
    except OSError as error:
        raise Taken(str(error)) from error
    listening.setblocking(False)
    return listening
