"""Downloads URLs into files, in a process of its own that holds no secrets: `python -m services.trainer_agent.fetch`.

Standard input has a JSON object {url: file}; the first URL that cannot be read ends it with 1 and {"url", "error"} on standard output.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from services.chassis.http_source import Limits, Unreachable, client, read
from services.chassis.machine import end_with_parent


async def fetch(targets: Mapping[str, str], limits: Limits) -> None:
    """Raises Unreachable; a disk that does not take a file is told so as well."""
    slots = asyncio.Semaphore(limits.at_once)

    async def one(http: httpx.AsyncClient, url: str, target: Path) -> None:
        async with slots:
            with target.open("wb") as file:
                await read(http, url, limits, file.write)

    async with client(limits) as http, asyncio.TaskGroup() as tasks:
        for url, target in targets.items():
            tasks.create_task(one(http, url, Path(target)))


def main() -> int:
    end_with_parent()
    code = 0
    try:
        asyncio.run(fetch(json.load(sys.stdin), Limits()))
    except* Unreachable as group:
        error = group.exceptions[0]
        assert isinstance(error, Unreachable)
        sys.stdout.write(json.dumps({"url": error.url, "error": str(error)}))
        code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
