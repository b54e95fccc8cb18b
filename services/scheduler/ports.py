"""What the scheduler needs of the world outside of the log."""

from __future__ import annotations

from enum import Enum
from typing import Protocol


class NodeState(Enum):
    UP = "up"
    LEAVING = "leaving"
    BROKEN = "broken"
    """It was started several times and ended at once."""


class NodeProvider(Protocol):
    """Starts and stops agent processes. Calls may be repeated; raises ProviderTrouble where they cannot be carried out.

    NodeRefused concerns the one node, any other trouble all of them.
    """

    async def states(self) -> dict[str, NodeState]:
        """Of every node that is not plainly stopped."""
        ...

    async def start(self, agent_id: str) -> None: ...

    async def stop(self, agent_id: str) -> None: ...


class ProviderTrouble(Exception):
    """What went wrong, in words."""


class NodeRefused(ProviderTrouble):
    """The provider answers, and cannot do that with this one node: it does not know it, or its program cannot be started."""
