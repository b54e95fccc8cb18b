"""Ports for ranks, kept free from the preparation until the ranks bind them.

Three things keep others away. Until a rank starts, a socket of ours is bound, on all addresses of the machine: TensorFlow's servers bind
them all, whatever address they are told. Ports lie outside the range from which the kernel takes those of connections and of sockets that
ask for any. And each is locked by a file that the agents of this machine share, also once its socket is closed: a rank takes seconds from
its start to its bind. A killed agent lets go of all by itself.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import socket
from pathlib import Path

from services.trainer_agent.ports import PreparationFailed

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_USUAL_RANGE = (32768, 60999)
_LOWEST, _HIGHEST, _ENOUGH = 20_000, 65_535, 1_000


class Reservation:
    """`numbers` are this holder's until `close`."""

    def __init__(self, kept: dict[int, tuple[int, socket.socket]]) -> None:
        self.numbers = tuple(kept)
        self._kept = kept

    def open(self, *numbers: int) -> None:
        """For the ranks to bind; to all others of this platform they stay taken."""
        for number in numbers:
            self._kept[number][1].close()

    def close(self) -> None:
        """A second time does nothing."""
        while self._kept:
            _, (lock, bound) = self._kept.popitem()
            bound.close()
            os.close(lock)


class Ports:
    def __init__(self, address: str, folder: Path) -> None:
        """Of that address of this machine; `folder` is shared by its agents."""
        self._address = address
        self._folder = folder

    def reserve(self, count: int) -> Reservation:
        """Raises PreparationFailed where there are not so many, or where the address is none of this machine's."""
        kept: dict[int, tuple[int, socket.socket]] = {}
        if not count:
            return Reservation(kept)
        first, end = candidates(*_local_range())
        try:
            _bound(self._address, 0).close()
            self._folder.mkdir(parents=True, exist_ok=True)
            for number in random.sample(range(first, end), end - first):
                if (taken := self._take(number)) is not None:
                    kept[number] = taken
                if len(kept) == count:
                    return Reservation(kept)
            raise OSError(errno.EADDRINUSE, f"no {count} of its ports from {first} to {end - 1} are free")
        except OSError as error:
            Reservation(kept).close()
            what = f"The node cannot reserve ports on {self._address}: {error.strerror}. Is agent.address an address of this machine?"
            raise PreparationFailed("NodeError", what, self._address) from error

    def _take(self, number: int) -> tuple[int, socket.socket] | None:
        """(lock, bound socket); None where somebody has it."""
        lock = os.open(self._folder / f"{number}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock, _bound("::" if ":" in self._address else "0.0.0.0", number)
        except OSError as error:
            os.close(lock)
            if error.errno in (errno.EWOULDBLOCK, errno.EADDRINUSE, errno.EACCES):
                return None
            raise


def _bound(address: str, number: int) -> socket.socket:
    """Without SO_REUSEADDR: nobody else can bind it beside us."""
    family, kind, protocol, _, place = socket.getaddrinfo(address, number, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.bind(place)
    except BaseException:
        bound.close()
        raise
    return bound


def candidates(low: int, high: int) -> tuple[int, int]:
    """(first, end) of the ports to choose from, given the kernel's own range: those above it, else those below, else the range itself."""
    if _HIGHEST - high >= _ENOUGH:
        return high + 1, _HIGHEST + 1
    if low - _LOWEST >= _ENOUGH:
        return _LOWEST, low
    return max(low, _LOWEST), max(high, _LOWEST) + 1


def _local_range() -> tuple[int, int]:
    try:
        low, high = map(int, _RANGE.read_text().split())
    except (OSError, ValueError):
        return _USUAL_RANGE
    return low, high
