"""What happens in a simulation whatever the scheduler decides: who asks for what, how long it takes, which nodes come and go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any

from google.protobuf.message import Message

from trainyard.cluster.v1 import cluster_pb2 as cluster

NOTHING = timedelta()


class End(Enum):
    """How an attempt ends that nobody disturbs."""

    DONE = auto()
    FAILS = auto()
    TIMES_OUT = auto()
    CANNOT_PREPARE = auto()
    """Its environment, or its data, cannot be put in place."""
    IS_CANCELED = auto()
    """Somebody has seen enough of it."""


@dataclass(frozen=True)
class Attempt:
    prepares: timedelta = NOTHING
    """From the offer to the node's word that it is ready."""
    works: timedelta = NOTHING
    """Of the script, on as many nodes as the run begins with; an elastic gang takes longer on fewer."""
    saves: timedelta = NOTHING
    """From the script's end until its outputs are saved."""
    end: End = End.DONE
    exit_code: int = 0


@dataclass(frozen=True)
class Submission:
    at: datetime
    run_id: str
    experiment: str
    spec: Any
    attempts: tuple[Attempt, ...]
    """In their order; one that is lost or preempted is made again, and the last comes again as often as is asked for it."""
    canceled_at: datetime | None = None
    checkpoint_every: timedelta = NOTHING
    """An attempt that is made again goes on from the newest multiple; nothing: it begins anew."""
    assumed: bool = False
    """How long it takes is not known."""


@dataclass(frozen=True)
class Workload:
    begin: datetime
    """Figures count from here."""
    submissions: tuple[Submission, ...]
    facts: tuple[tuple[datetime, Message], ...] = ()
    """About pools and the policy."""
    joins: tuple[tuple[datetime, Any], ...] = ()
    """AgentRegistered of nodes that no pool starts itself."""
    deaths: tuple[tuple[datetime, str], ...] = ()
    """Agents whose process dies without a word, of those that are up then."""
    departures: tuple[tuple[datetime, str], ...] = ()
    """Agents that say good-bye."""
    nodes: Mapping[str, Any] = field(default_factory=dict)
    """Agent id -> AgentRegistered of a node that a pool starts itself, and that is not as its pool says."""
    starts: timedelta = timedelta(seconds=5)
    """How long such a node takes to come up."""
    node_slots: int = 4
    """How many of them this machine has."""

    def under(self, policy: Any) -> Workload:
        """With this policy all along, whichever others were in force."""
        facts = tuple((at, it) for at, it in self.facts if not isinstance(it, cluster.PolicyChanged))
        first = min((self.begin, *(at for at, _ in facts)))
        return replace(self, facts=((first, cluster.PolicyChanged(policy=policy)), *facts))
