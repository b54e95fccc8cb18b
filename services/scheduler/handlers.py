"""Events in, documents and facts out. The live part of the state stays in memory and is written through; ended runs lie in SQL only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime
from functools import cache, lru_cache, partial
from typing import Any

from services.chassis import codec
from services.chassis.handler import Command, Emit, InvalidMessage
from services.chassis.settings import Scheduler
from services.chassis.store import Documents
from services.chassis.topics import topics
from services.scheduler.domain import ANSWERED, Agent, Fact, Holding, Pool, Run, State, World, decide, evolve, fold, policy
from services.scheduler.domain.facts import LEASES
from services.scheduler.domain.placing import explain, standing
from services.scheduler.liveness import Liveness
from services.scheduler.pool_health import PoolHealth
from trainyard._cloudevents import Received
from trainyard._kafka import partition_of
from trainyard._paths import RUN_ID
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.job.v1 import job_pb2 as job

RUN, POOL, AGENT, COUNTERS, REFUSAL, POLICY = "run", "pool", "agent", "counters", "pool-refusal", "policy"
WARNED = "request-warned"
"""Event id of a request about a run -> why it was refused."""
_STRANGER_BEATS = 5
_ON_BEHALF = (job.OpenRun, job.CloseRun, job.TagRun, job.AddRunProperties, job.AddRunFiles)
"""What an agent asks for its script, in the name of an attempt."""
NEWEST, NEWEST_OF = "newest-run", "newest-run-of/{}"


class SchedulerHandler:
    answers = ANSWERED

    def __init__(
        self,
        settings: Scheduler,
        incarnation: str,
        machine: cluster.Resources,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.state = State()
        self.heard = 0
        """Records of the heartbeat topic, of whomever."""
        self._settings = settings
        self._incarnation = incarnation
        self._machine = machine
        self._clock = clock
        pulses = 1 / settings.pulse_seconds
        self._strangers: Counter[tuple[str, str]] = Counter()
        self._holding = Holding()
        self._reacted: tuple[Received, State, State, State] | None = None
        """What was answered last and in which state; this with the runs that it names, and after it: it is applied next, as a rule."""
        self._liveness = Liveness(
            round(settings.suspect_after_seconds * pulses),
            round(settings.lost_after_seconds * pulses),
            round(settings.offer_seconds * pulses),
            round(settings.gang_seconds * pulses),
        )
        self.health = PoolHealth(round(settings.pool_dead_seconds * pulses))

    def explain(self, run: Run) -> tuple[int, str]:
        """Position in its pool's queue, from 1, and why it waits; (0, why it is as it is) of a run that does not wait."""
        now = self.state.runs.get(run.id)
        return (0, run.why) if now is None or not now.waits_for_a_node else explain(self.state, self._world(), run.id)

    def queue(self, pool: str) -> Iterator[tuple[Run, int, str]]:
        """(run, its position from 1, why it waits), in the order of their turn."""
        return standing(self.state, self._world(), pool)

    # -- the Handler's part

    def react(self, event: Received, documents: Documents) -> Iterable[Emit]:
        message: Any = event.message
        match message:
            case cluster.AgentHeartbeat():
                self.heard += 1
                return self._heartbeat(message)
            case cluster.SchedulerPulse():
                self.heard += 1
                if message.incarnation != self._incarnation:
                    return ()
                registered = {agent.id: agent.incarnation for agent in self.state.agents.values()}
                self.health.pulse(self.state)
                begun = list(self.state.attempts())
                offers = {(run.id, run.epoch) for run in begun if any(not it.accepted and not it.uploaded for it in run.members)}
                forming = {(run.id, run.epoch) for run in begun if run.is_forming}
                return _emits(decide(self.state, self._liveness.pulse(registered, offers, forming), self._world()))
            case cluster.LeaseDeclined():
                self._liveness.declined(message.agent_id)
            case cluster.TaskFailed() if self._is_joining(message):
                # Asked again at once it would fail again at once.
                self._liveness.declined(message.agent_id)
            case job.SubmitRun() | job.OpenRun():
                _check_key(event, message.submission_id, "submission_id")
                if not RUN_ID.match(message.submission_id):
                    raise InvalidMessage(
                        f"submission_id {message.submission_id[:200]!r} is none: letters or digits first, then also - and _, at most 128"
                    )
            case job.CancelRun() | job.CloseRun() | job.TagRun() | job.AddRunProperties() | job.AddRunFiles():
                _check_key(event, message.run_id, "run_id")
                if self._run(message.run_id, documents) is None:
                    raise InvalidMessage(f"{type(message).__name__} names the run {message.run_id[:200]!r}, which does not exist")
            case cluster.CreatePool() | cluster.UpdatePool() | cluster.DeletePool():
                _check_key(event, message.name, "name")
            case cluster.SetPolicy():
                _check_key(event, policy.NAME, "word for it")
            case cluster.DrainAgent():
                _check_key(event, message.agent_id, "agent_id")
            case _ if not isinstance(message, ANSWERED):
                return ()
        before = self._with_run_of(message, documents)
        after = evolve(before, message, event.time, event.causation_id)
        self._reacted = event, self.state, before, after
        return _emits(decide(before, message, self._world(), after))

    def apply(self, event: Received, documents: Documents) -> None:
        message: Any = event.message
        if isinstance(message, cluster.PoolRejected):
            documents.put(REFUSAL, message.submission_id or event.causation_id, message.failure.SerializeToString())
            return
        if isinstance(message, job.RunWarned) and event.causation_id:
            documents.put(WARNED, event.causation_id, message.message.encode())
        reacted, self._reacted = self._reacted, None
        if reacted is not None and reacted[0] is event and reacted[1] is self.state:
            _, _, before, after = reacted
        else:
            before = self._with_run_of(message, documents)
            after = evolve(before, message, event.time, event.causation_id)
        if after is not before:
            self._keep(before, after, _named(message), documents)

    def command(self, command: Command, documents: Documents) -> Iterable[Emit]:
        raise InvalidMessage(f"the scheduler knows no command {command.payload!r}")

    def reset(self, documents: Documents) -> None:
        runs = {run.id: run for _, content in documents.all(RUN) if not (run := codec.loads(content, Run)).is_terminal}
        pools = {key: codec.loads(content, Pool) for key, content in documents.all(POOL)}
        agents = {key: codec.loads(content, Agent) for key, content in documents.all(AGENT)}
        counters = documents.get(COUNTERS, "submissions")
        numbers = {key: int(content) for key, content in documents.all("experiment")}
        policy_now = cluster.Policy.FromString(documents.get(POLICY, policy.NAME) or b"")
        self.state = State(runs, pools, agents, numbers, int(counters or 0), policy_now)
        self._reacted = None

    def snapshot(self) -> Callable[[], None]:
        heard, strangers, holding = self.heard, self._strangers.copy(), self._holding
        parts = self._liveness.snapshot(), self.health.snapshot()

        def restore() -> None:
            self.heard, self._strangers, self._holding = heard, strangers, holding
            for part in parts:
                part()

        return restore

    # -- parts

    def _heartbeat(self, message: Any) -> Iterable[Emit]:
        """A process that goes on for some beats without being the registered one of a node that some pool holds is told to end.

        Not at once: heartbeats and registrations lie on different topics, and a new process may be heard before it is known.
        """
        self._liveness.beat(message.agent_id, message.incarnation)
        known = self.state.agents.get(message.agent_id)
        wanted = any(message.agent_id in pool.agent_ids for pool in self.state.pools.values())
        stranger = (message.agent_id, message.incarnation)
        registered = known is not None and known.incarnation == message.incarnation
        if registered and wanted:
            self._strangers.pop(stranger, None)
            return self._held(message)
        self._strangers[stranger] += 1
        if self._strangers[stranger] < _STRANGER_BEATS:
            return self._held(message) if registered else ()
        del self._strangers[stranger]
        why = f"{message.agent_id} is known under another process, or was given up" if wanted else f"no pool holds {message.agent_id}"
        fenced = cluster.AgentFenced(agent_id=message.agent_id, incarnation=message.incarnation, why=why)
        return [Emit("trainyard.leases", message.agent_id, fenced)]

    def _held(self, heartbeat: Any) -> Iterable[Emit]:
        """The attempts that its process has lost without a word."""
        self._holding, lost = self._holding.heard(self.state, heartbeat)
        state = self.state
        facts: list[Fact] = []
        for attempt in lost:
            follow = decide(state, attempt, self._world())
            state, facts = fold(state, follow, self._clock()), facts + follow
        return _emits(facts)

    def _world(self) -> World:
        settings, broken = self._settings, self.health.broken()
        return World(
            now=self._clock(),
            node_slots=settings.node_slots,
            machine=self._machine,
            silent_agents=self._liveness.silent(),
            broken_agents=frozenset(broken),
            broken_why=broken,
            dead_pools=self.health.dead(self.state),
            short_pools=self.health.short(self.state),
            declined_agents=self._liveness.declining(),
            max_lost_attempts=settings.max_lost_attempts,
            elastic_seconds=settings.elastic_seconds,
        )

    def _is_joining(self, message: Any) -> bool:
        run = self.state.runs.get(message.run_id)
        return run is not None and run.is_elastic and run.formed

    def _run(self, run_id: str, documents: Documents) -> Run | None:
        return self.state.runs.get(run_id) or load_run(documents, run_id)

    def _with_run_of(self, message: Any, documents: Documents) -> State:
        """The state with the run that the message is about, and with its parent and the run that it resumes from, even if they
        have ended: a repeat must find them."""
        state = self.state
        for run_id in _named(message):
            if run_id not in state.runs:
                run = load_run(documents, run_id)
                state = state if run is None else state.with_run(run)
        return state

    def _keep(self, before: State, after: State, named: Collection[str], documents: Documents) -> None:
        """An event changes no other runs than those it names: all that wait are not looked at."""
        for run_id in named:
            run, known = after.runs.get(run_id), before.runs.get(run_id)
            if run is not None and run is not known:
                documents.put(RUN, run_id, partial(codec.dumps, run))
                if known is None:
                    self._index(run, documents)
        for kind, old, new in ((POOL, before.pools, after.pools), (AGENT, before.agents, after.agents)):
            if old is new:
                continue
            for key in old.keys() - new.keys():
                documents.remove(kind, key)
            for key, value in new.items():
                if value is not old.get(key):
                    documents.put(kind, key, partial(codec.dumps, value))
        if after.policy is not before.policy:
            documents.put(POLICY, policy.NAME, after.policy.SerializeToString(deterministic=True))
        if after.submissions != before.submissions:
            documents.put(COUNTERS, "submissions", str(after.submissions).encode())
        for experiment, number in after.numbers.items() if after.numbers is not before.numbers else ():
            if number != before.numbers.get(experiment):
                documents.put("experiment", experiment, str(number).encode())
        self.state = after.without_ended(named)

    @staticmethod
    def _index(run: Run, documents: Documents) -> None:
        place = f"{run.order:012d}"
        documents.put(NEWEST, place, run.id.encode())
        documents.put(NEWEST_OF.format(run.experiment), place, run.id.encode())


def _named(message: Any) -> list[str]:
    """Runs that it is about or refers to, each once."""
    if isinstance(message, job.SubmitRun):
        named = [message.submission_id, message.spec.parent_run_id, message.spec.resume_from]
    else:
        kind: Any = type(message)
        fields = _fields_that_name(kind)
        if isinstance(message, _ON_BEHALF):
            asked_about = [getattr(message, name) for name in fields]
            return [run_id for run_id in dict.fromkeys((*asked_about, message.by.run_id)) if run_id]
        # Of most there is one, and asking a message for what it has not costs more than all the rest.
        named = [getattr(message, name) for name in fields]
        if len(fields) < 2:
            return named if named and named[0] else []
        if "run_id" in fields and "submission_id" in fields and message.run_id:
            named.remove(message.submission_id)
    return [run_id for run_id in dict.fromkeys(named) if run_id]


@cache
def _fields_that_name(kind: Any) -> tuple[str, ...]:
    """Fields of a message that hold the id of a run."""
    return tuple(name for name in ("run_id", "submission_id", "parent_run_id") if name in kind.DESCRIPTOR.fields_by_name)


def load_run(documents: Documents, run_id: str) -> Run | None:
    content = documents.get(RUN, run_id)
    return None if content is None else codec.loads(content, Run)


def warning_of(documents: Documents, request_event_id: str) -> str:
    """Why a request about a run was refused; "" if it was taken."""
    return (documents.get(WARNED, request_event_id) or b"").decode()


def refusal_of(documents: Documents, submission_id: str) -> Failure | None:
    content = documents.get(REFUSAL, submission_id)
    return None if content is None else Failure.FromString(content)


def _emits(facts: Iterable[Fact]) -> list[Emit]:
    """An agent reads its whole partition and finds itself in a gang by its name, so members that share a partition share a record: as
    each record names all members, one for each of them would make the log grow by the square of their number."""
    emits: list[Emit] = []
    told: set[tuple[str, int, int, int]] = set()
    for fact in facts:
        message: Any = fact.message
        if fact.topic == LEASES and isinstance(message, job.GangFormed):
            there = (message.run_id, message.epoch, message.round, _partition(fact.key))
            if there in told:
                continue
            told.add(there)
        emits.append(Emit(fact.topic, fact.key, message, getattr(message, "run_id", "")))
    return emits


@lru_cache(maxsize=65_536)
def _partition(agent_id: str) -> int:
    return partition_of(agent_id, topics()[LEASES].partitions)


def _check_key(event: Received, wanted: str, field: str) -> None:
    if event.key != wanted:
        raise InvalidMessage(
            f"the record's key {event.key[:200]!r} must be the {field} {wanted[:200]!r}: order within a key is what counts"
        )
