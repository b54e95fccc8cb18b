"""Sockets that listen for REST calls, held here and lent to server processes: one that takes over takes from the queue that the one before
took from, so whoever connects while they change places is answered by either."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from services.serving.ports import PortTaken

_BACKLOG = 128


class Listening:
    """Of one process; not for several threads."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._held: dict[int, tuple[socket.socket, int]] = {}

    @contextmanager
    def on(self, port: int) -> Iterator[socket.socket]:
        """Listening there from now on, until the last who asked for it has left; 0: any port that is free. Raises PortTaken."""
        held = self._held.get(port)
        listening = held[0] if held is not None else self._listen(port)
        number: int = listening.getsockname()[1]
        self._held[number] = listening, (held[1] if held is not None else 0) + 1
        try:
            yield listening
        finally:
            _, users = self._held[number]
            if users > 1:
                self._held[number] = listening, users - 1
            else:
                del self._held[number]
                listening.close()

    def _listen(self, port: int) -> socket.socket:
        listening = socket.socket()
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self._host, port))
            listening.listen(_BACKLOG)
        except OSError as error:
            listening.close()
            raise PortTaken(f"REST port {self._host}:{port} is taken: {error}") from error
        listening.setblocking(False)
        return listening
