"""Processes that a script or an earlier process of this agent left behind: ranks die with their agent, their own children may not."""

from __future__ import annotations

from collections.abc import Mapping

import psutil
import structlog

log = structlog.get_logger()
MARK = "TRAINYARD_NODE"


def end_leftovers(node: str, besides: Mapping[str, str] | None = None) -> int:
    """Kills every process whose environment carries this node's mark, and `besides` where that is given. Returns how many.

    Called before the node takes any work, and after each attempt for what is left of that one.
    """
    ended = 0
    wanted = {(MARK, node), *(besides or {}).items()}
    for process in psutil.process_iter():
        try:
            if wanted <= set(process.environ().items()):
                process.kill()
                ended += 1
        except (psutil.Error, OSError):
            continue
    if ended:
        log.warning("ended processes that outlived their script", count=ended)
    return ended
