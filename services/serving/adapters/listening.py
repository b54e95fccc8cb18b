"""Sockets that listen for REST calls, held here and lent to server processes: one that takes over takes from the queue that the one before
took from, so whoever connects while they change places is answered by either."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from services.serving.listening import listen
from services.serving.ports import PortTaken


@dataclass
class _Held:
    listening: socket.socket
    owner: str
    users: int = 0


class Listening:
    """Of one process; not for several threads."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._held: dict[int, _Held] = {}

    @contextmanager
    def on(self, port: int, owner: str) -> Iterator[socket.socket]:
        """Listening there from now on, until the last who asked for it has left; 0: any port that is free. Raises PortTaken, also where it is
        another owner's."""
        held = self._held.get(port)
        if held is not None and held.owner != owner:
            raise PortTaken(f"REST port {self._host}:{port} is taken by {held.owner}")
        if held is None:
            listening = self._listen(port)
            port = listening.getsockname()[1]
            held = self._held[port] = _Held(listening, owner)
        held.users += 1
        try:
            yield held.listening
        finally:
            held.users -= 1
            if not held.users:
                del self._held[port]
                held.listening.close()

    def _listen(self, port: int) -> socket.socket:
        try:
            listening = listen(self._host, port)
        except OSError as error:
            raise PortTaken(str(error)) from error
        listening.setblocking(False)
        return listening
