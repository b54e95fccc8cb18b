"""A gRPC port that passes from one process to another, both listening on it (SO_REUSEPORT), so that no caller notices.

gRPC cancels what reaches a server that it shuts down, also on connections whose callers cannot know yet. So nothing is shut down while
somebody is connected: connections have an age, at whose end gRPC asks the caller to come again and goes on answering until it has left.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

AGE = "grpc.max_connection_age_ms"
AGE_SECONDS = 6.0
_ATTACH_PROGRAM = 51  # SO_ATTACH_REUSEPORT_CBPF, which Python's socket does not name
_RETURN = 6  # BPF_RET | BPF_K
_SETTLES_SECONDS = 0.1  # what was waiting to be accepted is accepted by then
_LOOK_SECONDS = 0.02
_STRAYS = 1.1  # gRPC spreads the ages of connections by a tenth either way
_LEAVES_SECONDS = 1.0
_LISTENS = "0A"


def with_age(arguments: Sequence[tuple[str, str | int]]) -> list[tuple[str, str | int]]:
    """Of a server that others may take over from; what was asked for stays."""
    return [*arguments] if any(name == AGE for name, _ in arguments) else [(AGE, int(AGE_SECONDS * 1000)), *arguments]


def age_of(arguments: Sequence[tuple[str, str | int]]) -> float:
    """In seconds; 0: connections stay for as long as their callers like."""
    told = [str(value) for name, value in arguments if name == AGE]
    return int(told[-1]) / 1000 if told and told[-1].isdigit() else 0.0


def hand_over(port: int, age_seconds: float) -> None:
    """Returns when all who were connected have left for another process that listens there. Without one, or where connections have no age,
    it stops listening and returns at once."""
    others = _others(port)
    if len(others) == 1:
        with _listening(port) as ours:
            _send_elsewhere(ours)
        time.sleep(_SETTLES_SECONDS)
    stop_listening(port)
    if not others or not age_seconds:
        return
    deadline = time.monotonic() + age_seconds * _STRAYS + _LEAVES_SECONDS
    while _connections(port) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)


def stop_listening(port: int) -> None:
    """Before the server says good-bye to those who are connected: they come again at once, and would meet the door that closes, whose
    refusal a client takes for a second's pause. gRPC keeps its socket to itself, so it is looked up; where the system shows none, nothing is
    done."""
    with _listening(port) as found:
        for it in found:
            with suppress(OSError):
                it.shutdown(socket.SHUT_RD)


def _send_elsewhere(ours: Sequence[socket.socket]) -> None:
    """New connections go to the younger one of two. A socket that is closed with connections in its queue resets them; so there are none."""
    instructions = struct.pack("HBBI", _RETURN, 0, 0, 1)
    buffer = ctypes.create_string_buffer(instructions)
    program = struct.pack("HL", len(instructions) // 8, ctypes.addressof(buffer))
    for it in ours:
        with suppress(OSError):
            it.setsockopt(socket.SOL_SOCKET, _ATTACH_PROGRAM, program)


@contextmanager
def _listening(port: int) -> Iterator[list[socket.socket]]:
    with _own(port) as every:
        yield [it for it in every if it.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)]


def _connections(port: int) -> int:
    """So many callers are connected to this process."""
    with _own(port) as every:
        return sum(not it.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for it in every)


@contextmanager
def _own(port: int) -> Iterator[list[socket.socket]]:
    """This process's own sockets there, as copies."""
    found: list[socket.socket] = []
    with ExitStack() as copies:
        with suppress(OSError):
            for name in os.listdir("/proc/self/fd"):
                with suppress(OSError):
                    if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                        continue
                    with ExitStack() as copied:
                        copy = copied.enter_context(socket.socket(fileno=os.dup(int(name))))
                        if copy.family in (socket.AF_INET, socket.AF_INET6) and copy.getsockname()[1] == port:
                            found.append(copy)
                            copies.push(copied.pop_all())
        yield found


def _others(port: int) -> set[str]:
    """What listens there beside this process, by the numbers of their sockets."""
    with _listening(port) as ours:
        own = {str(os.fstat(it.fileno()).st_ino) for it in ours}
    found = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTENS and int(words[1].rpartition(":")[2], 16) == port:
                    found.add(words[9])
    return found - own
