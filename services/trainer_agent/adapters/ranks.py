"""A rank as a process: its own session, dead when the agent dies, its output line by line, TERM then KILL at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from services.parent import die_with
from services.trainer_agent.telemetry import Lines, LogStream

_PIPE_PATIENCE_SECONDS = 2.0


class RankProcess:
    """`output` gets every line of standard output and error, in one stream, as it is written."""

    def __init__(
        self, process: asyncio.subprocess.Process, pipe: asyncio.StreamReader, transport: asyncio.BaseTransport, output: LogStream
    ) -> None:
        self._process = process
        self._transport = transport
        self.ended_at: datetime | None = None
        """When the process itself had ended."""
        self._reading = asyncio.ensure_future(self._read(pipe, output))

    @classmethod
    async def start(cls, argv: Sequence[str], environment: Mapping[str, str], folder: Path, output: LogStream) -> RankProcess:
        """Raises OSError if it cannot be started."""
        # A pipe of our own: with asyncio's, the end of the script would wait for every child that still holds the other end.
        reading, writing = os.pipe()
        pipe = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(pipe), os.fdopen(reading, "rb", buffering=0)
        )
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                cwd=folder,
                env=dict(environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(die_with, os.getpid()),
            )
        except BaseException:
            transport.close()
            raise
        finally:
            os.close(writing)
        return cls(process, pipe, transport, output)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def _read(self, pipe: asyncio.StreamReader, output: LogStream) -> None:
        lines = Lines()
        try:
            while data := await pipe.read(1 << 16):
                output.write(lines.feed(data))
            output.write(lines.finish())
        except OSError:
            # The disk is full: a script whose output nobody reads would hang at its next line.
            self._signal(signal.SIGKILL)
            raise

    async def wait(self) -> int:
        """Its exit code (negative: the signal that ended it), once what it wrote is read and its process group is gone.

        Raises OSError where its output could not be kept.
        """
        code = await self._process.wait()
        self.ended_at = datetime.now(UTC)
        # Children that it left behind would hold its pipe, its data and its GPU.
        self._signal(signal.SIGKILL)
        await asyncio.wait([self._reading], timeout=_PIPE_PATIENCE_SECONDS)
        self._transport.close()
        if self._reading.done():
            self._reading.result()
        else:
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
