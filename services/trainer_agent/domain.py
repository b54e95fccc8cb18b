"""Which leases this agent holds, and what a message from the scheduler makes it do. Pure.

Which runs share a node is the scheduler's to decide; an agent declines what cannot be: a device that is held, or a node that a run
has for itself. It forgets everything with its process: a new process has a new incarnation, and offers to an earlier one are void.
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
class Form:
    run_id: str
    gang: Any
    """The GangFormed that names this process: its ranks start, or, in a later round of an elastic gang, find each other anew."""


@dataclass(frozen=True)
class Stop:
    run_id: str
    part: Part
    why: str
    save_outputs: bool
    """False: another attempt takes over, or nobody wants the rest; nothing more may be reported."""


@dataclass(frozen=True)
class End:
    """The process itself is not wanted any more."""

    why: str


Action = Accept | Decline | Form | Stop | End


@dataclass(frozen=True)
class Me:
    agent_id: str
    incarnation: str


@dataclass(frozen=True, order=True)
class Part:
    """Of a run's attempt, one node's part. A node that has left an elastic gang may be asked again, at a higher position."""

    epoch: int
    node_index: int


@dataclass(frozen=True)
class Held:
    part: Part
    gpus: frozenset[int]
    whole_node: bool
    round: int = 0
    """Newest shape of the gang that has been formed with this node; 0 = none yet."""


@dataclass(frozen=True)
class Leases:
    """By run: those held, and the newest ever met. Nothing older is taken again."""

    held: Mapping[str, Held] = field(default_factory=dict)
    newest: Mapping[str, Part] = field(default_factory=dict)
    draining: bool = False


def decide(leases: Leases, message: Message, me: Me) -> list[Action]:
    match message:
        case cluster.LeaseOffered() if (message.agent_id, message.incarnation) == (me.agent_id, me.incarnation):
            return _offered(leases, message)
        case job.GangFormed():
            return _formed(leases, message, me)
        case cluster.LeaseRevoked() if message.agent_id == me.agent_id:
            held = leases.held.get(message.run_id)
            if held is not None and held.part.epoch <= message.epoch:
                return [Stop(message.run_id, held.part, message.why, message.save_outputs)]
        case cluster.AgentFenced() if (message.agent_id, message.incarnation) == (me.agent_id, me.incarnation):
            return [End(message.why)]
    return []


def fault(message: Message) -> str:
    """Why an offer can never be taken, "" for any other message: run ids become names of folders, and anybody may write to the log."""
    if isinstance(message, cluster.LeaseOffered) and not RUN_ID.match(message.run_id):
        return f"run_id {message.run_id[:200]!r} is none: letters or digits first, then also - and _, at most 128"
    return ""


def _formed(leases: Leases, gang: Any, me: Me) -> list[Action]:
    held = leases.held.get(gang.run_id)
    if held is None or held.part.epoch != gang.epoch or _round(gang) <= held.round:
        return []
    if any((it.agent_id, it.incarnation) == (me.agent_id, me.incarnation) for it in gang.members):
        return [Form(gang.run_id, gang)]
    return [Stop(gang.run_id, held.part, "the gang goes on without this node", save_outputs=True)] if held.round else []


def _round(gang: Any) -> int:
    return gang.round or 1


def _offered(leases: Leases, offer: Any) -> list[Action]:
    part = Part(offer.epoch, offer.node_index)
    newest = leases.newest.get(offer.run_id)
    if fault(offer) or not offer.epoch or (newest is not None and part <= newest):
        return []
    if leases.draining:
        return [Decline(offer, "it is being stopped")]
    older = leases.held.get(offer.run_id)
    stops: list[Action] = [] if older is None else [Stop(offer.run_id, older.part, f"attempt {offer.epoch} begins", save_outputs=False)]
    why = _clash(_taken(offer), {run_id: it for run_id, it in sorted(leases.held.items()) if run_id != offer.run_id})
    return [*stops, Decline(offer, why) if why else Accept(offer)]


def _taken(offer: Any) -> Held:
    """A run that says nothing of resources has the node for itself."""
    return Held(Part(offer.epoch, offer.node_index), frozenset(offer.gpus), not offer.spec.HasField("resources"))


def _clash(wanted: Held, others: Mapping[str, Held]) -> str:
    """Why it cannot be held beside the others; "" where it can."""
    for run_id, other in others.items():
        if other.whole_node:
            return f"it holds {run_id}, which has the whole node"
        if wanted.whole_node:
            return f"it holds {run_id}, and the run wants the whole node"
        if both := sorted(wanted.gpus & other.gpus):
            return f"it holds {run_id}, which has GPU {', '.join(map(str, both))}"
    return ""


def evolve(leases: Leases, action: Action) -> Leases:
    match action:
        case Accept(offer):
            return _met(replace(leases, held={**leases.held, offer.run_id: _taken(offer)}), offer)
        case Decline(offer, _):
            return _met(leases, offer)
        case Form(run_id, gang):
            return replace(leases, held={**leases.held, run_id: replace(leases.held[run_id], round=_round(gang))})
        case Stop(run_id, part, _, False):
            return released(leases, run_id, part)
        case End():
            return replace(leases, draining=True)
    return leases


def _met(leases: Leases, offer: Any) -> Leases:
    return replace(leases, newest={**leases.newest, offer.run_id: Part(offer.epoch, offer.node_index)})


def released(leases: Leases, run_id: str, part: Part) -> Leases:
    """This node's part of the attempt is over."""
    held = leases.held.get(run_id)
    if held is None or held.part != part:
        return leases
    return replace(leases, held={name: it for name, it in leases.held.items() if name != run_id})
