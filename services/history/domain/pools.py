"""A pool, and the policy, as their facts tell them. Total and a function of the set of facts, like a run."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import Message

from services.history.domain.moment import Fact, in_order
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.history.v1.history_pb2 import GetPolicyResponse, GetPoolResponse, Turn

FACTS: tuple[type[Message], ...] = (
    cluster.PoolCreated,
    cluster.PoolUpdated,
    cluster.PoolResized,
    cluster.PoolRejected,
    cluster.PoolDeleted,
    cluster.PolicyChanged,
)
POLICY = "policy"
"""The key of what is said about the policy; a pool of that name shares it, and nothing more."""
_TURNS, _WORDS = 1_000, 1_000


def key_of(message: Message) -> str:
    """Whose fact it is."""
    return POLICY if isinstance(message, cluster.PolicyChanged) else str(getattr(message, "name", ""))


def tell_pool(facts: Iterable[Fact]) -> GetPoolResponse | None:
    """None where no pool was ever made. One that is deleted and made again is the new one, with its turns from the beginning."""
    pool: GetPoolResponse | None = None
    turns: list[Turn] = []
    for fact in in_order(facts):
        message = fact.message
        if isinstance(message, cluster.PolicyChanged):
            continue
        if isinstance(message, cluster.PoolCreated):
            pool = GetPoolResponse(created=message)
        elif pool is not None:
            _evolve(pool, message)
        turns.append(_turn(fact))
    if pool is not None:
        pool.turns.extend(turns[-_TURNS:])
    return pool


def _evolve(pool: GetPoolResponse, message: Message) -> None:
    match message:
        case cluster.PoolUpdated():
            pool.created.min_nodes, pool.created.max_nodes = message.min_nodes, message.max_nodes
            if message.HasField("idle_before_scaledown"):
                pool.created.idle_before_scaledown.CopyFrom(message.idle_before_scaledown)
        case cluster.PoolResized():
            pool.agent_ids[:] = message.agent_ids
        case cluster.PoolDeleted():
            pool.deleted = True
            del pool.agent_ids[:]


def tell_policy(facts: Iterable[Fact]) -> GetPolicyResponse:
    """Before the first change: a policy that sets nothing."""
    found = GetPolicyResponse()
    turns: list[Turn] = []
    for fact in in_order(facts):
        if isinstance(fact.message, cluster.PolicyChanged):
            found.policy.CopyFrom(fact.message.policy)
            turns.append(_turn(fact))
    found.turns.extend(turns[-_TURNS:])
    return found


def _turn(fact: Fact) -> Turn:
    message = fact.message
    turn = Turn(what=message.DESCRIPTOR.name, why=_why(message)[:_WORDS])
    turn.at.FromMilliseconds(fact.spot.at)
    return turn


def _why(message: Message) -> str:
    match message:
        case cluster.PoolCreated():
            return message.note
        case cluster.PoolUpdated():
            return f"{message.min_nodes} to {message.max_nodes} nodes"
        case cluster.PoolResized():
            return message.why
        case cluster.PoolRejected():
            return message.failure.message
    return ""
