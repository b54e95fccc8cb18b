"""Where the keeper of a home is found: `<home>/keeper.sock`, for its owner alone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import sys
from pathlib import Path

NAME = "keeper.sock"
_PEER = struct.Struct("3i")  # pid, uid, gid


def connect(home: Path) -> socket.socket:
    """Raises OSError where none answers."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        if sys.platform == "linux":
            # By the folder's descriptor: a socket's path has room for 108 bytes, and homes may lie deeper.
            folder = os.open(home, os.O_PATH | os.O_DIRECTORY)
            try:
                connection.connect(f"/proc/self/fd/{folder}/{NAME}")
            finally:
                os.close(folder)
        else:
            connection.connect(str(home / NAME))
    except BaseException:
        connection.close()
        raise
    return connection


def pid_of(connection: socket.socket) -> int:
    """The process that listens there, as the kernel has it; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    pid: int = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[0]
    return pid


def end(home: Path) -> int:
    """Kills the keeper of that home, and its children die with it. Its process id; 0: there was none."""
    try:
        with connect(home) as connection:
            pid = pid_of(connection)
    except OSError:
        return 0
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return pid
