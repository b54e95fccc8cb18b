"""Gangs of any shape on nodes that come, die, stall, return and decline: what must hold however it goes."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.scheduler.domain import Tick
from services.scheduler.domain.restarting import allowed
from services.scheduler.domain.state import TERMINAL
from tests.unit.scheduler.gang_world import NODES, RUNS, SHAPES, GangWorld
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job

_nodes, _runs, _seeds = st.sampled_from(NODES), st.sampled_from(RUNS), st.integers(0, 2**32)


class Gangs(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.world = GangWorld()

    # -- users and placement

    @rule(name=_runs, shape=st.integers(0, len(SHAPES) - 1))
    def submit(self, name: str, shape: int) -> None:
        self.world.submit(name, shape)

    @rule(name=_runs)
    def cancel(self, name: str) -> None:
        self.world.in_flight.append(job.CancelRun(run_id=name))

    @rule(name=_runs)
    def preempt(self, name: str) -> None:
        self.world.preempt(name)

    @rule(seed=_seeds)
    def place(self, seed: int) -> None:
        self.world.place(random.Random(seed))

    # -- the log

    @precondition(lambda self: self.world.in_flight)
    @rule(data=st.data(), keep=st.booleans())
    def deliver(self, data: st.DataObject, keep: bool) -> None:
        index = data.draw(st.integers(0, len(self.world.in_flight) - 1))
        if keep:
            self.world.tell(self.world.in_flight[index])
        else:
            self.world.deliver(index)

    @precondition(lambda self: self.world.taken)
    @rule(data=st.data())
    def redeliver(self, data: st.DataObject) -> None:
        self.world.tell(self.world.taken[data.draw(st.integers(0, len(self.world.taken) - 1))])

    @rule()
    def begin_anew_from_the_log(self) -> None:
        assert self.world.replayed().runs == self.world.story.state.runs

    # -- nodes

    @rule(name=_nodes)
    def start(self, name: str) -> None:
        self.world.start(name)

    @rule(name=_nodes, stalled=st.booleans(), reluctant=st.booleans())
    def turn(self, name: str, stalled: bool, reluctant: bool) -> None:
        """SIGSTOP and SIGCONT; a node that declines what it is offered from now on."""
        if name in self.world.processes:
            self.world.processes[name].stalled, self.world.processes[name].reluctant = stalled, reluctant

    @rule(name=_nodes)
    def read(self, name: str) -> None:
        self.world.read(name)

    @rule(name=_nodes, seed=_seeds, badly=st.sampled_from([0.0, 0.5]))
    def step(self, name: str, seed: int, badly: float) -> None:
        self.world.step(name, random.Random(seed), badly)

    # -- time

    @rule(given_up=st.lists(_nodes, unique=True), silent=st.lists(_nodes, unique=True))
    def pulse(self, given_up: list[str], silent: list[str]) -> None:
        heard = tuple(name for name in NODES if name not in silent and name not in given_up)
        self.world.tell(Tick(silent=tuple(silent), heard=heard, given_up=tuple(given_up)))

    @rule(deadline=st.booleans())
    def everybody_is_late(self, deadline: bool) -> None:
        self.world.everybody_is_late(deadline)

    @rule(seed=_seeds)
    def live_a_while(self, seed: int) -> None:
        """Many small steps, mostly the ordinary ones: what is rare only shows when it meets a gang that has come far."""
        dice = random.Random(seed)
        for _ in range(40):
            walk(self, dice)

    # -- what must hold

    @invariant()
    def an_end_is_told_once(self) -> None:
        for ends in self.world.ends.values() if hasattr(self, "world") else ():
            assert len(ends) == 1

    @invariant()
    def a_run_that_lives_says_why_it_is_as_it_is(self) -> None:
        for run in self.world.story.state.live_runs() if hasattr(self, "world") else ():
            assert run.why or run.cancel_requested

    @invariant()
    def a_node_holds_one_run_and_a_member_is_one_process(self) -> None:
        """Placement here never shares a node, so a second holder would be a lease that was not given back."""
        if not hasattr(self, "world"):
            return
        holders = Counter(it.agent_id for run in self.world.story.state.live_runs() for it in run.members)
        assert all(count == 1 for count in holders.values()), holders

    @invariant()
    def nothing_is_counted_beyond_its_bounds(self) -> None:
        for run in self.world.story.state.runs.values() if hasattr(self, "world") else ():
            assert run.restarts <= allowed(run)
            assert run.lost_attempts <= self.world.story.world.max_lost_attempts
            assert run.lost_epoch <= run.epoch
            assert len({it.node_index for it in run.members}) == len(run.members)

    def teardown(self) -> None:
        """The world calms down: everything arrives, every node lives, every script ends well. Then every run ends."""
        if not hasattr(self, "world"):
            return
        world, dice = self.world, random.Random(0)
        for _ in range(300):
            while world.in_flight:
                world.deliver(0)
            for name in NODES:
                process, known = world.processes.get(name), world.story.state.agents.get(name)
                if process is None or known is None or known.incarnation != process.incarnation:
                    world.start(name)
                else:
                    process.stalled = process.reluctant = False
            for name in NODES:
                while name in world.processes and world.processes[name].inbox:
                    world.read(name)
                world.step(name, dice, 0.0)
            for _ in range(5):
                world.place(dice)
            if not world.in_flight and all(run.is_terminal for run in world.story.state.runs.values()):
                break
        assert all(run.status in TERMINAL for run in world.story.state.runs.values()), world.story.state.runs
        assert set(world.ends) == set(world.story.state.runs)
        assert world.replayed() == world.story.state


def walk(machine: Gangs, dice: random.Random) -> None:
    world, name = machine.world, dice.choice(NODES)
    match dice.random():
        case pick if pick < 0.34 and world.in_flight:
            world.deliver(0)
        case pick if pick < 0.38 and world.in_flight:
            world.deliver(dice.randrange(len(world.in_flight)))
        case pick if pick < 0.41 and world.taken:
            world.tell(dice.choice(world.taken))
        case pick if pick < 0.60:
            world.read(name)
        case pick if pick < 0.80:
            world.step(name, dice, 0.12, haste=0.2)
        case pick if pick < 0.93:
            world.place(dice)
        case pick if pick < 0.945:
            world.submit(dice.choice(RUNS), dice.randrange(len(SHAPES)))
        case pick if pick < 0.950:
            world.start(name)
        case pick if pick < 0.957:
            machine.turn(name, dice.random() < 0.5, dice.random() < 0.2)
        case pick if pick < 0.962:
            world.everybody_is_late(dice.random() < 0.5)
        case pick if pick < 0.972:
            machine.pulse([name] if dice.random() < 0.15 else [], [name])
        case pick if pick < 0.977:
            world.preempt(dice.choice(RUNS))
        case pick if pick < 0.9785:
            machine.cancel(dice.choice(RUNS))
        case pick if pick < 0.9815 and name in world.processes:
            world.tell(cluster.AgentDrained(agent_id=name, incarnation=world.processes.pop(name).incarnation, why="maintenance"))


Gangs.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestGangs = Gangs.TestCase


def test_long_walks_reach_every_end_and_break_nothing() -> None:
    """The machine without Hypothesis: long walks by dice, which also show that its invariants are not empty."""
    ends: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    rounds = 0
    for seed in range(40):
        dice, machine = random.Random(seed), Gangs()
        machine.begin()
        for name in NODES:
            machine.start(name)
        for name in RUNS:
            machine.submit(name, dice.randrange(len(SHAPES)))
        for _ in range(800):
            walk(machine, dice)
            machine.a_run_that_lives_says_why_it_is_as_it_is()
            machine.a_node_holds_one_run_and_a_member_is_one_process()
            machine.nothing_is_counted_beyond_its_bounds()
        machine.begin_anew_from_the_log()
        machine.teardown()
        ends.update(type(end[0]).__name__ for end in machine.world.ends.values())
        seen += machine.world.seen
        rounds += sum(round_ > 1 for round_ in machine.world.rounds.values())

    assert min(ends[name] for name in ("RunCompleted", "RunFailed", "RunCanceled")) > 5, ends
    assert min(seen[name] for name in ("RunRequeued", "GangFormed", "GangWaiting", "RunNotResponding")) > 5, seen
    assert rounds > 5
