"""A world of honest nodes and a log that repeats, reorders and delays, for the scheduler's gangs. Placement is done here, simply."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from services.scheduler.domain import Run, Tick, decide, evolve, fold
from tests.unit.scheduler.gang_story import a_cluster, horovod
from tests.unit.scheduler.story import Story, a_failure, a_pool, a_submission, some_outputs
from trainyard import _gang
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job

NODES = tuple(f"node-{number}" for number in range(5))
RUNS = tuple("abcdefgh")
SHAPES: tuple[dict[str, Any], ...] = (
    {"distribution": horovod(nodes=1)},
    {"distribution": horovod(nodes=3, each=2), "max_restarts": 2},
    {"distribution": a_cluster(nodes=2, worker_count=2, parameter_server_count=1)},
    {"distribution": a_cluster(nodes=2, chief=True, parameter_server_count=2, evaluator=True), "max_restarts": 1},
    {"distribution": horovod(nodes=2, each=2, min_nodes=1, max_nodes=4)},
    {"distribution": horovod(nodes=2, min_nodes=2, max_nodes=3), "max_restarts": 3},
    {"distribution": horovod(nodes=3, min_nodes=2, max_nodes=4)},
)
ENDS = (job.RunCompleted, job.RunFailed, job.RunCanceled, job.RunRejected)


@dataclass
class Part:
    """Of one process in one attempt: its processes by their place on the node, and how far they are."""

    run_id: str
    epoch: int
    index: int
    ranks: list[int]
    endless: frozenset[int]
    prepared: bool = False
    going: set[int] = field(default_factory=set)
    started: bool = False


@dataclass
class Process:
    name: str
    incarnation: str
    inbox: list[Any] = field(default_factory=list)
    parts: dict[str, Part] = field(default_factory=dict)
    newest: dict[str, tuple[int, int]] = field(default_factory=dict)
    stalled: bool = False
    reluctant: bool = False


class GangWorld:
    def __init__(self, max_lost_attempts: int = 30) -> None:
        self.story = Story(max_lost_attempts=max_lost_attempts, node_slots=8, elastic_seconds=50)
        self.log: list[tuple[Any, Any]] = []
        self.in_flight: list[Any] = []
        self.taken: list[Any] = []
        self.processes: dict[str, Process] = {}
        self.count = 0
        self.ends: dict[str, list[Any]] = {}
        self.newest: dict[str, int] = {}
        """Epoch of the newest thing said of a run."""
        self.rounds: dict[tuple[str, int], int] = {}
        self.held: dict[tuple[str, int], set[str]] = {}
        self.freed: set[tuple[str, int, str]] = set()
        self.ended_well: Counter[tuple[str, int]] = Counter()
        self.failed: Counter[tuple[str, int]] = Counter()
        self.seen: Counter[str] = Counter()
        self.tell(a_pool(max_nodes=8))

    # -- the scheduler

    def tell(self, message: Any) -> None:
        story = self.story
        before = story.state
        facts = decide(story.state, message, story.world)
        events = [message] if isinstance(message, Message) else []
        for event in events:
            self._note_uploads(before, event)
            story.state = evolve(story.state, event, story.world.now)
        for fact in facts:
            self._check(fact.topic, fact.message)
            story.state = fold(story.state, [fact], story.world.now)
            self._deliver(fact.topic, fact.key, fact.message)
        self.log += [(event, story.world.now) for event in [*events, *(fact.message for fact in facts)]]

    def _deliver(self, topic: str, key: str, message: Any) -> None:
        if topic == "trainyard.leases" and key in self.processes:
            self.processes[key].inbox.append(message)

    def _note_uploads(self, before: Any, message: Any) -> None:
        """Who has let go by itself, in the scheduler's eyes."""
        run = before.runs.get(getattr(message, "run_id", ""))
        if isinstance(message, cluster.OutputsUploaded) and run is not None and run.epoch == message.epoch:
            self.freed.add((run.id, run.epoch, message.agent_id))

    def _check(self, topic: str, message: Any) -> None:
        self.seen[type(message).__name__] += 1
        run_id = getattr(message, "run_id", "")
        if not run_id:
            return
        assert run_id not in self.ends, f"{run_id} has ended, and now: {message}"
        epoch = getattr(message, "epoch", 0) or getattr(message, "lost_epoch", 0)
        if epoch:
            assert epoch >= self.newest.get(run_id, 0), f"an old attempt lives: {message}"
            self.newest[run_id] = epoch
        if isinstance(message, cluster.LeaseRevoked):
            self.freed.add((run_id, epoch, message.agent_id))
        if isinstance(message, job.GangFormed) and topic == "trainyard.jobs":
            assert message.round == self.rounds.get((run_id, epoch), 0) + 1
            self.rounds[run_id, epoch] = message.round
            ranks = [rank for it in message.members for rank in it.ranks]
            assert ranks == sorted(ranks) or self.story.run(run_id).spec.distribution.HasField("tensorflow")
            assert len(set(ranks)) == len(ranks)
        if isinstance(message, (*ENDS, job.RunRequeued)):
            leaked = {name for name in self.held.get((run_id, epoch), ()) if (run_id, epoch, name) not in self.freed}
            assert not leaked, f"{leaked} still hold {run_id}"
        if isinstance(message, ENDS):
            self.ends.setdefault(run_id, []).append(message)
            self._check_end(self.story.run(run_id), message)

    def _check_end(self, run: Run, end: Any) -> None:
        attempt = (run.id, run.epoch)
        distribution = run.spec.distribution
        if isinstance(end, job.RunCompleted):
            wanted = sum(task.ends_by_itself for task in _gang.tasks(distribution))
            assert self.ended_well[attempt] >= (1 if _gang.is_elastic(distribution) else wanted)
        if isinstance(end, job.RunFailed) and end.failure.code == "ScriptFailed":
            assert self.failed[attempt]
            assert run.restarts >= run.spec.max_restarts or _gang.is_elastic(distribution)
        assert {file.path for file in end.outputs.files} <= {f"outputs/{run.epoch}"}

    # -- placement

    def place(self, dice: random.Random) -> None:
        """A run that waits gets as many free nodes as it wants, or none; an elastic one may get one more."""
        run = dice.choice(sorted(self.story.state.live_runs(), key=lambda it: it.order) or [None])
        if run is None:
            return
        busy = set(self.story.state.index.holds)
        agents = self.story.state.agents
        free = sorted(name for name, agent in agents.items() if name not in busy)
        dice.shuffle(free)
        distribution = run.spec.distribution
        if run.waits_for_a_node and len(free) >= _gang.node_count(distribution):
            for index in range(_gang.node_count(distribution)):
                self._offer(run, free[index], run.epoch + 1, index, _gang.ranks_of(distribution, index))
        elif free and run.is_elastic and run.formed and not run.is_ending and len(run.members) < _gang.most_nodes(distribution):
            each = distribution.process_count_per_node or 1
            self._offer(run, free[0], run.epoch, run.next_index, list(range(each)))

    def _offer(self, run: Run, name: str, epoch: int, index: int, ranks: list[int]) -> None:
        incarnation = self.story.state.agents[name].incarnation
        offer = cluster.LeaseOffered(
            run_id=run.id, epoch=epoch, agent_id=name, incarnation=incarnation, node_index=index, ranks=ranks, spec=run.spec
        )
        self.held.setdefault((run.id, epoch), set()).add(name)
        self.freed.discard((run.id, epoch, name))
        self._say("trainyard.leases", name, offer)

    def preempt(self, run_id: str) -> None:
        run = self.story.state.runs.get(run_id)
        if run is None or not run.members or run.is_ending or run.is_terminal:
            return
        self._say("trainyard.jobs", run_id, job.RunPreempted(run_id=run_id, epoch=run.epoch, why="others need its nodes"))
        for it in run.members:
            revoked = cluster.LeaseRevoked(run_id=run_id, epoch=run.epoch, agent_id=it.agent_id, save_outputs=True)
            self._say("trainyard.leases", it.agent_id, revoked)

    def _say(self, topic: str, key: str, fact: Any) -> None:
        self.log.append((fact, self.story.world.now))
        self.story.state = evolve(self.story.state, fact, self.story.world.now)
        self._deliver(topic, key, fact)

    # -- nodes

    def start(self, name: str) -> None:
        """The earlier process of that name, if any, dies without a word."""
        self.count += 1
        self.processes[name] = Process(name, f"i{self.count}")
        self.in_flight.append(cluster.AgentRegistered(agent_id=name, incarnation=f"i{self.count}"))

    def read(self, name: str) -> None:
        process = self.processes.get(name)
        if process is None or process.stalled or not process.inbox:
            return
        message = process.inbox.pop(0)
        part = process.parts.get(getattr(message, "run_id", ""))
        match message:
            case cluster.LeaseOffered() if message.incarnation == process.incarnation:
                self._offered(process, message)
            case job.GangFormed() if part is not None and part.epoch == message.epoch:
                self._formed(process, part, message)
            case cluster.LeaseRevoked() if part is not None and part.epoch <= message.epoch:
                if message.save_outputs:
                    self._stop(process, part)
                process.parts.pop(part.run_id, None)
            case cluster.AgentFenced() if message.incarnation == process.incarnation:
                del self.processes[name]

    def _offered(self, process: Process, offer: Any) -> None:
        place = (offer.epoch, offer.node_index)
        if place <= process.newest.get(offer.run_id, (0, 0)):
            return
        process.newest[offer.run_id] = place
        if process.reluctant:
            self._report(process, offer, cluster.LeaseDeclined(why="it does not want to"))
            return
        tasks = _gang.tasks(offer.spec.distribution)
        endless = frozenset(list(offer.ranks).index(it.rank) for it in tasks if it.rank in offer.ranks and not it.ends_by_itself)
        process.parts[offer.run_id] = Part(offer.run_id, offer.epoch, offer.node_index, list(offer.ranks), endless)
        self._report(process, offer, cluster.LeaseAccepted())

    def _formed(self, process: Process, part: Part, gang: Any) -> None:
        mine = [it for it in gang.members if (it.agent_id, it.incarnation) == (process.name, process.incarnation)]
        if not mine:
            if part.started:
                self._stop(process, part)
            return
        part.ranks = list(mine[0].ranks)
        if not part.started:
            part.started, part.going = True, set(range(len(part.ranks)))
            for rank in part.ranks:
                self._report(process, part, cluster.TaskStarted(rank=rank))
            self._upload_if_done(process, part)

    def _stop(self, process: Process, part: Part) -> None:
        for place in sorted(part.going):
            self._report(process, part, cluster.TaskExited(rank=part.ranks[place], exit_code=-15, stopped=True))
        part.going.clear()
        self._upload(process, part)

    def step(self, name: str, dice: random.Random, badly: float, haste: float = 1.0) -> None:
        """Whatever it holds goes on by one step; a script ends one with the probability `haste`."""
        process = self.processes.get(name)
        if process is None or process.stalled:
            return
        for part in list(process.parts.values()):
            if not part.prepared:
                part.prepared = True
                if dice.random() < badly / 4:
                    self._report(process, part, cluster.TaskFailed(failure=a_failure()))
                    self._upload(process, part)
                else:
                    self._report(process, part, cluster.TaskPrepared())
            elif (ending := sorted(part.going - part.endless)) and dice.random() < haste:
                self._exit(process, part, dice.choice(ending), dice.random() < badly)

    def _exit(self, process: Process, part: Part, place: int, badly: bool) -> None:
        part.going.discard(place)
        self._report(process, part, cluster.TaskExited(rank=part.ranks[place], exit_code=int(badly), last_lines=["boom"]))
        (self.failed if badly else self.ended_well)[part.run_id, part.epoch] += 1
        if badly:
            self._stop(process, part)
        else:
            self._upload_if_done(process, part)

    def _upload_if_done(self, process: Process, part: Part) -> None:
        if not part.going:
            self._upload(process, part)

    def _upload(self, process: Process, part: Part) -> None:
        self._report(process, part, some_outputs(f"outputs/{part.epoch}"))
        process.parts.pop(part.run_id, None)

    def _report(self, process: Process, of: Any, message: Any) -> None:
        message.run_id, message.epoch, message.agent_id, message.incarnation = of.run_id, of.epoch, process.name, process.incarnation
        self.in_flight.append(message)

    # -- the log and time

    def deliver(self, index: int) -> None:
        message = self.in_flight.pop(index)
        self.taken.append(message)
        self.tell(message)

    def everybody_is_late(self, deadline: bool) -> None:
        attempts = [(run.id, run.epoch) for run in self.story.state.attempts() if any(not it.accepted for it in run.members)]
        forming = [(run.id, run.epoch) for run in self.story.state.attempts() if run.is_forming]
        if deadline:
            self.story.later(60)
        self.tell(Tick(overdue=tuple(sorted(attempts)), unformed=tuple(sorted(forming))))

    def replayed(self) -> Any:
        state = Story().state
        for event, at in self.log:
            state = evolve(state, event, at)
        return state

    def submit(self, name: str, shape: int) -> None:
        self.in_flight.append(a_submission(name, **SHAPES[shape]))
