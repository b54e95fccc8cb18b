"""Pools, nodes and runs for tests of placement, and what must hold of whatever it decides."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from services.scheduler.domain import Fact, State, World, fold
from services.scheduler.domain.index import Index
from services.scheduler.domain.placing import place
from services.scheduler.domain.placing.needs import capacity_of, share_of
from tests.unit.scheduler.story import Story, a_submission, some_outputs
from trainyard import _gang
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.cluster.v1.resources_pb2 import Gpu, Resources
from trainyard.job.v1 import job_pb2 as job

GIB = 1 << 30

_LOOKS = 5


def resources(cpus: float = 0, gib: float = 0, gpus: int = 0) -> Resources:
    return Resources(cpus=cpus, memory_bytes=int(gib * GIB), gpus=gpus)


class Yard(Story):
    """A pool "yard" of nodes that join by hand: each is there when it says so, and none is started for a run."""

    def __init__(self, nodes: int = 0, max_nodes: int = 8, **size: Any) -> None:
        super().__init__(node_slots=4)
        pool = cluster.CreatePool(submission_id="yard", name="yard", vm_size="LOCAL", max_nodes=max_nodes)
        pool.provider.static.SetInParent()
        self.tell(pool)
        for number in range(nodes):
            self.joins(number, **size)

    def joins(self, number: int, cpus: float = 4, gib: float = 8, gpus: int = 0, uuids: tuple[str, ...] = (), **labels: str) -> list[Any]:
        devices = [Gpu(index=index, uuid=uuid) for index, uuid in enumerate(uuids)]
        has = resources(cpus, gib, gpus or len(uuids))
        return self.tell(
            cluster.AgentRegistered(agent_id=f"node-{number}", incarnation="first", pool="yard", resources=has, labels=labels, gpus=devices)
        )

    def submit(self, run_id: str, nodes: int = 1, target: str = "yard", **options: Any) -> list[Any]:
        if nodes > 1:
            options["distribution"] = {"node_count": nodes}
        if "seconds" in options:
            options["max_duration"] = {"seconds": options.pop("seconds")}
        return self.tell(a_submission(run_id, target=target, **options))

    def ends(self, run_id: str) -> list[Any]:
        """It is told to, and all of it is saved."""
        told = []
        for member in self.run(run_id).members:
            report = some_outputs(f"outputs/{member.agent_id}")
            told += self.report(report, agent_id=member.agent_id, incarnation=member.incarnation, run_id=run_id)
        return told

    def cancels(self, run_id: str) -> list[Any]:
        return self.tell(job.CancelRun(run_id=run_id)) + self.ends(run_id)

    def where(self, run_id: str) -> list[str]:
        return sorted(it.agent_id for it in self.run(run_id).members)

    @property
    def held(self) -> dict[str, list[str]]:
        """Of the runs that hold nodes."""
        return {run.id: self.where(run.id) for run in self.state.attempts()}


def check(before: State, facts: list[Fact], after: State, world: World) -> None:
    """`facts` were decided in `before` and lead to `after`."""
    _nothing_is_given_twice(after)
    _gangs_are_whole(before, facts)
    _quotas_hold(after, facts)
    _victims_are_lower(before, facts)
    assert rows(after.index) == rows(Index.of(after.runs))
    # What is said of those that go on waiting the next looks may still put in order; it must come to an end, and nobody starts by it.
    for _ in range(_LOOKS):
        if not (again := place(after, world)):
            return
        assert not any(isinstance(it.message, cluster.LeaseOffered) for it in again), f"found late: {[it.message for it in again]}"
        after = fold(after, again, world.now)
    raise AssertionError(f"it never comes to rest: {[it.message for it in again]}")


def _nothing_is_given_twice(state: State) -> None:
    devices: Counter[str] = Counter()
    used: dict[str, list[Any]] = defaultdict(list)
    for run in state.attempts():
        for member in run.members:
            used[member.agent_id].append((run, member))
    for name, users in used.items():
        agent = state.agents.get(name)
        if agent is None:
            continue
        if any(not run.spec.HasField("resources") for run, _ in users):
            assert len(users) == 1, f"{name} was given as a whole, and to others too"
        pools = [state.pools[run.spec.compute_target] for run, _ in users]
        most = [max(column) for column in zip(*(capacity_of(agent, pool) for pool in pools), strict=True)]
        assert sum(it.resources.cpus for _, it in users) <= most[0] + 1e-6
        assert sum(it.resources.memory_bytes for _, it in users) <= most[1]
        indices = [gpu for _, it in users for gpu in it.gpus]
        assert len(set(indices)) == len(indices) <= most[2]
        devices.update(gpu.uuid for gpu in agent.gpus if gpu.index in indices and gpu.uuid)
        for run, it in users:
            assert run.spec.resources.gpus in (0, len(it.gpus))
    assert all(count == 1 for count in devices.values()), devices


def _gangs_are_whole(before: State, facts: list[Fact]) -> None:
    offers: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for fact in facts:
        if isinstance(fact.message, cluster.LeaseOffered):
            offers[fact.message.run_id, fact.message.epoch].append(fact.message)
    assert len({run_id for run_id, _ in offers}) == len(offers), "two attempts of one run"
    for (run_id, epoch), mine in offers.items():
        run = before.runs.get(run_id)
        assert len({it.agent_id for it in mine}) == len(mine), "a node is in a gang once"
        if run is not None and epoch == run.epoch:
            assert run.is_elastic
            assert [it.node_index for it in mine] == list(range(run.next_index, run.next_index + len(mine)))
            continue
        distribution, count = mine[0].spec.distribution, len(mine)
        assert _gang.fewest_nodes(distribution) <= count <= _gang.node_count(distribution)
        assert [it.node_index for it in mine] == list(range(count))
        assert {it.node_count for it in mine} == {count}
        ranks = sorted(rank for it in mine for rank in it.ranks)
        assert ranks == [task.rank for task in _gang.tasks(distribution, count)]


def _quotas_hold(state: State, facts: list[Fact]) -> None:
    """Of what was offered just now: a quota that was lowered takes nothing away, and bounds nothing that nobody asks for."""
    offers = [fact.message for fact in facts if isinstance(fact.message, cluster.LeaseOffered)]
    for share in {share_of(state, state.runs[it.run_id]) for it in offers}:
        if share not in state.policy.quotas:
            continue
        quota = state.policy.quotas[share]
        held = [it.resources for run in state.attempts() if share_of(state, run) == share for it in run.members]
        given = [it.resources for it in offers if share_of(state, state.runs[it.run_id]) == share]
        for name in ("cpus", "memory_bytes", "gpus"):
            bound, used = getattr(quota, name), sum(getattr(it, name) for it in held)
            asked = any(getattr(it, name) for it in given)
            assert not bound or not asked or used <= bound + 1e-6, f"{share} holds {used} {name} of {bound}"


def _victims_are_lower(before: State, facts: list[Fact]) -> None:
    for fact in facts:
        if isinstance(fact.message, job.RunPreempted) and fact.message.run_id in before.runs and fact.message.by in before.runs:
            victim, by = before.runs[fact.message.run_id], before.runs[fact.message.by]
            is_lent = before.pools[victim.spec.compute_target].vm_priority == "lowpriority"
            assert is_lent or victim.spec.priority < by.spec.priority


def rows(index: Index) -> Any:
    """What an index says, however it came to it."""
    waiting = {
        (target, lane): (list(queue), dict(queue.orders)) for target, lanes in index.waiting.items() for lane, queue in lanes.items()
    }
    return waiting, index.holds, index.attempts, index.children
