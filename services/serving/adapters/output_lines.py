"""What a child process writes, line by line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

_MAX_LINE = 64 << 10


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Without an end to a line there is one after 64 KiB."""
    rest = b""
    while block := await stream.read(1 << 16):
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
        if len(rest) > _MAX_LINE:
            yield rest.decode(errors="replace")
            rest = b""
    if rest:
        yield rest.decode(errors="replace")
