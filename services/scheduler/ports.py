"""What the scheduler needs of the world outside of the log."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class NodeState(Enum):
    UP = "up"
    LEAVING = "leaving"
    BROKEN = "broken"
    """Its process ended by itself, or it cannot be reached."""


@dataclass(frozen=True)
class NodeStatus:
    state: NodeState
    why: str = ""
    """Of a broken one, in words."""


class NodeProvider(Protocol):
    """Starts and stops agent processes. Calls may be repeated; raises ProviderTrouble where they cannot be carried out.

    NodeRefused concerns the one node, any other trouble all of them.
    """

    async def states(self, names: Collection[str], heard: Collection[str]) -> dict[str, NodeStatus]:
        """Of every node that is not plainly stopped, `names` at least. Where looking is dear, those of `heard` count as up: they speak."""
        ...

    async def start(self, agent_id: str) -> None: ...

    async def stop(self, agent_id: str) -> None:
        """Gently. Asked again after a while, by force."""
        ...


class ProviderTrouble(Exception):
    """What went wrong, in words."""


class NodeRefused(ProviderTrouble):
    """The provider answers, and cannot do that with this one node: it does not know it, or its program cannot be started."""
