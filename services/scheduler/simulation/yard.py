"""The virtual yard: a heap of what will happen, the scheduler's core, and machines that do as it says. No clock, no thread, no chance:
the same workload under the same policy leads to the same events."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from google.protobuf.message import Message

from services.scheduler.domain import Fact, Run, State, Tick, World, decide, evolve, fold
from services.scheduler.domain.providers import STATIC, kind_of
from services.scheduler.simulation.machines import Machines
from services.scheduler.simulation.plans import Workload
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.cluster.v1.resources_pb2 import Resources
from trainyard.job.v1 import job_pb2 as job

Watch = Callable[[datetime, Message], None]
_ANYTHING = Resources(cpus=1e9, memory_bytes=1 << 62, gpus=1 << 20)
# As the scheduler's settings have it by default.
_SUSPECT, _LOST = timedelta(seconds=5), timedelta(seconds=12)
# Ticks in a row of which nothing came, until they come half as often: what is late by them is late by a tenth of what it has waited.
_PACE = 10
# As many, after which whoever waits while nothing is to come is taken to wait for ever.
_PATIENCE = 150


class Yard:
    def __init__(self, workload: Workload, watch: Iterable[Watch] = (), tick: timedelta = timedelta(seconds=10)) -> None:
        """`watch` hears every event with its time. `tick`: how often the scheduler looks at its clock while that may change anything."""
        self.state = State()
        self.now = workload.begin
        self.decisions = 0
        self.waiting: dict[str, str] = {}
        """Run id -> why, of those that nothing could place."""
        self._workload = workload
        self._watch = list(watch)
        self._tick = tick
        self._heap: list[tuple[datetime, int, Callable[[], Message | Tick | None]]] = []
        self._order = count()
        self._ticking = False
        self._quiet = 0
        self._silent: set[str] = set()
        self._starting: set[str] = set()
        self.machines = Machines(workload.submissions, lambda: self.now, lambda after, what: self._at(self.now + after, what))
        self._fill()

    def run(self) -> None:
        """Until nothing is left to happen."""
        while self._heap:
            self.now, _, what = heapq.heappop(self._heap)
            if (told := what()) is not None:
                self._say(told)
        self.waiting = {run.id: run.why for run in sorted(self.state.live_runs(), key=lambda it: it.order)}

    # -- what will happen

    def _at(self, at: datetime, what: Callable[[], Message | Tick | None]) -> None:
        heapq.heappush(self._heap, (at, next(self._order), what))

    def _fill(self) -> None:
        load = self._workload
        for at, fact in load.facts:
            self._at(at, lambda fact=fact: fact)  # type: ignore[misc]
        for at, agent in load.joins:
            self._at(at, lambda agent=agent: self._registered(agent))  # type: ignore[misc]
        for at, name in load.departures:
            self._at(at, lambda name=name: self._leaves(name, "as in the log"))  # type: ignore[misc]
        for at, name in load.deaths:
            self._at(at, lambda name=name: self._dies(name))  # type: ignore[misc]
        for it in load.submissions:
            request = job.SubmitRun(submission_id=it.run_id, experiment=it.experiment, spec=it.spec)
            self._at(it.at, lambda request=request: request)  # type: ignore[misc]
            if it.canceled_at is not None:
                self._at(it.canceled_at, lambda run_id=it.run_id: self._canceled(run_id))  # type: ignore[misc]

    def _canceled(self, run_id: str) -> Message | None:
        return job.CancelRun(run_id=run_id, reason="as in the log") if run_id in self.state.runs else None

    # -- nodes

    def _registered(self, agent: Any) -> Message:
        known = cluster.AgentRegistered()
        known.CopyFrom(agent)
        self.machines.end(agent.agent_id)
        known.incarnation = self.machines.begin(agent.agent_id)
        self._silent.discard(agent.agent_id)
        return known

    def _leaves(self, name: str, why: str) -> Message | None:
        incarnation = self.machines.up.get(name)
        if incarnation is None:
            return None
        self.machines.end(name)
        return cluster.AgentDrained(agent_id=name, incarnation=incarnation, why=why)

    def _dies(self, name: str) -> None:
        """Found out as the scheduler does: by silence."""
        incarnation = self.machines.up.get(name)
        if incarnation is None:
            return

        def is_it() -> bool:
            agent = self.state.agents.get(name)
            return agent is not None and agent.incarnation == incarnation

        def suspected() -> Tick | None:
            if not is_it():
                return None
            self._silent.add(name)
            return Tick(silent=(name,))

        def given_up() -> Tick | None:
            self._silent.discard(name)
            return Tick(given_up=(name,)) if is_it() else None

        self.machines.end(name)
        self._at(self.now + _SUSPECT, suspected)
        self._at(self.now + _LOST, given_up)

    def _reconcile(self) -> None:
        """As the scheduler's providers do: what a pool should have comes up, what none has goes."""
        wanted = {name: pool for pool in self.state.pools.values() if kind_of(pool.provider) != STATIC for name in pool.agent_ids}
        for name in sorted(wanted.keys() - self.state.agents.keys() - self._starting):
            self._starting.add(name)
            self._at(self.now + self._workload.starts, lambda name=name: self._comes_up(name))  # type: ignore[misc]
        held = {name for pool in self.state.pools.values() for name in pool.agent_ids}
        for name in sorted(self.machines.up.keys() - held):
            agent = self.state.agents.get(name)
            if agent is not None and not agent.pool:
                self._at(self.now, lambda name=name: self._leaves(name, "no pool needs it"))  # type: ignore[misc]

    def _comes_up(self, name: str) -> Message | None:
        self._starting.discard(name)
        pool = next((it for it in self.state.pools.values() if name in it.agent_ids), None)
        if pool is None or name in self.machines.up:
            return None
        agent = self._workload.nodes.get(name) or cluster.AgentRegistered(agent_id=name, address=name, resources=pool.shape)
        return self._registered(agent)

    # -- the scheduler

    def _say(self, message: Message | Tick) -> None:
        world = World(now=self.now, node_slots=self._workload.node_slots, machine=_ANYTHING, silent_agents=frozenset(self._silent))
        self.decisions += 1
        begun = self.state
        facts = decide(begun, message, world)
        state = begun
        if isinstance(message, Message):
            state = evolve(state, message, self.now)
            for watch in self._watch:
                watch(self.now, message)
        self.state = fold(state, facts, self.now)
        for fact in facts:
            self._told(fact)
        named = dict.fromkeys(getattr(fact.message, "run_id", "") for fact in facts)
        if self.state.pools is not begun.pools or self.state.agents is not begun.agents:
            self._reconcile()
        self.state = self.state.without_ended(named)
        self._quiet = self._quiet + 1 if isinstance(message, Tick) and not facts else 0
        self._tick_if_needed()

    def _told(self, fact: Fact) -> None:
        # What is said to agents repeats what is said of the run.
        if fact.topic != "trainyard.leases" or isinstance(fact.message, cluster.LeaseOffered | cluster.LeaseRevoked):
            for watch in self._watch:
                watch(self.now, fact.message)
        self.machines.hear(fact)
        if isinstance(fact.message, cluster.AgentFenced) and self.machines.up.get(fact.message.agent_id) == fact.message.incarnation:
            self.machines.end(fact.message.agent_id)

    def _tick_if_needed(self) -> None:
        if not self._ticking and self._clock_matters():
            self._ticking = True
            self._at(self.now + self._tick * 2 ** (self._quiet // _PACE), self._ticked)

    def _ticked(self) -> Tick:
        self._ticking = False
        return Tick()

    def _clock_matters(self) -> bool:
        state = self.state
        if self._quiet > _PATIENCE and not self._heap:
            return False
        if state.index.waiting or any(pool.absent_since for pool in state.pools.values()):
            return True
        if any(len(pool.agent_ids) > pool.min_nodes for pool in state.pools.values() if kind_of(pool.provider) != STATIC):
            return True
        return any(run.deadline is not None for run in self._elastic())

    def _elastic(self) -> Iterable[Run]:
        return (run for run in map(self.state.runs.__getitem__, self.state.index.attempts) if run.is_elastic)
