"""A second worker of an app, which takes partitions away from the first and does nothing with them, until it is ended.

python -m tests.component.chassis.joining_worker BOOTSTRAP APP TOPIC
"""

from __future__ import annotations

import asyncio
import sys

from services.chassis.loop.faust_loop import FaustLoop
from services.chassis.records import Record


async def forget(*records: Record) -> None:
    """The first worker's results are what is looked at."""


async def main() -> None:
    bootstrap, app, topic = sys.argv[1:]
    loop = FaustLoop(bootstrap, app, [topic], member="second")
    await loop.run(forget, lambda: print("ready", flush=True))


if __name__ == "__main__":
    asyncio.run(main())
