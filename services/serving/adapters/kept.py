"""A process that the keeper of this home holds."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

from services.serving.keeper.frames import Message


class Kept:
    """A process, as asyncio's own has it, and a note that the next service finds."""

    def __init__(self, send: Callable[[Message], None], id: str, key: str, digest: str) -> None:
        self._send = send
        self.id = id
        self.key = key
        self.digest = digest
        self.pid = 0
        self.port = 0  # of the socket that it is lent
        self.note: Any = None
        self.returncode: int | None = None
        self.stdout, self.stderr = asyncio.StreamReader(), asyncio.StreamReader()
        self._ended = asyncio.Event()
        self._written_all: set[int] = set()

    @property
    def is_over(self) -> bool:
        """Nothing more will be heard of it."""
        return self.returncode is not None and len(self._written_all) == 2

    def send_signal(self, number: int) -> None:
        """To all its group; once it has ended, to nobody."""
        if self.returncode is None:
            self._send({"op": "signal", "id": self.id, "number": int(number)})

    def keep(self, note: Any) -> None:
        self.note = note
        self._send({"op": "note", "id": self.id, "note": note})

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    async def end(self, grace_seconds: float) -> None:
        self.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_seconds):
                await self.wait()
        except TimeoutError:
            pass
        finally:
            self.send_signal(signal.SIGKILL)
        await self.wait()

    # -- what the keeper says

    def told(self, about: Message) -> None:
        self.pid, self.port, self.note = about["pid"], about["port"], about["note"]

    def wrote(self, stream: int, data: bytes) -> None:
        self._stream(stream).feed_data(data)

    def wrote_all(self, stream: int) -> None:
        self._written_all.add(stream)
        self._stream(stream).feed_eof()

    def _stream(self, number: int) -> asyncio.StreamReader:
        return (self.stdout, self.stderr)[number]

    def has_ended(self, code: int) -> None:
        if self.returncode is None:
            self.returncode = code
            self._ended.set()

    def is_gone(self) -> None:
        """With its keeper."""
        self.has_ended(-signal.SIGKILL)
        for stream in (self.stdout, self.stderr):
            stream.feed_eof()
