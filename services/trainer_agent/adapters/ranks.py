"""A rank as a process: its own session, dead when the agent dies, its output line by line, TERM then KILL at the end."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from services.trainer_agent.telemetry import Lines, LogStream

_PR_SET_PDEATHSIG = 1
_PIPE_PATIENCE_SECONDS = 2.0
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    """Runs in the child, before the script: whoever kills the agent ends its ranks too."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class RankProcess:
    """`output` gets every line of standard output and error, in one stream, as it is written."""

    def __init__(self, process: asyncio.subprocess.Process, output: LogStream) -> None:
        self._process = process
        self._reading = asyncio.ensure_future(self._read(output))

    @classmethod
    async def start(cls, argv: Sequence[str], environment: Mapping[str, str], folder: Path, output: LogStream) -> RankProcess:
        """Raises OSError if it cannot be started."""
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=folder,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        return cls(process, output)

    async def _read(self, output: LogStream) -> None:
        assert self._process.stdout is not None
        lines = Lines()
        while data := await self._process.stdout.read(1 << 16):
            output.write(lines.feed(data))
        output.write(lines.finish())

    async def wait(self) -> int:
        """Its exit code (negative: the signal that ended it), once what it wrote is read and its whole session is gone."""
        code = await self._process.wait()
        # Children that it left behind would hold its pipe, its data and its GPU.
        self._signal(signal.SIGKILL)
        await asyncio.wait([self._reading], timeout=_PIPE_PATIENCE_SECONDS)
        if not self._reading.done():
            self._reading.cancel()
        return code

    async def stop(self, grace_seconds: float) -> None:
        """Asks it to end, and after the grace ends it."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_seconds):
                await self._process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
