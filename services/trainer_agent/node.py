"""What every attempt on this node shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services.trainer_agent.adapters.checkpoints import Checkpoints
from services.trainer_agent.adapters.outputs import OutputStore
from services.trainer_agent.adapters.reserved_ports import Ports
from services.trainer_agent.domain import Me
from services.trainer_agent.on_behalf import Log
from services.trainer_agent.ports import Ring
from services.trainer_agent.prepare import Preparer
from services.trainer_agent.reporter import Reporter
from trainyard._objects import Objects


@dataclass(frozen=True)
class Node:
    me: Me
    address: str
    """Where its ranks can be reached."""
    mark: str
    source: str
    grace_seconds: float
    checkpoint_seconds: float
    """Between two looks at what a script has saved."""
    preparer: Preparer
    ports: Ports
    make_ring: Callable[[bool], Ring]
    """True: of an elastic gang."""
    outputs: OutputStore
    checkpoints: Checkpoints
    reports: Reporter
    telemetry: Reporter
    objects: Objects
    log: Log
