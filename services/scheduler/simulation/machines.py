"""Virtual nodes: they take offers, prepare, run scripts that only last, and save, as the agents do; never late and never garbled."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.message import Message

from services.scheduler.domain.facts import JOBS, LEASES, Fact
from services.scheduler.simulation.plans import NOTHING, Attempt, End, Submission
from trainyard import _gang
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.job.v1 import job_pb2 as job

Tell = Callable[[timedelta, Callable[[], Message | None]], None]
"""After so long that message is told, unless there is none any more."""


@dataclass(eq=False)
class Part:
    """What one node has of a run's attempt."""

    agent_id: str
    incarnation: str
    epoch: int
    ranks: list[int]
    stopping: bool = False


@dataclass(eq=False)
class Script:
    """A run's present attempt, on all of its nodes."""

    plan: Submission
    epoch: int = 0
    turn: int = 0
    """Which attempt of the plan it is."""
    parts: dict[str, Part] = field(default_factory=dict)
    """By agent id."""
    done: timedelta = NOTHING
    """Of the work, up to `since`."""
    since: datetime | None = None
    """None: it stands still."""
    speed: float = 1.0
    started: bool = False
    shape: int = 0
    """Counts changes of pace: an end that was foreseen before one does not come."""

    @property
    def attempt(self) -> Attempt:
        return self.plan.attempts[min(self.turn, len(self.plan.attempts) - 1)]

    def halt(self, now: datetime) -> None:
        if self.since is not None:
            self.done += (now - self.since) * self.speed
        self.since = None
        self.shape += 1


class Machines:
    """`tell` puts what a node says into the future; the scheduler's answers come by `hear`."""

    def __init__(self, plans: Iterable[Submission], clock: Callable[[], datetime], tell: Tell) -> None:
        self.up: dict[str, str] = {}
        """Agent id -> incarnation of its process."""
        self.scripts = {plan.run_id: Script(plan) for plan in plans}
        self._clock = clock
        self._tell = tell
        self._processes = 0

    def begin(self, agent_id: str) -> str:
        """Its new process, which holds nothing."""
        self._processes += 1
        self.up[agent_id] = f"process-{self._processes}"
        return self.up[agent_id]

    def end(self, agent_id: str) -> None:
        """Whatever it held is gone, and a gang that has lost a member stands still."""
        self.up.pop(agent_id, None)
        for script in self.scripts.values():
            if script.parts.pop(agent_id, None) is not None:
                script.halt(self._clock())

    def hear(self, fact: Fact) -> None:
        message: Any = fact.message
        script = self.scripts.get(getattr(message, "run_id", ""))
        if script is None:
            return
        match message:
            case cluster.LeaseOffered():
                self._offered(script, message)
            case job.GangFormed() if fact.topic == JOBS and message.epoch == script.epoch:
                self._formed(script, message)
            case job.GangWaiting() if message.epoch == script.epoch:
                script.halt(self._clock())
            case cluster.LeaseRevoked() if fact.topic == LEASES and message.epoch >= script.epoch:
                self._revoked(script, message)
            case job.RunRequeued():
                self._requeued(script, message)
            case job.RunCompleted() | job.RunFailed() | job.RunCanceled():
                del self.scripts[message.run_id]

    # -- one step each

    def _offered(self, script: Script, offer: Any) -> None:
        if self.up.get(offer.agent_id) != offer.incarnation:
            return
        if offer.epoch > script.epoch:
            script.epoch = offer.epoch
            script.parts.clear()
        part = Part(offer.agent_id, offer.incarnation, offer.epoch, list(offer.ranks))
        script.parts[offer.agent_id] = part
        self._say(script, part, cluster.LeaseAccepted)
        attempt = script.attempt
        if attempt.end is End.CANNOT_PREPARE:
            why = Failure(code="PreparationFailed", message="as in the log")
            self._say(script, part, cluster.TaskFailed, attempt.prepares, failure=why)
            self._say(script, part, cluster.OutputsUploaded, attempt.prepares + attempt.saves)
        else:
            self._say(script, part, cluster.TaskPrepared, attempt.prepares, address=offer.agent_id)

    def _formed(self, script: Script, gang: Any) -> None:
        script.halt(self._clock())
        for member in gang.members:
            if part := script.parts.get(member.agent_id):
                part.ranks = list(member.ranks)
        first = script.parts.get(gang.members[0].agent_id)
        if not script.started and first is not None:
            script.started = True
            self._say(script, first, cluster.TaskStarted, rank=first.ranks[0] if first.ranks else 0)
        if any(member.agent_id not in script.parts for member in gang.members):
            return
        size = _gang.node_count(script.plan.spec.distribution)
        script.speed = len(gang.members) / size if _gang.is_elastic(script.plan.spec.distribution) else 1.0
        script.since = self._clock()
        shape, left = script.shape, max(NOTHING, script.attempt.works - script.done)
        members = [script.parts[member.agent_id] for member in gang.members]
        self._tell(_whole(left / script.speed), lambda: self._ends(script, members) if script.shape == shape else None)

    def _ends(self, script: Script, members: list[Part]) -> Message | None:
        script.halt(self._clock())
        attempt, spec = script.attempt, script.plan.spec
        if attempt.end is End.IS_CANCELED:
            return job.CancelRun(run_id=script.plan.run_id, reason="as in the log")
        endless = {task.rank for task in _gang.tasks(spec.distribution, len(members)) if not task.ends_by_itself}
        if attempt.end is End.DONE:
            for part in members:
                ending = [rank for rank in part.ranks if rank not in endless]
                for rank in ending:
                    self._say(script, part, cluster.TaskExited, rank=rank)
                part.ranks = [rank for rank in part.ranks if rank in endless]
                if not part.ranks:
                    self._upload(script, part)
            return None
        culprit = next(part for part in members if set(part.ranks) - endless)
        rank = next(rank for rank in culprit.ranks if rank not in endless)
        timed_out = attempt.end is End.TIMES_OUT
        self._say(script, culprit, cluster.TaskExited, rank=rank, exit_code=attempt.exit_code or 1, timed_out=timed_out)
        culprit.ranks.remove(rank)
        self._stop(script, culprit)
        return None

    def _revoked(self, script: Script, message: Any) -> None:
        part = script.parts.get(message.agent_id)
        if part is None or part.stopping:
            return
        script.halt(self._clock())
        if message.save_outputs:
            self._stop(script, part)
        else:
            del script.parts[message.agent_id]

    def _requeued(self, script: Script, message: Any) -> None:
        script.halt(self._clock())
        every = script.plan.checkpoint_every
        script.parts.clear()
        script.turn += message.restart
        script.done = NOTHING if message.restart or not every else script.done // every * every
        script.started = False

    def _stop(self, script: Script, part: Part) -> None:
        for rank in part.ranks:
            self._say(script, part, cluster.TaskExited, rank=rank, exit_code=-15, stopped=True)
        part.ranks = []
        self._upload(script, part)

    def _upload(self, script: Script, part: Part) -> None:
        part.stopping = True
        self._say(script, part, cluster.OutputsUploaded, script.attempt.saves, then=lambda: script.parts.pop(part.agent_id, None))

    def _say(
        self, script: Script, part: Part, kind: Any, after: timedelta = NOTHING, then: Callable[[], object] = lambda: None, **what: Any
    ) -> None:
        def word() -> Message | None:
            if script.parts.get(part.agent_id) is not part:
                return None
            then()
            said: Message = kind(run_id=script.plan.run_id, epoch=part.epoch, agent_id=part.agent_id, incarnation=part.incarnation, **what)
            return said

        self._tell(after, word)


def _whole(span: timedelta) -> timedelta:
    """In milliseconds, as the log's times are."""
    return timedelta(milliseconds=-(-span // timedelta(milliseconds=1)))
