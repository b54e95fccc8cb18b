"""Runs, agents and a log that repeats, reorders, withholds and redelivers: what must hold however it goes."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf.message import Message
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.scheduler.domain import Holding, Tick, decide, evolve, fold
from services.scheduler.domain.state import TERMINAL
from services.trainer_agent import domain as agent_domain
from tests.unit.scheduler.story import Story, a_failure, a_pool, a_submission, some_outputs
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet
from trainyard.job.v1 import job_pb2 as job

_ENDS = (job.RunCompleted, job.RunFailed, job.RunCanceled, job.RunRejected)
_AGENTS = ("agent-0", "agent-1")
_ADDED = (job.RunTagged, job.RunPropertiesAdded, job.RunFilesAdded, job.RunWarned)
_NAMES = ["a", "b", "c", "d", "o", "p", "q"]
"""Of runs: the first four are submitted, the rest opened."""


@dataclass
class Process:
    """A process of an agent: its leases by the real rules, and its script as far as it has come."""

    me: agent_domain.Me
    leases: agent_domain.Leases = field(default_factory=agent_domain.Leases)
    stage: dict[str, int] = field(default_factory=dict)
    inbox: list[Any] = field(default_factory=list)
    read: list[Any] = field(default_factory=list)

    def held(self) -> dict[str, int]:
        """Run id -> epoch."""
        return {run_id: it.part.epoch for run_id, it in self.leases.held.items()}


class LifeCycle(RuleBasedStateMachine):
    """The scheduler takes inputs one at a time; anything in flight may come twice, late, in another order, or be lost and come again."""

    runs = Bundle("runs")

    @initialize()
    def begin(self) -> None:
        self.story = Story(max_lost_attempts=50)
        self.in_flight: list[Any] = []
        self.taken: list[Any] = []
        self.processes: dict[str, Process] = {}
        self.incarnations = 0
        self.ends: dict[str, list[Any]] = {}
        self.offered: dict[str, list[int]] = {}
        self.started: Counter[tuple[str, int, str]] = Counter()
        self.accepted: Counter[tuple[str, int, str]] = Counter()
        self.queued: Counter[str] = Counter()
        self.ended_as: dict[str, Any] = {}
        self.fixed: dict[tuple[str, str], dict[str, str]] = {}
        self.holding = Holding()
        self.found_unheld = 0
        self._tell(a_pool(max_nodes=2, idle_seconds=100_000))

    # -- what users do

    @rule(target=runs, name=st.sampled_from(["a", "b", "c", "d"]))
    def submit(self, name: str) -> str:
        self.in_flight.append(a_submission(name))
        return name

    @rule(target=runs, name=st.sampled_from(_NAMES[4:]), parent=st.sampled_from(["", *_NAMES]))
    def open(self, name: str, parent: str) -> str:
        self.in_flight.append(job.OpenRun(submission_id=name, experiment="exp", parent_run_id=parent))
        return name

    @rule(name=runs, status=st.sampled_from([job.RUN_STATUS_COMPLETED, job.RUN_STATUS_FAILED, job.RUN_STATUS_CANCELED]))
    def close(self, name: str, status: Any) -> None:
        self.in_flight.append(job.CloseRun(run_id=name, status=status))

    @rule(name=runs, key=st.sampled_from("xyz"), value=st.sampled_from("12"))
    def label(self, name: str, key: str, value: str) -> None:
        self.in_flight.append(job.TagRun(run_id=name, set={key: value}))
        self.in_flight.append(job.AddRunProperties(run_id=name, properties={key: value}))
        file = Artifact(path=key, sha256=value * 64, object_key=f"uploads/{name}/{value}/{key}")
        self.in_flight.append(job.AddRunFiles(run_id=name, files=ArtifactSet(files=[file])))

    @rule(name=runs)
    def cancel(self, name: str) -> None:
        self.in_flight.append(job.CancelRun(run_id=name))

    # -- what the log does

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def deliver_any(self, data: st.DataObject) -> None:
        message = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        self.taken.append(message)
        self._tell(message)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def deliver_and_keep(self, data: st.DataObject) -> None:
        self._tell(self.in_flight[data.draw(st.integers(0, len(self.in_flight) - 1))])

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def redeliver_something_old(self, data: st.DataObject) -> None:
        self._tell(self.taken[data.draw(st.integers(0, len(self.taken) - 1))])

    @rule()
    def begin_anew_from_the_log(self) -> None:
        """The scheduler's store is lost: folding all that was taken and said gives the same state."""
        assert self._replayed().runs == self.story.state.runs

    # -- what agents do

    @rule(name=st.sampled_from(_AGENTS))
    def start_a_process(self, name: str) -> None:
        """The earlier process of that name, if any, dies without a word."""
        self.incarnations += 1
        me = agent_domain.Me(name, f"i{self.incarnations}")
        self.processes[name] = Process(me)
        self.in_flight.append(cluster.AgentRegistered(agent_id=name, incarnation=me.incarnation))

    @rule(name=st.sampled_from(_AGENTS))
    def read_a_lease_message(self, name: str) -> None:
        process = self.processes.get(name)
        if process is not None and process.inbox:
            process.read.append(process.inbox.pop(0))
            self._act(process, process.read[-1])

    @rule(name=st.sampled_from(_AGENTS), data=st.data())
    def read_a_lease_message_again(self, name: str, data: st.DataObject) -> None:
        process = self.processes.get(name)
        if process is not None and process.read:
            self._act(process, process.read[data.draw(st.integers(0, len(process.read) - 1))])

    @rule(name=st.sampled_from(_AGENTS), how=st.sampled_from(["well", "badly", "not at all"]))
    def go_on(self, name: str, how: str) -> None:
        """The held run takes its next step."""
        process = self.processes.get(name)
        for run_id, epoch in process.held().items() if process else ():
            self._step(process, run_id, epoch, how)  # type: ignore[arg-type]

    @rule(seed=st.integers(0, 2**32))
    def live_a_while(self, seed: int) -> None:
        """Many small steps, mostly the ordinary ones: what is rare only shows when it meets a run that has come far."""
        dice = random.Random(seed)
        for _ in range(20):
            self._walk(dice)

    @rule(name=st.sampled_from(_AGENTS))
    def forget(self, name: str) -> None:
        """What it holds is lost to it without a word."""
        process = self.processes.get(name)
        if process is not None:
            process.leases = replace(process.leases, held={})

    @rule(name=st.sampled_from(_AGENTS), count=st.integers(1, 12))
    def beat(self, name: str, count: int) -> None:
        """Its reports may lie in the log unread meanwhile: an attempt counts as lost early then, and nothing else may go wrong."""
        process, known = self.processes.get(name), self.story.state.agents.get(name)
        if process is None or known is None or known.incarnation != process.me.incarnation:
            return
        held = [cluster.HeldRun(run_id=run_id, epoch=epoch) for run_id, epoch in process.held().items()]
        message = cluster.AgentHeartbeat(agent_id=name, incarnation=process.me.incarnation, held=held)
        for _ in range(count):
            self.holding, lost = self.holding.heard(self.story.state, message)
            for attempt in lost:
                assert process.held().get(attempt.run_id) != attempt.epoch
                self.found_unheld += 1
                self._tell(attempt)

    # -- what time does

    @rule(given_up=st.lists(st.sampled_from(_AGENTS), unique=True), silent=st.lists(st.sampled_from(_AGENTS), unique=True))
    def time_passes(self, given_up: list[str], silent: list[str]) -> None:
        self.story.later(1)
        heard = tuple(name for name in _AGENTS if name not in silent and name not in given_up)
        self._tell(Tick(silent=tuple(silent), heard=heard, given_up=tuple(given_up)))

    @rule()
    def offers_grow_old(self) -> None:
        self._tell(self._offers_overdue())

    # -- what must hold

    @invariant()
    def a_run_ends_at_most_once(self) -> None:
        assert all(len(ends) == 1 for ends in getattr(self, "ends", {}).values())

    @invariant()
    def a_run_is_queued_once_and_an_attempt_taken_and_started_once(self) -> None:
        assert all(count <= 1 for run_id, count in getattr(self, "queued", {}).items() if run_id)
        assert all(count == 1 for count in getattr(self, "started", {}).values())
        assert all(count == 1 for count in getattr(self, "accepted", {}).values())

    @invariant()
    def a_run_that_has_ended_never_changes(self) -> None:
        """But for what anybody may add to it."""
        for run_id, run in getattr(self, "ended_as", {}).items():
            now = self.story.state.runs[run_id]
            assert run == replace(
                now, tags=run.tags, properties=run.properties, files=run.files, warnings=run.warnings, revision=run.revision
            )

    @invariant()
    def properties_and_files_never_change(self) -> None:
        for run_id, run in self.story.state.runs.items() if hasattr(self, "story") else ():
            digests = {file.path: file.sha256 for file in run.files.files}
            for kind, now in (("property", run.properties), ("file", digests)):
                before = self.fixed.setdefault((run_id, kind), {})
                assert before.items() <= now.items()
                before.update(now)

    @invariant()
    def no_opened_run_goes_on_after_its_parent(self) -> None:
        for run in self.story.state.live_runs() if hasattr(self, "story") else ():
            parent = self.story.state.runs.get(run.parent_run_id)
            assert not run.opened or parent is None or not parent.is_terminal
            assert not (run.opened and run.members)

    @invariant()
    def epochs_only_grow(self) -> None:
        for epochs in getattr(self, "offered", {}).values():
            assert epochs == sorted(set(epochs))

    @invariant()
    def an_agent_holds_one_run_and_a_run_that_ended_holds_none(self) -> None:
        if not hasattr(self, "story"):
            return
        held = [member.agent_id for run in self.story.state.live_runs() for member in run.members]
        assert len(held) == len(set(held))

    def teardown(self) -> None:
        """Let the world be kind: everything arrives, every agent lives, every script ends. Then every run must have ended."""
        if not hasattr(self, "story"):
            return
        for name in _NAMES[4:]:
            self.in_flight.append(job.CloseRun(run_id=name, status=job.RUN_STATUS_COMPLETED))
        for _ in range(200):
            while self.in_flight:
                self._tell(self.in_flight.pop(0))
            for name in _AGENTS:
                process, known = self.processes.get(name), self.story.state.agents.get(name)
                if process is None or process.leases.draining or known is None or known.incarnation != process.me.incarnation:
                    self.start_a_process(name)
                self.beat(name, 1)
            for process in self.processes.values():
                while process.inbox:
                    self._act(process, process.inbox.pop(0))
                for run_id, epoch in process.held().items():
                    self._step(process, run_id, epoch, "well")
            if not self.in_flight and all(run.is_terminal for run in self.story.state.runs.values()):
                break
            if not self.in_flight:
                self._tell(self._offers_overdue())
        assert all(run.status in TERMINAL for run in self.story.state.runs.values()), self.story.state.runs
        assert set(self.ends) == set(self.story.state.runs)
        assert self._replayed() == self.story.state

    # -- machinery

    def _offers_overdue(self) -> Tick:
        open_ = {(run.id, run.epoch) for run in self.story.state.live_runs() if any(not member.accepted for member in run.members)}
        return Tick(overdue=tuple(sorted(open_)))

    def _walk(self, dice: random.Random) -> None:
        agent = dice.choice(_AGENTS)
        pick = dice.random()
        if pick < 0.4 and self.in_flight:
            message = self.in_flight.pop(0)
            self.taken.append(message)
            self._tell(message)
        elif pick < 0.46 and self.in_flight:
            self._tell(self.in_flight.pop(dice.randrange(len(self.in_flight))))
        elif pick < 0.50 and self.taken:
            self._tell(dice.choice(self.taken))
        elif pick < 0.52:
            self.start_a_process(agent)
        elif pick < 0.53:
            self.in_flight.append(job.CancelRun(run_id=dice.choice(_NAMES)))
        elif pick < 0.54:
            self.open(dice.choice(_NAMES[4:]), dice.choice(["", *_NAMES]))
        elif pick < 0.543:
            self.close(dice.choice(_NAMES), job.RUN_STATUS_FAILED)
        elif pick < 0.546:
            self.label(dice.choice(_NAMES), dice.choice("xyz"), dice.choice("12"))
        elif pick < 0.55:
            self.in_flight.append(a_submission(dice.choice("abcd")))
        elif pick < 0.555:
            self.offers_grow_old()
        elif pick < 0.565:
            self.time_passes([agent] if dice.random() < 0.3 else [], [agent])
        elif pick < 0.575:
            self.forget(agent)
        elif pick < 0.585:
            self.beat(agent, dice.randrange(1, 20))
        elif pick < 0.60:
            process = self.processes.get(agent)
            if process is not None and process.read:
                self._act(process, dice.choice(process.read))
        elif pick < 0.75:
            self.read_a_lease_message(agent)
        else:
            self.go_on(agent, dice.choice(["well", "well", "well", "badly"]))

    def _tell(self, message: Any) -> None:
        story = self.story
        facts = decide(story.state, message, story.world)
        events = ([message] if isinstance(message, Message) else []) + [fact.message for fact in facts]
        story.facts += facts
        if isinstance(message, Message):
            story.state = evolve(story.state, message, story.world.now)
        story.state = fold(story.state, facts, story.world.now)
        self.log = [*getattr(self, "log", []), *((event, story.world.now) for event in events)]
        for fact in facts:
            run_id = getattr(fact.message, "run_id", "")
            assert run_id not in self.ends or isinstance(fact.message, (cluster.LeaseRevoked, *_ADDED)), (
                f"{run_id} has ended, and now: {fact.message}"
            )
            self.queued[run_id] += isinstance(fact.message, job.RunQueued | job.RunOpened)
            if isinstance(fact.message, _ENDS):
                self.ends.setdefault(run_id, []).append(fact.message)
                self._check_outputs(fact.message)
                self.ended_as[run_id] = story.state.runs[run_id]
            if isinstance(fact.message, cluster.LeaseOffered):
                self.offered.setdefault(fact.message.run_id, []).append(fact.message.epoch)
            if fact.topic == "trainyard.leases" and fact.key in self.processes:
                self.processes[fact.key].inbox.append(fact.message)

    def _check_outputs(self, end: Any) -> None:
        """What counts was written by the attempt that counts."""
        if not isinstance(end, job.RunRejected) and not self.story.state.runs[end.run_id].opened:
            assert {file.path for file in end.outputs.files} <= {f"outputs/{end.epoch}"}

    def _replayed(self) -> Any:
        state = Story().state
        for event, at in self.log:
            state = evolve(state, event, at)
        return state

    def _act(self, process: Process, message: Any) -> None:
        for action in agent_domain.decide(process.leases, message, process.me):
            process.leases = agent_domain.evolve(process.leases, action)
            match action:
                case agent_domain.Accept(offer):
                    process.stage[offer.run_id] = 0
                    self.accepted[offer.run_id, offer.epoch, process.me.incarnation] += 1
                    self._report(process, cluster.LeaseAccepted(), offer.run_id, offer.epoch)
                case agent_domain.Decline(offer, why):
                    self._report(process, cluster.LeaseDeclined(why=why), offer.run_id, offer.epoch)
                case agent_domain.Form(run_id, gang):
                    process.stage[run_id] = 2
                    self.started[run_id, gang.epoch, process.me.incarnation] += 1
                case agent_domain.Stop(run_id, part, _, True):
                    self._report(process, some_outputs(f"outputs/{part.epoch}"), run_id, part.epoch)
                    process.leases = agent_domain.released(process.leases, run_id, part)

    def _step(self, process: Process, run_id: str, epoch: int, how: str) -> None:
        stage = process.stage.get(run_id, 0)
        if how == "not at all":
            return
        match stage, how:
            case 0, "badly":
                self._report(process, cluster.TaskFailed(failure=a_failure()), run_id, epoch)
                process.stage[run_id] = 4
            case 0, _:
                self._report(process, cluster.TaskPrepared(), run_id, epoch)
                process.stage[run_id] = 1
            case 2, _:
                self._report(process, cluster.TaskStarted(), run_id, epoch)
                process.stage[run_id] = 3
            case 3, _:
                self._report(process, cluster.TaskExited(exit_code=1 if how == "badly" else 0), run_id, epoch)
                process.stage[run_id] = 4
            case 4, _:
                self._report(process, some_outputs(f"outputs/{epoch}"), run_id, epoch)
                process.leases = agent_domain.released(process.leases, run_id, agent_domain.Part(epoch, 0))

    def _report(self, process: Process, message: Any, run_id: str, epoch: int) -> None:
        message.run_id, message.epoch = run_id, epoch
        message.agent_id, message.incarnation = process.me.agent_id, process.me.incarnation
        self.in_flight.append(message)


LifeCycle.TestCase.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
TestLifeCycle = LifeCycle.TestCase


def test_long_walks_reach_every_end_and_break_nothing() -> None:
    """The machine without Hypothesis: long walks by dice, which also show that its invariants are not empty."""
    ends: Counter[str] = Counter()
    lost = unheld = 0
    for seed in range(60):
        dice = random.Random(seed)
        machine = LifeCycle()
        machine.begin()
        for name in "abcd":
            machine.submit(name)
        for _ in range(300):
            machine._walk(dice)
            machine.a_run_ends_at_most_once()
            machine.a_run_is_queued_once_and_an_attempt_taken_and_started_once()
            machine.a_run_that_has_ended_never_changes()
            machine.properties_and_files_never_change()
            machine.no_opened_run_goes_on_after_its_parent()
            machine.epochs_only_grow()
            machine.an_agent_holds_one_run_and_a_run_that_ended_holds_none()
        machine.begin_anew_from_the_log()
        machine.teardown()
        ends.update(type(end[0]).__name__ for end in machine.ends.values())
        unheld += machine.found_unheld
        lost += sum(len(epochs) - 1 for epochs in machine.offered.values())

    assert min(ends[name] for name in ("RunCompleted", "RunFailed", "RunCanceled")) > 10
    assert unheld > 2
    assert lost > 50
