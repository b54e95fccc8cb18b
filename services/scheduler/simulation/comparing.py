"""One workload under two policies, and the figures side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from services.scheduler.domain.providers import STATIC, kind_of
from services.scheduler.simulation.events import Recorded
from services.scheduler.simulation.ledger import Figures, Ledger
from services.scheduler.simulation.plans import Workload
from services.scheduler.simulation.yard import Yard
from trainyard.cluster.v1 import cluster_pb2 as cluster

_NAMES = 100


def compare(events: Sequence[Recorded], load: Workload, policy: Any, nodes: int = 0) -> Figures:
    """`recorded` is what the log says; `replayed` the same runs in the simulator, with the policies that were in force; `policy` with
    the other one, and with so many nodes a pool where `nodes` says so. `difference` is policy minus replayed."""
    begin, runs = load.begin, [it.run_id for it in load.submissions]
    recorded = Ledger(begin, runs)
    for event in events:
        recorded.saw(event.at, event.message)
    replayed, as_it_was, _ = simulate(load)
    other, other_yard, waiting = simulate(with_nodes(load, nodes).under(policy))
    was, would = as_it_was.began(), other_yard.began()
    return {
        "from": _iso(begin),
        "runs": len(runs),
        "assumed": sum(it.assumed for it in load.submissions),
        "recorded": recorded.figures(),
        "replayed": replayed,
        "policy": other,
        "difference": difference(replayed, other),
        "begin_elsewhen": sum(was.get(name) != would.get(name) for name in runs),
        "waiting": dict(list(waiting.items())[:_NAMES]),
    }


def simulate(load: Workload) -> tuple[Figures, Ledger, Mapping[str, str]]:
    """Its figures, and why those wait that nothing could place."""
    ledger = Ledger(load.begin, [it.run_id for it in load.submissions])
    yard = Yard(load, [ledger.saw])
    yard.run()
    return ledger.figures(), ledger, yard.waiting


def with_nodes(load: Workload, nodes: int) -> Workload:
    """As if each pool had so many nodes, or could grow to so many; 0: as it was. More nodes of a pool that is joined by hand are like
    its first one; of fewer the first to have joined stay."""
    if not nodes:
        return load
    facts = tuple((at, _bounded(fact, nodes)) for at, fact in load.facts)
    joins: list[tuple[datetime, Any]] = []
    for pool, created in ((fact.name, at) for at, fact in facts if isinstance(fact, cluster.PoolCreated) and _is_joined(fact)):
        joins += _joined([(at, it) for at, it in load.joins if it.pool == pool], pool, created, nodes)
    return replace(load, facts=facts, joins=tuple(sorted(joins, key=lambda it: it[0])), node_slots=max(nodes, load.node_slots))


def difference(one: Any, other: Any) -> Any:
    """Other minus one, number by number; names that stand in one of the two alone are left out."""
    if isinstance(one, Mapping):
        return {name: difference(value, other[name]) for name, value in one.items() if name in other}
    return round(other - one, 4)


def _bounded(fact: Any, nodes: int) -> Any:
    if not isinstance(fact, cluster.PoolCreated | cluster.PoolUpdated):
        return fact
    bounded: Any = type(fact)()
    bounded.CopyFrom(fact)
    bounded.max_nodes, bounded.min_nodes = nodes, min(fact.min_nodes, nodes)
    return bounded


def _is_joined(created: Any) -> bool:
    return kind_of(created.provider) == STATIC


def _joined(there: Sequence[tuple[datetime, Any]], pool: str, created: datetime, nodes: int) -> Iterable[tuple[datetime, Any]]:
    names = list(dict.fromkeys(it.agent_id for _, it in there))[:nodes]
    yield from ((at, it) for at, it in there if it.agent_id in names)
    for position in range(len(names), nodes if there else 0):
        more = cluster.AgentRegistered()
        more.CopyFrom(there[0][1])
        # Its devices are not those of the node that it is like.
        for gpu in more.gpus:
            gpu.uuid = ""
        more.agent_id = f"{pool}-more-{position}"
        yield created, more


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
