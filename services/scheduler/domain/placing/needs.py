"""What a run asks of each node, and what a node has left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from services.scheduler.domain.index import Hold
from services.scheduler.domain.state import Agent, Pool, Run, State
from trainyard import _gang
from trainyard.cluster.v1.resources_pb2 import Resources
from trainyard.job.v1 import spec_pb2

# Sums of fractions of cores are compared.
_NOTHING = 1e-9


@dataclass(frozen=True)
class Need:
    """Of each of `nodes` nodes; `fewest` is less for an elastic gang."""

    nodes: int
    fewest: int
    whole: bool
    cpus: float
    memory_bytes: int
    gpus: int
    labels: tuple[str, ...]
    spread: bool

    @property
    def of_each(self) -> Need:
        """What is asked of each node, however many."""
        return replace(self, nodes=1, fewest=1)

    @classmethod
    def of(cls, spec: Any) -> Need:
        asked = spec.resources
        return cls(
            nodes=_gang.node_count(spec.distribution),
            fewest=_gang.fewest_nodes(spec.distribution),
            whole=not spec.HasField("resources"),
            cpus=asked.cpus,
            memory_bytes=asked.memory_bytes,
            gpus=asked.gpus,
            labels=tuple(spec.labels),
            spread=spec.spread == spec_pb2.SPREAD_SPREAD,
        )


class Where(IntEnum):
    """How far a node is from being of use, nearest first."""

    UP = 0
    STARTING = 1
    FRESH = 2
    """It would have to be started."""
    ELSEWHERE = 3
    """Idle in another pool of this machine, which would lose it."""


@dataclass
class Node:
    """What is left of one node; scratch paper of one decision."""

    name: str
    where: Where
    pool: str
    """Whose it is now."""
    capacity: Resources
    cpus: float
    memory_bytes: int
    gpus: list[tuple[int, str]]
    """Devices that no run has of it: (index on the node, what the driver calls it)."""
    labels: Mapping[str, str] | None
    """None: not known before it is up."""
    agent: Agent | None = None
    untouched: bool = True
    """Nobody has anything of it."""
    taken: set[str] = field(default_factory=set)
    """Devices that are given away, on whichever node: several nodes may be one machine, and tell of the same."""

    def fits(self, need: Need) -> bool:
        if not self._carries(need.labels):
            return False
        if need.whole:
            return self.untouched
        return self.cpus + _NOTHING >= need.cpus and self.memory_bytes >= need.memory_bytes and len(self.devices) >= need.gpus

    @property
    def devices(self) -> list[tuple[int, str]]:
        """Those that can be given."""
        return [it for it in self.gpus if it[1] not in self.taken] if self.taken else self.gpus

    def _carries(self, labels: tuple[str, ...]) -> bool:
        known = self.labels
        return known is None or not labels or all(_label_holds(known, label) for label in labels)

    def give(self, need: Need) -> tuple[Resources, list[int]]:
        """Takes it off; (what the run gets, which devices)."""
        given = self.devices if need.whole else self.devices[: need.gpus]
        has = self.capacity
        size = Resources(
            cpus=has.cpus if need.whole else need.cpus,
            memory_bytes=has.memory_bytes if need.whole else need.memory_bytes,
            gpus=len(given),
        )
        self.gpus = [it for it in self.gpus if it not in given]
        self.taken.update(name for _, name in given if name)
        self.cpus = 0 if need.whole else self.cpus - need.cpus
        self.memory_bytes = 0 if need.whole else self.memory_bytes - need.memory_bytes
        self.untouched = False
        return size, [index for index, _ in given]


def _label_holds(labels: Mapping[str, str], asked: str) -> bool:
    name, is_exact, value = asked.partition("=")
    return labels.get(name) == value if is_exact else name in labels


class Free:
    """Nodes with something to give. Which of them fit is found out once for all that ask the same, until something is given."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.nodes = list(nodes)
        self._fitting: dict[Need, list[Node]] = {}

    def fitting(self, need: Need) -> list[Node]:
        """In the order in which they are best taken."""
        each = need.of_each
        if each not in self._fitting:
            self._fitting[each] = in_order(need, [node for node in self.nodes if node.fits(need)])
        return self._fitting[each]

    def choose(self, need: Need, count: int) -> list[Node] | None:
        """`count` of the nodes, each once, or None: all of a gang or nothing."""
        fitting = self.fitting(need)
        return fitting[:count] if len(fitting) >= count else None

    def given(self) -> None:
        """Some of them have less now."""
        self._fitting.clear()


def in_order(need: Need, nodes: list[Node]) -> list[Node]:
    """Near ones first; whole ones by their numbers, so that the highest become idle for long and leave; of others the fullest, or
    the emptiest, as asked."""
    if need.whole:
        return sorted(nodes, key=lambda node: (node.where, number(node.name)))
    direction = -1 if need.spread else 1
    return sorted(nodes, key=lambda node: (node.where, direction * len(node.devices), direction * node.cpus, number(node.name)))


def capacity_of(agent: Agent, pool: Pool) -> Resources:
    """What a node of the pool may give: what it has, and no more than the pool's size says. One that does not tell has that size."""
    has, shape = agent.resources, pool.shape
    if not has.cpus and not has.memory_bytes:
        return shape
    return Resources(cpus=min(has.cpus, shape.cpus), memory_bytes=min(has.memory_bytes, shape.memory_bytes), gpus=min(has.gpus, shape.gpus))


def devices_of(agent: Agent, capacity: Resources) -> list[tuple[int, str]]:
    known = [(gpu.index, gpu.uuid) for gpu in agent.gpus] or [(index, "") for index in range(capacity.gpus)]
    return known[: capacity.gpus]


def taken_devices(state: State) -> set[str]:
    """What the drivers call the devices that runs hold."""
    taken: set[str] = set()
    for name, holds in state.index.holds.items():
        held = {device for hold in holds.values() for device in hold.gpus}
        if held and (agent := state.agents.get(name)) is not None:
            taken.update(gpu.uuid for gpu in agent.gpus if gpu.index in held and gpu.uuid)
    return taken


def node_of(state: State, agent: Agent, pool: Pool, where: Where = Where.UP, taken: set[str] | None = None) -> Node | None:
    """With what runs have left of it; None where a run has it whole. `taken`: devices that are given away on any node."""
    holds: Mapping[str, Hold] = state.index.holds.get(agent.id, {})
    if any(hold.whole for hold in holds.values()):
        return None
    capacity = capacity_of(agent, pool)
    held = {device for hold in holds.values() for device in hold.gpus}
    return Node(
        name=agent.id,
        where=where,
        pool=pool.name,
        capacity=capacity,
        cpus=capacity.cpus - sum(hold.cpus for hold in holds.values()),
        memory_bytes=capacity.memory_bytes - sum(hold.memory_bytes for hold in holds.values()),
        gpus=[device for device in devices_of(agent, capacity) if device[0] not in held],
        labels=agent.labels,
        agent=agent,
        untouched=not holds,
        taken=set() if taken is None else taken,
    )


def unknown_node(name: str, pool: Pool, where: Where, labels: Mapping[str, str] | None) -> Node:
    """One that is not up: as large as the pool says."""
    shape = pool.shape
    return Node(name, where, pool.name, shape, shape.cpus, shape.memory_bytes, [(index, "") for index in range(shape.gpus)], labels)


@dataclass
class Shares:
    """What experiments, or users, hold. Counted when first asked for: most policies never ask."""

    state: State
    _by_share: dict[str, Resources] = field(default_factory=dict)
    _nodes: dict[tuple[str, str], float] = field(default_factory=dict)
    _counted: bool = False

    def held(self, share: str) -> Resources:
        """Over all pools."""
        self._count()
        return self._by_share.get(share, Resources())

    def nodes(self, pool: str, share: str) -> float:
        """Of one pool, in nodes; of a node that is shared, the largest fraction of anything it has."""
        self._count()
        return self._nodes.get((pool, share), 0.0)

    def add(self, run: Run, given: Resources, capacity: Resources, sign: int = 1) -> None:
        self._count()
        share, pool = share_of(self.state, run), run.spec.compute_target
        held = self._by_share.setdefault(share, Resources())
        held.cpus = max(0.0, held.cpus + sign * given.cpus)
        held.memory_bytes = max(0, held.memory_bytes + sign * given.memory_bytes)
        held.gpus = max(0, held.gpus + sign * given.gpus)
        whole = not run.spec.HasField("resources")
        part = 1.0 if whole else dominant(given, capacity)
        self._nodes[pool, share] = self._nodes.get((pool, share), 0.0) + sign * part

    def _count(self) -> None:
        if self._counted:
            return
        self._counted = True
        for run in self.state.attempts():
            pool = self.state.pools.get(run.spec.compute_target)
            for member in run.members:
                agent = self.state.agents.get(member.agent_id)
                known = agent is not None and pool is not None
                self.add(run, member.resources, capacity_of(agent, pool) if known else member.resources)  # type: ignore[arg-type]


def dominant(part: Resources, whole: Resources) -> float:
    """The largest fraction that it takes of anything."""
    pairs = ((part.cpus, whole.cpus), (part.memory_bytes, whole.memory_bytes), (part.gpus, whole.gpus))
    return max((some / all_ for some, all_ in pairs if all_), default=0.0)


def share_of(state: State, run: Run) -> str:
    """Whose share the run is counted to."""
    from trainyard.cluster.v1.cluster_pb2 import FAIR_SHARE_USER

    return run.spec.user if state.policy.fair_share == FAIR_SHARE_USER else run.experiment


def number(agent_id: str) -> tuple[int, str]:
    """agent-10 comes after agent-9."""
    tail = agent_id.rpartition("-")[2]
    return (int(tail) if tail.isdigit() else 0, agent_id)
