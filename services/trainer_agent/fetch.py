"""Downloads URLs into files, in a process of its own that holds no secrets: `python -m services.trainer_agent.fetch`.

Standard input has a JSON object {url: file}; a file may hold the beginning that an earlier attempt has left. Standard output tells how
many bytes have come, as JSON lines {"bytes"}; the first URL that cannot be read ends it with 1 and a line {"url", "error"}.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from services.parent import die_with
from trainyard._http_source import Limits, Unreachable, client, download

_TELL_SECONDS = 1.0


async def fetch(targets: Mapping[str, str], limits: Limits, told: Callable[[int], object]) -> None:
    """Raises Unreachable; a disk that does not take a file is told so as well."""
    slots = asyncio.Semaphore(limits.at_once)

    async def one(http: httpx.AsyncClient, url: str, target: Path) -> None:
        async with slots:
            await download(http, url, target, limits, told)

    async with client(limits) as http, asyncio.TaskGroup() as tasks:
        for url, target in targets.items():
            tasks.create_task(one(http, url, Path(target)))


class _Telling:
    """Now and then, how many bytes have come."""

    def __init__(self) -> None:
        self._bytes = 0
        self._at = time.monotonic()

    def __call__(self, number: int) -> None:
        self._bytes += number
        now = time.monotonic()
        if now - self._at >= _TELL_SECONDS:
            self._at = now
            say({"bytes": self._bytes})


def say(what: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> int:
    die_with(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    code = 0
    try:
        asyncio.run(fetch(json.load(sys.stdin), Limits(), _Telling()))
    except* Unreachable as group:
        error = group.exceptions[0]
        assert isinstance(error, Unreachable)
        say({"url": error.url, "error": str(error)})
        code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
