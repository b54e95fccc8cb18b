"""A socket that listens for REST calls. Standard library only, for the servers as well as for the service that lends them theirs."""

from __future__ import annotations

import socket

_BACKLOG = 128


def listen(host: str, port: int, *, share: bool = False) -> socket.socket:
    """`share`: beside another one that does so too (SO_REUSEPORT). Raises OSError if the port is taken."""
    listening = socket.socket()
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # in TIME_WAIT it may be taken again; listening it may not
        if share:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise OSError(f"REST port {host}:{port} is taken: {error}") from error
    return listening
