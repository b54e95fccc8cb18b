"""Processes that an earlier process of this agent left behind: ranks die with it, their own children may not."""

from __future__ import annotations

import psutil
import structlog

log = structlog.get_logger()
MARK = "TRAINYARD_NODE"


def end_leftovers(node: str) -> int:
    """Kills every process whose environment carries this node's mark. Called before the node takes any work. Returns how many."""
    ended = 0
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == node:
                process.kill()
                ended += 1
        except (psutil.Error, OSError):
            continue
    if ended:
        log.warning("ended processes of an earlier agent", count=ended)
    return ended
