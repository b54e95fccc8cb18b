"""A recorded log as a workload: who asked for what and when, how long it took, and which nodes there were."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from services.scheduler.domain.providers import SLOT
from services.scheduler.simulation.events import Recorded
from services.scheduler.simulation.plans import NOTHING, Attempt, End, Submission, Workload
from trainyard import _gang
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1.spec_pb2 import EnvironmentSpec, RunSpec

# As a silent agent is found out, by the scheduler's settings as they are by default.
_SILENCE = timedelta(seconds=12)
_UNKNOWN = timedelta(seconds=60)
_KEPT = ("compute_target", "max_duration", "use_gpu", "distribution", "resources", "priority", "user", "max_restarts", "labels", "spread")


def workload(events: Sequence[Recorded], begin: datetime | None = None, end: datetime | None = None) -> Workload:
    """Of the runs submitted from `begin` to `end`, and of those that had not ended at `begin`: they come then, whoever ran first.
    Raises ValueError where there are none."""
    runs: dict[str, _Run] = {}
    nodes = _Nodes()
    for event in events:
        message: Any = event.message
        if isinstance(message, job.RunQueued):
            runs.setdefault(message.run_id, _Run(message, event.at))
        elif run := runs.get(getattr(message, "run_id", "")):
            run.saw(event.at, message)
        nodes.saw(event.at, message)
    last = events[-1].at if events else None
    begin = begin or min((run.queued_at for run in runs.values()), default=None)
    if begin is None or last is None:
        raise ValueError("no run was submitted in that time")
    chosen = [run for run in runs.values() if run.is_alive_at(begin) and (end is None or run.queued_at <= end)]
    if not chosen:
        raise ValueError("no run was submitted in that time, and none had been left from before")
    typical = _typical(runs.values())
    before = sorted((it for it in chosen if it.queued_at < begin), key=lambda it: (not it.ran_at(begin), it.queued_at))
    after = [it for it in chosen if it.queued_at >= begin]
    submissions = tuple(it.submission(begin, last, typical) for it in [*before, *after])
    return replace(nodes.workload(), begin=begin, submissions=submissions)


@dataclass
class _Begun:
    """One attempt as it was."""

    preparing_at: datetime
    formed_at: datetime | None = None
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    """When its end was decided."""
    node_time: timedelta = NOTHING
    """Nodes times time, of an elastic gang's shapes so far."""
    shape: tuple[datetime, int] | None = None
    exit_code: int = 0
    checkpoints: int = 0
    checkpoint_at: datetime | None = None

    def reshaped(self, at: datetime, nodes: int) -> None:
        if self.shape is not None:
            self.node_time += (at - self.shape[0]) * self.shape[1]
        self.shape = (at, nodes)


class _Run:
    def __init__(self, queued: Any, at: datetime) -> None:
        self.run_id, self.experiment, self.queued_at = queued.run_id, queued.experiment, at
        self.spec = _slim(queued.spec)
        self.ended_at: datetime | None = None
        self._begun: dict[int, _Begun] = {}
        self._past: list[Attempt] = []
        self._carried = NOTHING
        """Work that earlier attempts had saved."""
        self._every = NOTHING
        self._last: Any = None
        self._waits = True
        self._cancel_at: datetime | None = None

    def saw(self, at: datetime, message: Any) -> None:
        if self.ended_at is not None:
            return
        now = self._begun.get(getattr(message, "epoch", 0) or getattr(message, "lost_epoch", 0))
        match message:
            case job.RunPreparing():
                self._begun.setdefault(message.epoch, _Begun(at))
                self._waits = False
            case job.GangFormed() if now is not None:
                now.formed_at = now.formed_at or at
                now.reshaped(at, len(message.members))
            case job.GangWaiting() if now is not None:
                now.reshaped(at, 0)
            case job.RunStarted() if now is not None:
                now.started_at = now.started_at or at
            case cluster.TaskExited() if now is not None and message.exit_code and not message.stopped:
                now.exit_code = now.exit_code or message.exit_code
            case cluster.TaskFailed() | job.RunFinalizing() | job.RunPreempted() if now is not None:
                self._stops(now, at)
            case cluster.CheckpointSaved() if now is not None and now.started_at is not None:
                now.checkpoints, now.checkpoint_at = now.checkpoints + 1, at
            case job.RunCancelRequested():
                self._cancel_at = at
                for begun in self._begun.values():
                    self._stops(begun, at)
            case job.RunRequeued() if now is not None:
                self._requeued(now, at, message)
            case job.RunCompleted() | job.RunFailed() | job.RunCanceled():
                self.ended_at, self._last = at, message

    def is_alive_at(self, begin: datetime) -> bool:
        return self.queued_at >= begin or self.ended_at is None or self.ended_at > begin

    def ran_at(self, begin: datetime) -> bool:
        return any(it.preparing_at <= begin for it in self._begun.values())

    @property
    def work(self) -> timedelta | None:
        """Of its last attempt, where it came to its end."""
        return self._final().works if isinstance(self._last, job.RunCompleted) and self._begun else None

    def submission(self, begin: datetime, last: datetime, typical: Mapping[str, timedelta]) -> Submission:
        attempts, assumed = self._attempts(last, typical)
        if self.queued_at < begin:
            attempts = _left(attempts, self._begun, begin)
        return Submission(
            at=max(begin, self.queued_at),
            run_id=self.run_id,
            experiment=self.experiment,
            spec=self.spec,
            attempts=attempts,
            canceled_at=max(begin, self._cancel_at) if self._cancel_at is not None and self._was_dropped else None,
            checkpoint_every=self._every,
            assumed=assumed,
        )

    def _attempts(self, last: datetime, typical: Mapping[str, timedelta]) -> tuple[tuple[Attempt, ...], bool]:
        guess = typical.get(self.experiment) or typical.get("", _UNKNOWN)
        lost = isinstance(self._last, job.RunFailed) and self._last.failure.code in ("AgentLost", "PoolDead")
        unfinished = self._last is None and (self._waits or self._newest.started_at is None)
        if not self._begun or lost or unfinished or self._was_dropped:
            return (*self._past, Attempt(works=guess)), True
        if self._last is None:
            self._stops(self._newest, last)
            return (*self._past, self._final()), True
        return (*self._past, self._final()), False

    @property
    def _was_dropped(self) -> bool:
        """Canceled before it ran: whoever did so did not wait for its results."""
        return self._cancel_at is not None and not any(it.started_at for it in self._begun.values())

    @property
    def _newest(self) -> _Begun:
        return self._begun[max(self._begun)]

    def _stops(self, begun: _Begun, at: datetime) -> None:
        if begun.stopped_at is None:
            begun.stopped_at = at
            begun.reshaped(at, 0)

    def _requeued(self, now: _Begun, at: datetime, message: Any) -> None:
        self._waits = True
        if message.restart:
            self._past.append(self._attempt(now, at, End.FAILS, now.exit_code))
            self._carried = NOTHING
        elif now.checkpoints and now.checkpoint_at is not None and now.started_at is not None:
            worked = now.checkpoint_at - now.started_at
            self._carried += worked
            self._every = _whole(worked / now.checkpoints)

    def _final(self) -> Attempt:
        told, newest = self._last, self._newest
        end, code = End.DONE, 0
        if isinstance(told, job.RunFailed):
            code = told.failure.exit_code or newest.exit_code or 1
            end = End.TIMES_OUT if told.failure.code == "TimedOut" else End.FAILS
            end = end if newest.started_at is not None else End.CANNOT_PREPARE
        elif isinstance(told, job.RunCanceled):
            end = End.IS_CANCELED
        return self._attempt(newest, self.ended_at, end, code)

    def _attempt(self, begun: _Begun, ended_at: datetime | None, end: End, code: int) -> Attempt:
        self._stops(begun, ended_at or begun.preparing_at)
        stopped = begun.stopped_at or begun.preparing_at
        ready = begun.formed_at or stopped
        works = NOTHING if begun.started_at is None else stopped - begun.started_at
        if _gang.is_elastic(self.spec.distribution):
            works = _whole(begun.node_time / _gang.node_count(self.spec.distribution))
        saves = (ended_at or stopped) - stopped
        prepares, works, saves = (max(NOTHING, it) for it in (ready - begun.preparing_at, self._carried + works, saves))
        return Attempt(prepares, works, saves, end, code)


class _Nodes:
    def __init__(self) -> None:
        self._facts: list[tuple[datetime, Any]] = []
        self._joins: list[tuple[datetime, Any]] = []
        self._deaths: list[tuple[datetime, str]] = []
        self._departures: list[tuple[datetime, str]] = []
        self._started: dict[str, Any] = {}
        self._joined: set[str] = set()
        self._held: dict[str, frozenset[str]] = {}
        self._asked_for: dict[str, datetime] = {}
        self._starts: list[timedelta] = []
        self._slots = 0

    def saw(self, at: datetime, message: Any) -> None:
        match message:
            case cluster.PoolCreated() | cluster.PoolUpdated() | cluster.PoolDeleted() | cluster.PolicyChanged():
                self._facts.append((at, message))
            case cluster.PoolResized():
                self._resized(at, message)
            case cluster.AgentRegistered() if message.pool:
                self._joined.add(message.agent_id)
                self._joins.append((at, message))
            case cluster.AgentRegistered():
                self._started[message.agent_id] = message
                if (asked := self._asked_for.pop(message.agent_id, None)) is not None:
                    self._starts.append(at - asked)
            case cluster.AgentLost() if message.why.endswith("sent no heartbeat"):
                self._deaths.append((at - _SILENCE, message.agent_id))
            case cluster.AgentLost():
                # Another process has taken its place, or was refused: what registers anew says so itself.
                if message.agent_id in self._started and message.agent_id not in self._joined:
                    self._deaths.append((at - _SILENCE, message.agent_id))
            case cluster.AgentDrained() if message.agent_id in self._joined:
                self._departures.append((at, message.agent_id))

    def _resized(self, at: datetime, message: Any) -> None:
        names = frozenset(message.agent_ids)
        for name in names - self._held.get(message.name, frozenset()):
            self._asked_for[name] = at
            if SLOT.match(name):
                self._slots = max(self._slots, int(name.rpartition("-")[2]) + 1)
        self._held[message.name] = names

    def workload(self) -> Workload:
        starts = sorted(self._starts)
        made = Workload(begin=datetime.max, submissions=(), facts=tuple(self._facts), joins=tuple(self._joins))
        return replace(
            made,
            deaths=tuple(self._deaths),
            departures=tuple(self._departures),
            nodes=self._started,
            starts=_whole(starts[len(starts) // 2]) if starts else made.starts,
            node_slots=max(self._slots, made.node_slots),
        )


def _slim(spec: Any) -> Any:
    """What the scheduler's decisions look at."""
    slim = RunSpec(entry_script="run.py", environment=EnvironmentSpec(framework="none"))
    slim.source.inline.files["run.py"] = b""
    for name in _KEPT:
        if name in ("max_duration", "distribution", "resources"):
            if spec.HasField(name):
                getattr(slim, name).CopyFrom(getattr(spec, name))
        elif name == "labels":
            slim.labels.extend(spec.labels)
        else:
            setattr(slim, name, getattr(spec, name))
    return slim


def _typical(runs: Iterable[_Run]) -> dict[str, timedelta]:
    """Mean work of the runs of each experiment, and of all under ""."""
    known: dict[str, list[timedelta]] = defaultdict(list)
    for run in runs:
        if (work := run.work) is not None:
            known[run.experiment].append(work)
            known[""].append(work)
    return {name: _whole(sum(found, NOTHING) / len(found)) for name, found in known.items()}


def _left(attempts: tuple[Attempt, ...], begun: Mapping[int, _Begun], begin: datetime) -> tuple[Attempt, ...]:
    """Without what had been done by then of the attempt that ran."""
    running = [it for it in begun.values() if it.preparing_at <= begin]
    if not running:
        return attempts
    now = running[-1]
    prepared = begin - now.preparing_at
    worked = NOTHING if now.started_at is None else max(NOTHING, begin - now.started_at)
    first, *others = attempts[min(len(running), len(attempts)) - 1 :]
    return (replace(first, prepares=max(NOTHING, first.prepares - prepared), works=max(NOTHING, first.works - worked)), *others)


def _whole(span: timedelta) -> timedelta:
    return timedelta(milliseconds=round(span / timedelta(milliseconds=1)))
