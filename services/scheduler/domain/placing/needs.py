"""What a node has left, and who may have it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Any

from services.scheduler.domain.index import NOTHING, Used
from services.scheduler.domain.need import Device, Need, Size
from services.scheduler.domain.state import Agent, Pool, Run, State
from trainyard.cluster.v1.resources_pb2 import Resources

# Sums of fractions of cores are compared.
_NOTHING = 1e-9


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
    capacity: Size
    cpus: float
    memory_bytes: int
    gpus: int
    """Devices that it may still give, if there are so many."""
    spare: list[Device]
    """Devices that no run has of it."""
    labels: Mapping[str, str] | None
    """None: not known before it is up."""
    agent: Agent | None = None
    untouched: bool = True
    """Nobody has anything of it."""
    taken: set[str] = field(default_factory=set)
    """Devices that are given away, on whichever node: several nodes may be one machine, and tell of the same."""

    def fits(self, need: Need) -> bool:
        if need.labels and not self._carries(need.labels):
            return False
        if need.whole:
            return self.untouched
        if self.cpus + _NOTHING < need.cpus or self.memory_bytes < need.memory_bytes:
            return False
        return not need.gpus or len(self.devices()) >= need.gpus

    def devices(self, promised: Collection[str] = ()) -> list[Device]:
        """Those that can be given."""
        return [it for it in self.spare if it.uuid not in self.taken and it.uuid not in promised][: self.gpus]

    def _carries(self, labels: tuple[str, ...]) -> bool:
        return self.labels is None or carries(self.labels, labels)

    def asked(self, need: Need) -> Size:
        """What a run takes of it, at most."""
        return self.capacity if need.whole else Size(need.cpus, need.memory_bytes, need.gpus)

    def give(self, need: Need) -> tuple[Resources, list[int]]:
        """Takes it off; (what the run gets, which devices)."""
        given = self.devices()[: self.gpus if need.whole else need.gpus]
        size = self.asked(need)
        self.spare = [it for it in self.spare if it not in given]
        self.gpus -= len(given)
        self.taken.update(it.uuid for it in given if it.uuid)
        self.cpus = 0 if need.whole else self.cpus - need.cpus
        self.memory_bytes = 0 if need.whole else self.memory_bytes - need.memory_bytes
        self.untouched = False
        return Resources(cpus=size.cpus, memory_bytes=size.memory_bytes, gpus=len(given)), [it.number for it in given]


def carries(known: Mapping[str, str], labels: Iterable[str]) -> bool:
    """All of them, by name, or by name and value."""
    return all(_label_holds(known, label) for label in labels)


def _label_holds(labels: Mapping[str, str], asked: str) -> bool:
    name, is_exact, value = asked.partition("=")
    return labels.get(name) == value if is_exact else name in labels


class Free:
    """Nodes with something to give. Which of them fit is found out once for all that ask the same, until something is given."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.nodes = list(nodes)
        self._fitting: dict[tuple[Any, ...], list[Node]] = {}

    def fitting(self, need: Need) -> list[Node]:
        """In the order in which they are best taken."""
        found = self._fitting.get(need.of_each)
        if found is None:
            found = self._fitting[need.of_each] = in_order(need, [node for node in self.nodes if node.fits(need)])
        return found

    def given(self) -> None:
        """Some of them have less now."""
        self._fitting.clear()


def together(need: Need, nodes: Iterable[Node], most: int) -> list[Node]:
    """The first of the nodes that can carry one gang, each once: no two of them by one and the same device."""
    if not need.gpus:
        return list(nodes)[:most]
    chosen: list[Node] = []
    promised: set[str] = set()
    for node in nodes:
        if len(chosen) == most:
            break
        devices = node.devices(promised)[: need.gpus]
        if len(devices) == need.gpus:
            chosen.append(node)
            promised.update(it.uuid for it in devices if it.uuid)
    return chosen


def in_order(need: Need, nodes: list[Node]) -> list[Node]:
    """Near ones first; whole ones by their numbers, so that the highest become idle for long and leave; of others the fullest, or
    the emptiest, as asked."""
    if need.whole:
        return sorted(nodes, key=lambda node: (node.where, number(node.name)))
    direction = -1 if need.spread else 1
    return sorted(nodes, key=lambda node: (node.where, direction * node.gpus, direction * node.cpus, number(node.name)))


def capacity_of(agent: Agent, pool: Pool) -> Size:
    """What a node of the pool may give: what it has, and no more than the pool's size says. One that does not tell has that size."""
    has, shape = agent.size, pool.size
    if not has.cpus and not has.memory_bytes:
        return shape
    return Size(min(has.cpus, shape.cpus), min(has.memory_bytes, shape.memory_bytes), min(has.gpus, shape.gpus))


def taken_devices(state: State) -> set[str]:
    """What the drivers call the devices that runs hold."""
    if not state.has_devices:
        return set()
    return {uuid for run_id in state.index.attempts for uuid in devices_of(state, state.runs[run_id])}


def devices_of(state: State, run: Run) -> set[str]:
    """Those that one run holds."""
    held = ((state.agents.get(member.agent_id), member.gpus) for member in run.members)
    return {gpu.uuid for agent, mine in held if agent is not None and mine for gpu in agent.gpus if gpu.index in mine and gpu.uuid}


def node_of(
    state: State, agent: Agent, pool: Pool, where: Where = Where.UP, taken: set[str] | None = None, gone: Collection[str] = ()
) -> Node | None:
    """With what runs have left of it; None where a run has it whole. `taken`: devices that are given away on any node; `gone`: ids of
    runs that are thought to hold nothing."""
    used = state.index.used.get(agent.id, NOTHING)
    if gone and used.runs:
        used = Used.of(hold for run_id, hold in state.index.holds[agent.id].items() if run_id not in gone)
    if used.whole:
        return None
    capacity = capacity_of(agent, pool)
    known = agent.devices or numbered(capacity.gpus)
    return Node(
        name=agent.id,
        where=where,
        pool=pool.name,
        capacity=capacity,
        cpus=capacity.cpus - used.cpus,
        memory_bytes=capacity.memory_bytes - used.memory_bytes,
        gpus=capacity.gpus - len(used.gpus),
        spare=[device for device in known if device.number not in used.gpus] if used.gpus else list(known),
        labels=agent.labels,
        agent=agent,
        untouched=not used.runs,
        taken=set() if taken is None else taken,
    )


@lru_cache(maxsize=64)
def numbered(count: int) -> tuple[Device, ...]:
    """Devices of which nothing is known but how many there are."""
    return tuple(Device(index, "") for index in range(count))


def unknown_node(
    name: str, pool: Pool, where: Where, labels: Mapping[str, str] | None, devices: Iterable[Device] = (), taken: set[str] | None = None
) -> Node:
    """One that is not up: as large as the pool says. `devices`: those of the machine that it will be on, where that is known."""
    shape = pool.size
    known = list(devices) or list(numbered(shape.gpus))
    return Node(
        name, where, pool.name, shape, shape.cpus, shape.memory_bytes, shape.gpus, known, labels, taken=set() if taken is None else taken
    )


@dataclass
class Shares:
    """What experiments, or users, hold. Counted when first asked for: most policies never ask."""

    state: State
    _by_share: dict[str, Resources] = field(default_factory=dict)
    _nodes: dict[tuple[str, str], float] = field(default_factory=dict)
    _counted: bool = False
    _later: list[tuple[Run, Any, Any, int]] = field(default_factory=list)
    """Given before anybody asked."""

    def held(self, share: str) -> Resources:
        """Over all pools."""
        self._count()
        return self._by_share.get(share, Resources())

    def nodes(self, pool: str, share: str) -> float:
        """Of one pool, in nodes; of a node that is shared, the largest fraction of anything it has."""
        self._count()
        return self._nodes.get((pool, share), 0.0)

    def add(self, run: Run, given: Any, capacity: Any, sign: int = 1) -> None:
        if not self._counted:
            self._later.append((run, given, capacity, sign))
            return
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
        for later in self._later:
            self.add(*later)
        for run in self.state.attempts():
            pool = self.state.pools.get(run.spec.compute_target)
            for member in run.members:
                agent = self.state.agents.get(member.agent_id)
                known = agent is not None and pool is not None
                self.add(run, member.resources, capacity_of(agent, pool) if known else member.resources)  # type: ignore[arg-type]


def dominant(part: Any, whole: Any) -> float:
    """The largest fraction that it takes of anything."""
    pairs = ((part.cpus, whole.cpus), (part.memory_bytes, whole.memory_bytes), (part.gpus, whole.gpus))
    return max((some / all_ for some, all_ in pairs if all_), default=0.0)


def share_of(state: State, run: Run) -> str:
    """Whose share the run is counted to."""
    from trainyard.cluster.v1.cluster_pb2 import FAIR_SHARE_USER

    return run.spec.user if state.policy.fair_share == FAIR_SHARE_USER else run.experiment


@lru_cache(maxsize=65_536)
def number(agent_id: str) -> tuple[int, str]:
    """agent-10 comes after agent-9."""
    tail = agent_id.rpartition("-")[2]
    return (int(tail) if tail.isdigit() else 0, agent_id)
