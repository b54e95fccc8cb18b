"""The keeper of a home. Started by the serving service, in a session of its own; whatever it has started dies with it."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import signal
import socket
import sys
from pathlib import Path

from services.serving.keeper.address import NAME
from services.serving.keeper.keeper import Keeper, Link, say

_GRACE_SECONDS = 5.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--orphan-seconds", type=float, required=True, help="so long it goes on without a service")
    options = parser.parse_args()
    # By a name alone: a socket's path has room for 108 bytes, and homes may lie deeper.
    os.chdir(options.home)
    # One that is ending has its children still: what they listen on is not free yet.
    lock = os.open("keeper.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        asyncio.run(_keep(_listening(), options.orphan_seconds))
    finally:
        os.close(lock)
    return 0


def _listening() -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    Path(NAME).unlink(missing_ok=True)  # of one that was killed
    before = os.umask(0o177)
    try:
        listening.bind(NAME)
    finally:
        os.umask(before)
    listening.listen()
    return listening


async def _keep(listening: socket.socket, orphan_seconds: float) -> None:
    loop, keeper = asyncio.get_running_loop(), Keeper(orphan_seconds)
    loop.add_signal_handler(signal.SIGCHLD, keeper.reap)
    loop.add_signal_handler(signal.SIGTERM, keeper.end, _GRACE_SECONDS)
    for ignored in (signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(ignored, lambda: None)  # handled, and not ignored: children would inherit that
    server = await loop.create_unix_server(lambda: Link(keeper), sock=listening)
    say(f"keeper {os.getpid()} of {Path.cwd()}")
    await keeper.over.wait()
    server.close()


if __name__ == "__main__":
    sys.exit(main())
