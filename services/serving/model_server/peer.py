"""What the kernel knows of the other end of a connection, before anything is read."""

from __future__ import annotations

import select
import socket

_LEFT = getattr(select, "POLLRDHUP", 0)  # Linux's alone; elsewhere only a connection that broke is noticed


def has_gone(connected: socket.socket) -> bool:
    """Whether the other end has closed, whatever of its words is still unread."""
    return bool(_told(connected, _LEFT))


def has_spoken(connected: socket.socket) -> bool:
    """Whether words of the other end are still unread; of one that has gone they are of no use."""
    return _told(connected, select.POLLIN | _LEFT) == select.POLLIN


def _told(connected: socket.socket, what: int) -> int:
    poll = select.poll()
    poll.register(connected, what)
    return sum(told for _, told in poll.poll(0))
