"""Any pools, nodes, runs and policies in any order: what must hold after every decision, and that everybody's turn comes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from google.protobuf.message import Message
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from services.scheduler.domain import Tick, Unheld, decide, evolve, fold
from services.scheduler.domain.providers import SLOT
from tests.unit.scheduler.gang_story import horovod
from tests.unit.scheduler.placing_world import Yard, check, resources
from tests.unit.scheduler.story import a_pool
from trainyard.cluster.v1 import cluster_pb2 as cluster

RUNS = tuple(f"run-{number}" for number in range(14))
YARD = 5
POOLS = ("yard", "own", "low")
ASKED = (None, None, resources(cpus=1), resources(cpus=0.7, gib=3), resources(cpus=0.5, gpus=1), resources(gib=5))
_runs, _numbers, _pools = st.sampled_from(RUNS), st.integers(0, YARD - 1), st.sampled_from(POOLS)


class Checked(Yard):
    """Every decision is looked at."""

    def tell(self, *messages: Message | Tick | Unheld) -> list[Any]:
        told: list[Any] = []
        for message in messages:
            if isinstance(message, cluster.LeaseDeclined):
                self.world = replace(self.world, declined_agents=self.world.declined_agents | {message.agent_id})
            facts = decide(self.state, message, self.world)
            before = self.state
            if isinstance(message, Message):
                self.state = evolve(self.state, message, self.world.now, cause=f"cause-{len(self.facts)}")
            self.state = fold(self.state, facts, self.world.now, cause=f"cause-{len(self.facts)}")
            self.facts += facts
            told += [fact.message for fact in facts]
            check(before, facts, self.state, self.world)
        return told


class Placements(RuleBasedStateMachine):
    @initialize(low=st.integers(0, 1), own=st.integers(0, 1))
    def begin(self, low: int, own: int) -> None:
        self.yard = Checked(max_nodes=YARD)
        self.yard.tell(a_pool("own", max_nodes=3, min_nodes=own, idle_seconds=30))
        self.yard.tell(a_pool("low", max_nodes=3, min_nodes=low, idle_seconds=30, vm_priority="lowpriority"))
        for number in (0, 1, 2):
            self.comes(number)

    # -- users

    @rule(
        run_id=_runs,
        pool=_pools,
        nodes=st.integers(1, 3),
        elastic=st.booleans(),
        asked=st.sampled_from(ASKED),
        priority=st.integers(0, 3),
        user=st.sampled_from(["ann", "bob"]),
        spread=st.booleans(),
        label=st.sampled_from(["", "", "kind=a"]),
        seconds=st.sampled_from([0, 0, 20, 100]),
    )
    def submit(
        self,
        run_id: str,
        pool: str,
        nodes: int,
        elastic: bool,
        asked: Any,
        priority: int,
        user: str,
        spread: bool,
        label: str,
        seconds: int,
    ) -> None:
        options: dict[str, Any] = {"priority": priority, "user": user, "experiment": f"of-{user}", "spread": int(spread)}
        if asked is not None:
            options["resources"] = asked
            nodes = min(nodes, 2) if asked.gpus else nodes
        if elastic:
            options["distribution"] = horovod(nodes, min_nodes=max(1, nodes - 1), max_nodes=nodes + 1)
        elif nodes > 1:
            options["distribution"] = {"node_count": nodes}
        if label and pool == "yard" and (nodes == 1 or asked is None or not asked.gpus):
            options["labels"] = [label]
        if seconds:
            options["max_duration"] = {"seconds": seconds}
        self.yard.submit(run_id, target=pool, **options)

    @rule(run_id=_runs)
    def ends(self, run_id: str) -> None:
        if run_id in self.yard.state.runs and not self.yard.run(run_id).is_terminal:
            self.yard.cancels(run_id)

    @rule(run_id=_runs)
    def saves(self, run_id: str) -> None:
        """Whoever was told to give its nodes back does."""
        if run_id in self.yard.state.runs and self.yard.run(run_id).preempted:
            self.yard.ends(run_id)

    @rule(run_id=_runs)
    def begins(self, run_id: str) -> None:
        """All of its nodes take it and are prepared, and its ranks start."""
        for member in self.yard.run(run_id).members if run_id in self.yard.state.runs else ():
            for report in (cluster.LeaseAccepted(), cluster.TaskPrepared(address="10.0.0.1", ports=[1] * (len(member.ranks) + 1))):
                self.yard.report(report, agent_id=member.agent_id, incarnation=member.incarnation, run_id=run_id)
        for member in self.yard.run(run_id).members if run_id in self.yard.state.runs else ():
            report = cluster.TaskStarted(rank=member.ranks[0] if member.ranks else 0)
            self.yard.report(report, agent_id=member.agent_id, incarnation=member.incarnation, run_id=run_id)

    # -- nodes

    @rule(number=_numbers)
    def comes(self, number: int) -> None:
        """Nodes 0 and 1 are one machine, with two devices."""
        labels = {"kind": "a"} if number % 2 == 0 else {}
        self.yard.joins(number, uuids=("GPU-a", "GPU-b") if number < 2 else (), **labels)

    @rule()
    def local_nodes_come(self) -> None:
        for pool in [self.yard.state.pools["own"], self.yard.state.pools["low"]]:
            for name in pool.agent_ids:
                if SLOT.match(name) and name not in self.yard.state.agents:
                    self.yard.with_agent(name)

    @rule(data=st.data())
    def dies(self, data: st.DataObject) -> None:
        if self.yard.state.agents:
            name = data.draw(st.sampled_from(sorted(self.yard.state.agents)))
            self.yard.tell(Tick(given_up=(name,)))

    @rule(run_id=_runs)
    def declines(self, run_id: str) -> None:
        for member in self.yard.run(run_id).members[:1] if run_id in self.yard.state.runs else ():
            if not member.accepted:
                self.yard.report(cluster.LeaseDeclined(why="busy"), agent_id=member.agent_id, incarnation=member.incarnation, run_id=run_id)

    @rule(silent=st.sets(st.sampled_from([f"node-{number}" for number in range(YARD)]), max_size=2))
    def pulse(self, silent: set[str]) -> None:
        self.yard.world = replace(self.yard.world, silent_agents=frozenset(silent), declined_agents=frozenset())
        self.yard.later(5).tell(Tick())

    @rule(seconds=st.sampled_from([1, 40, 200, 4000]))
    def time_passes(self, seconds: int) -> None:
        self.yard.later(seconds).tell(Tick())

    # -- owners

    @rule(
        share=st.integers(0, 2),
        weight=st.sampled_from([0.5, 3.0]),
        quota=st.sampled_from([None, resources(cpus=4), resources(cpus=8.5), resources(gpus=1)]),
        backfill=st.booleans(),
        preemption=st.booleans(),
    )
    def policy(self, share: int, weight: float, quota: Any, backfill: bool, preemption: bool) -> None:
        made = cluster.Policy(fair_share=share, no_backfill=not backfill, no_preemption=not preemption)
        for name in ("ann", "of-ann"):
            made.weights[name] = weight
            if quota is not None:
                made.quotas[name].CopyFrom(quota)
        self.yard.tell(cluster.SetPolicy(submission_id=f"p{len(self.yard.facts)}", policy=made))

    @rule(name=st.sampled_from(["own", "low"]), least=st.integers(0, 2), most=st.integers(2, 4))
    def bounds(self, name: str, least: int, most: int) -> None:
        self.yard.tell(cluster.UpdatePool(name=name, min_nodes=least, max_nodes=most))

    def teardown(self) -> None:
        """All nodes come and stay, and each run that has its nodes ends after a while. Then every run has its turn, whatever the policy
        that is in force; but for what that policy forbids at all."""
        if not hasattr(self, "yard"):
            return
        yard = self.yard
        yard.world = replace(yard.world, silent_agents=frozenset(), declined_agents=frozenset())
        yard.tell(Tick())
        for name in ("own", "low"):
            yard.tell(cluster.UpdatePool(name=name, min_nodes=0, max_nodes=4))
        for number in range(YARD):
            if f"node-{number}" not in yard.state.agents:
                self.comes(number)
        for _ in range(4 * len(RUNS)):
            self.local_nodes_come()
            yard.later(10).tell(Tick())
            held = [run.id for run in yard.state.attempts()]
            for run_id in held[:1]:
                yard.cancels(run_id)
            for run_id in held[1:]:
                self.saves(run_id)
            if not list(yard.state.live_runs()):
                break
        left = {run.id: run.why for run in yard.state.live_runs()}
        assert {run_id: why for run_id, why in left.items() if " may hold at all, " not in why} == {}
        assert not left or yard.state.policy.quotas
        started = {fact.message.run_id for fact in yard.facts if isinstance(fact.message, cluster.LeaseOffered)}
        canceled_early = {name for name in yard.state.runs if name not in started}
        assert all(not yard.run(name).members for name in canceled_early)


Placements.TestCase.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)
TestPlacements = Placements.TestCase
