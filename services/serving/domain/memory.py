"""Which endpoints sleep where all servers together take more memory than they may. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Standing:
    """A server that runs or is being started. Times in seconds, of any one clock."""

    endpoint: str
    deployment: int
    bytes: int  # of memory that it takes, or is expected to take
    up_since: float
    called: float  # last; where nobody called it, when it came up
    busy: bool = False  # calls are under way, or it does not tell
    may_sleep: bool = True  # nothing else is being done with its endpoint


def put_to_sleep(servers: Sequence[Standing], budget: int, coming: int, now: float, least_awake: float) -> list[Standing]:
    """Those that were called longest ago, as many as it takes for all the others and what is coming to fit the budget, in bytes. None with
    calls under way, and none that has not been up for as long as `least_awake`: else two that do not fit together would take turns."""
    over = sum(it.bytes for it in servers) + coming - budget
    chosen = []
    for it in sorted(servers, key=lambda it: (it.called, it.endpoint)):
        if over <= 0:
            break
        if it.may_sleep and not it.busy and now - it.up_since >= least_awake:
            chosen.append(it)
            over -= it.bytes
    return chosen
