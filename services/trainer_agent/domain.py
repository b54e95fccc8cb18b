"""Which leases this agent holds, and what a message from the scheduler makes it do. Pure.

An agent takes one run at a time. It forgets everything with its process: a new process has a new incarnation, and offers to an
earlier one are void.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf.message import Message

from trainyard._paths import RUN_ID
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job


@dataclass(frozen=True)
class Accept:
    offer: Any
    """The LeaseOffered that is taken."""


@dataclass(frozen=True)
class Decline:
    offer: Any
    why: str


@dataclass(frozen=True)
class Start:
    run_id: str
    epoch: int
    gang: Any
    """The GangFormed that names this process."""


@dataclass(frozen=True)
class Stop:
    run_id: str
    epoch: int
    why: str
    save_outputs: bool
    """False: another attempt takes over, or nobody wants the rest; nothing more may be reported."""


@dataclass(frozen=True)
class End:
    """The process itself is not wanted any more."""

    why: str


Action = Accept | Decline | Start | Stop | End


@dataclass(frozen=True)
class Me:
    agent_id: str
    incarnation: str


@dataclass(frozen=True)
class Leases:
    """Epochs by run: those held, the highest ever met (nothing older is taken again), and the last whose script was started."""

    held: Mapping[str, int] = field(default_factory=dict)
    newest: Mapping[str, int] = field(default_factory=dict)
    started: Mapping[str, int] = field(default_factory=dict)
    draining: bool = False


def decide(leases: Leases, message: Message, me: Me) -> list[Action]:
    match message:
        case cluster.LeaseOffered() if (message.agent_id, message.incarnation) == (me.agent_id, me.incarnation):
            return _offered(leases, message)
        case job.GangFormed() if leases.held.get(message.run_id) == message.epoch != leases.started.get(message.run_id):
            mine = [it for it in message.members if (it.agent_id, it.incarnation) == (me.agent_id, me.incarnation)]
            return [Start(message.run_id, message.epoch, message)] if mine else []
        case cluster.LeaseRevoked() if message.agent_id == me.agent_id:
            held = leases.held.get(message.run_id)
            if held is not None and held <= message.epoch:
                return [Stop(message.run_id, held, message.why, message.save_outputs)]
        case cluster.AgentFenced() if (message.agent_id, message.incarnation) == (me.agent_id, me.incarnation):
            return [End(message.why)]
    return []


def fault(message: Message) -> str:
    """Why an offer can never be taken, "" for any other message: run ids become names of folders, and anybody may write to the log."""
    if isinstance(message, cluster.LeaseOffered) and not RUN_ID.match(message.run_id):
        return f"run_id {message.run_id[:200]!r} is none: letters or digits first, then also - and _, at most 128"
    return ""


def _offered(leases: Leases, offer: Any) -> list[Action]:
    if fault(offer) or offer.epoch <= leases.newest.get(offer.run_id, 0):
        return []
    if leases.draining:
        return [Decline(offer, "it is being stopped")]
    older = leases.held.get(offer.run_id)
    stops: list[Action] = [] if older is None else [Stop(offer.run_id, older, f"attempt {offer.epoch} begins", save_outputs=False)]
    others = sorted(leases.held.keys() - {offer.run_id})
    if others:
        return [*stops, Decline(offer, f"it holds {others[0]}")]
    return [*stops, Accept(offer)]


def evolve(leases: Leases, action: Action) -> Leases:
    match action:
        case Accept(offer):
            held = {**leases.held, offer.run_id: offer.epoch}
            return replace(leases, held=held, newest={**leases.newest, offer.run_id: offer.epoch})
        case Decline(offer, _):
            return replace(leases, newest={**leases.newest, offer.run_id: offer.epoch})
        case Start(run_id, epoch, _):
            return replace(leases, started={**leases.started, run_id: epoch})
        case Stop(run_id, epoch, _, False):
            return released(leases, run_id, epoch)
        case End():
            return replace(leases, draining=True)
    return leases


def released(leases: Leases, run_id: str, epoch: int) -> Leases:
    """The attempt is over."""
    if leases.held.get(run_id) != epoch:
        return leases
    return replace(leases, held={name: it for name, it in leases.held.items() if name != run_id})
