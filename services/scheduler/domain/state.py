"""What the scheduler knows. Values only: a change makes a new one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, cast

from immutables import Map

from services.scheduler.domain import changing
from services.scheduler.domain.index import Index
from services.scheduler.domain.need import Device, Need, Size, size_of
from trainyard import _gang
from trainyard._artifacts import together
from trainyard.cluster.v1.cluster_pb2 import Policy, Provider
from trainyard.cluster.v1.resources_pb2 import Gpu, Resources
from trainyard.event.v1.artifact_pb2 import ArtifactSet, Failure
from trainyard.job.v1 import job_pb2
from trainyard.job.v1.spec_pb2 import RunSpec

TERMINAL = frozenset((job_pb2.RUN_STATUS_COMPLETED, job_pb2.RUN_STATUS_FAILED, job_pb2.RUN_STATUS_CANCELED, job_pb2.RUN_STATUS_REJECTED))


@dataclass(frozen=True)
class Member:
    """One agent's part in a run's current attempt."""

    agent_id: str
    incarnation: str
    node_index: int
    ranks: tuple[int, ...]
    offered_at: datetime
    accepted: bool = False
    prepared: bool = False
    address: str = ""
    ports: tuple[int, ...] = ()
    exited: tuple[int, ...] = ()
    """Ranks that have ended, in the order in which they did."""
    stopped: tuple[int, ...] = ()
    """Those of them that the platform ended."""
    failure: Failure | None = None
    """Why its part has failed."""
    failed_at: datetime | None = None
    revoked: bool = False
    """It was told to end."""
    uploaded: bool = False
    """Nothing more comes from it."""
    outputs: ArtifactSet = field(default_factory=ArtifactSet)
    restored: ArtifactSet | None = None
    """Files of the checkpoint that its ranks have left as they were; None where none was put back."""
    resources: Resources = field(default_factory=Resources)
    """Of its node, that the run holds."""
    gpus: tuple[int, ...] = ()
    """The devices, by index."""
    secret: str = ""
    """Of the rendezvous that it serves."""
    in_gang: bool = False
    """The newest GangFormed names it, or its ranks had ended well by then."""

    @property
    def has_exited(self) -> bool:
        return set(self.ranks) <= set(self.exited)

    @property
    def is_leaving(self) -> bool:
        return self.revoked or self.failure is not None


@dataclass(frozen=True)
class Run:
    id: str
    experiment: str
    number: int
    order: int
    """Position among all submissions: who came first is served first."""
    submitted_by: str
    """Event id of the request that made it; a repeat has another."""
    spec: RunSpec
    queued_at: datetime
    waits_since: datetime | None = None
    """Of one that was preempted: when it would have begun to wait, had it not run meanwhile."""
    status: int = job_pb2.RUN_STATUS_QUEUED
    why: str = ""
    place: int = 0
    """In its pool's line, as it was told last, from 1; 0 = it was not."""
    epoch: int = 0
    members: tuple[Member, ...] = ()
    formed: bool = False
    cancel_requested: bool = False
    silent: tuple[str, ...] = ()
    """Agents of this attempt whose heartbeats have stopped."""
    status_before_silence: int = 0
    lost_attempts: int = 0
    """Of those that were accepted."""
    lost_epoch: int = 0
    """The newest attempt that may no longer write."""
    failure: Failure | None = None
    """Why the attempt, or the run, has failed: the first cause that is known."""
    failed_at: datetime | None = None
    outputs: ArtifactSet = field(default_factory=ArtifactSet)
    started_at: datetime | None = None
    ended_at: datetime | None = None
    warnings: tuple[str, ...] = ()
    revision: int = 0
    opened: bool = False
    """Made by OpenRun: no agent works on it, and its client ends it."""
    parent_run_id: str = ""
    display_name: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    properties_by: Mapping[str, int] = field(default_factory=dict)
    """Property -> the attempt that set it, where one of this run did."""
    files: ArtifactSet = field(default_factory=ArtifactSet)
    """Uploaded apart from the outputs."""
    files_by: Mapping[str, int] = field(default_factory=dict)
    """Path among them -> the attempt that added it."""
    restarts: int = 0
    """Attempts begun again after the script had failed."""
    checkpoint: ArtifactSet = field(default_factory=ArtifactSet)
    """What the next attempt begins with; paths relative to the checkpoint folder."""
    checkpoint_epoch: int = 0
    """The attempt that has saved it; 0 = another run."""
    checkpoint_number: int = 0
    """Of its agent, within that attempt."""
    checkpoint_by: str = ""
    """The agent's process."""
    round: int = 0
    """Shapes that the gang of this attempt has had."""
    next_index: int = 0
    """Node index of whoever comes next into this attempt: none is used twice, though members go."""
    gaps: int = 0
    """Elastic: members that have gone since the newest shape."""
    left: ArtifactSet = field(default_factory=ArtifactSet)
    """Elastic: what members that have gone had saved."""
    secret: str = ""
    """Of the gang's rendezvous."""
    preempted: str = ""
    """Why this attempt is being ended, while it is."""
    deadline: datetime | None = None
    """Elastic, with too few nodes: when the attempt is given up."""

    @cached_property
    def need(self) -> Need:
        """Looked at by every decision while it waits."""
        return Need.of(self.spec)

    def all_files(self) -> ArtifactSet:
        """Outputs and uploads by path; of two with one path the output counts."""
        files: ArtifactSet = together(self.outputs, self.files)
        return files

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def waits_for_a_node(self) -> bool:
        return not self.is_terminal and not self.members and not self.cancel_requested and not self.opened

    @property
    def phase(self) -> int:
        """The status, were nobody silent."""
        return self.status_before_silence if self.status == job_pb2.RUN_STATUS_NOT_RESPONDING else self.status

    @cached_property
    def is_elastic(self) -> bool:
        elastic: bool = _gang.is_elastic(self.spec.distribution)
        return elastic

    @property
    def has_finished(self) -> bool:
        """Every process of this attempt that ends by itself has ended with 0; parameter servers may go on."""
        if not self.formed or self.failure is not None:
            return False
        counted = [it for it in self.members if it.in_gang and it.failure is None] if self.is_elastic else self.members
        endless = _endless(self.spec.distribution)
        return bool(counted) and all(set(it.ranks) - endless <= set(it.exited) - set(it.stopped) for it in counted)

    @property
    def is_forming(self) -> bool:
        """Several nodes are being prepared, and those that are wait for the others."""
        return len(self.members) > 1 and not self.formed and not self.is_ending and all(it.accepted for it in self.members)

    @property
    def is_ending(self) -> bool:
        """How this attempt goes is decided; what is left is to save what it has written."""
        return self.failure is not None or self.cancel_requested or bool(self.preempted) or self.has_finished

    @property
    def is_over(self) -> bool:
        """Nothing more can come of this attempt: its ends are known and what it left behind is saved."""
        return bool(self.members) and all(it.uploaded for it in self.members) and self.is_ending

    def awaits(self, member: Member) -> bool:
        """Something is still to come from it, without which the attempt cannot end."""
        return not member.uploaded or not (self.is_ending or member.has_exited)

    @property
    def was_accepted(self) -> bool:
        """The whole gang has begun with this attempt."""
        return self.formed or (bool(self.members) and all(it.accepted for it in self.members))

    def member(self, agent_id: str, incarnation: str) -> Member | None:
        return next((it for it in self.members if it.agent_id == agent_id and it.incarnation == incarnation), None)

    def with_member(self, changed: Member) -> Run:
        return changing.replace(self, members=tuple(changed if it.node_index == changed.node_index else it for it in self.members))


@dataclass(frozen=True)
class Agent:
    """A live process of a node."""

    id: str
    incarnation: str
    address: str
    resources: Resources
    idle_since: datetime
    pool: str = ""
    """That it joined by hand."""
    labels: Mapping[str, str] = field(default_factory=dict)
    gpus: tuple[Gpu, ...] = ()

    @cached_property
    def size(self) -> Size:
        return size_of(self.resources)

    @cached_property
    def devices(self) -> tuple[Device, ...]:
        return tuple(Device(gpu.index, gpu.uuid) for gpu in self.gpus)


@dataclass(frozen=True)
class Pool:
    name: str
    submission_id: str
    vm_size: str
    vm_priority: str
    min_nodes: int
    max_nodes: int
    idle_seconds: float
    shape: Resources
    note: str
    created_at: datetime
    agent_ids: tuple[str, ...] = ()
    resized_at: datetime | None = None
    provider: Provider = field(default_factory=Provider)
    strict: bool = False
    absent_since: Mapping[str, datetime] = field(default_factory=dict)
    """Of its nodes: those that were there and are not now."""

    @cached_property
    def size(self) -> Size:
        """Of each of its nodes, at the most."""
        return size_of(self.shape)


@dataclass(frozen=True)
class State:
    """`runs` has every run that has not ended, and whichever others the caller has put in."""

    runs: Mapping[str, Run] = field(default_factory=Map)
    pools: Mapping[str, Pool] = field(default_factory=dict)
    agents: Mapping[str, Agent] = field(default_factory=dict)
    numbers: Mapping[str, int] = field(default_factory=dict)
    """Experiment -> number of its newest run."""
    submissions: int = 0
    policy: Policy = field(default_factory=Policy)
    index: Index = field(default_factory=lambda: Index({}), compare=False, repr=False)
    """Of `runs`; follows them by itself."""

    def __post_init__(self) -> None:
        if self.index.runs is not self.runs:
            runs = Map(self.runs)
            object.__setattr__(self, "runs", runs)
            object.__setattr__(self, "index", Index.of(runs))

    def with_run(self, run: Run) -> State:
        runs = cast("Map[str, Run]", self.runs).set(run.id, run)
        return self._with(runs=runs, index=self.index.after(self.runs.get(run.id), run, runs))

    def with_idle(self, agent_ids: Iterable[str], since: datetime) -> State:
        """Those of them that are there have nothing to do from then on."""
        freed = {name: replace(self.agents[name], idle_since=since) for name in agent_ids if name in self.agents}
        return self._with(agents={**self.agents, **freed}) if freed else self

    @cached_property
    def has_devices(self) -> bool:
        """Some node has a GPU that its driver tells of."""
        return any(agent.gpus for agent in self.agents.values())

    def _with(self, **changes: Any) -> State:
        """As `replace` does, where the index goes with its runs already, and the agents keep the devices that they have."""
        made = object.__new__(State)
        made.__dict__.update(self.__dict__)
        made.__dict__.update(changes)
        return made

    def without_ended(self, run_ids: Iterable[str]) -> State:
        """Those of the named that have ended lie in the store alone."""
        ended = [name for name in run_ids if name in self.runs and self.runs[name].is_terminal]
        if not ended:
            return self
        with cast("Map[str, Run]", self.runs).mutate() as changing:
            for name in ended:
                del changing[name]
            runs = changing.finish()
        return replace(self, runs=runs, index=replace(self.index, runs=runs))

    def live_runs(self) -> Iterator[Run]:
        """In no order."""
        return (run for run in self.runs.values() if not run.is_terminal)

    def children(self, run_id: str) -> list[Run]:
        """That have not ended, in the order in which they came."""
        return sorted((self.runs[name] for name in self.index.children.get(run_id, ())), key=lambda it: it.order)

    def attempts(self) -> Iterator[Run]:
        """Runs that somebody holds a lease of, in the order in which they came."""
        return iter(sorted((self.runs[name] for name in self.index.attempts), key=lambda it: it.order))

    def without_attempt(self, run: Run) -> State:
        """As if it held nothing."""
        return self.with_run(replace(run, members=()))

    def is_busy(self, agent_id: str) -> bool:
        """Some run has something of its node."""
        return agent_id in self.index.holds

    def runs_on(self, agent_id: str) -> list[Run]:
        """In the order in which they came."""
        return sorted((self.runs[name] for name in self.index.holds.get(agent_id, ())), key=lambda it: it.order)


@dataclass(frozen=True)
class World:
    """What a decision may need to know of the outside: the time, the machine, and who has not been heard lately."""

    now: datetime
    node_slots: int = 4
    machine: Resources = field(default_factory=lambda: Resources(cpus=2, memory_bytes=8 << 30))
    silent_agents: frozenset[str] = frozenset()
    broken_agents: frozenset[str] = frozenset()
    """Nodes whose process does not come up."""
    broken_why: Mapping[str, str] = field(default_factory=dict)
    """Of those: what the provider says of it."""
    dead_pools: Mapping[str, str] = field(default_factory=dict)
    """Pool -> why. None of its nodes has come up for long, and runs wait for it."""
    short_pools: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Pool -> (how many nodes it can have at most, why no more). Some of its nodes have not come up for long, and runs wait for it."""
    declined_agents: frozenset[str] = frozenset()
    """Nodes that have declined an offer just now."""
    max_lost_attempts: int = 5
    elastic_seconds: float = 600.0
    """How long an elastic gang waits with too few nodes."""


def _endless(distribution: Any) -> frozenset[int]:
    """Ranks that go on until they are ended."""
    if not distribution.tensorflow.parameter_server_count:
        return frozenset()
    return frozenset(task.rank for task in _gang.tasks(distribution) if not task.ends_by_itself)
