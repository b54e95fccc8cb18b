"""What a stretch of the log comes to, in figures: of a recorded one and of a simulated one alike. It is told every event, and keeps sums."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from google.protobuf.message import Message

from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job

Figures = dict[str, Any]
_ENDS = (job.RunCompleted, job.RunFailed, job.RunCanceled)


@dataclass
class _Account:
    """Of one run."""

    experiment: str
    user: str
    whole: bool
    gpus: int
    since: datetime | None
    """When it began to wait; None while it does not."""
    waited: float = 0.0
    agents: set[str] = field(default_factory=set)
    end: str = ""
    began: datetime | None = None
    preempted: bool = False
    """Its attempt is being ended for another run."""


class Ledger:
    def __init__(self, begin: datetime, runs: Collection[str]) -> None:
        """Counts from `begin`, and of these runs."""
        self._begin = begin
        self._counted = frozenset(runs)
        self._now = begin
        self._runs: dict[str, _Account] = {}
        self._gpus_of: dict[str, int] = {}
        """Agent id -> GPUs, of those that are up."""
        self._holds: dict[str, dict[str, int]] = {}
        """Agent id -> run id -> GPUs."""
        self._gpus = self._busy_gpus = 0
        """Of all of them."""
        self._sums = {"nodes": 0.0, "busy_nodes": 0.0, "gpus": 0.0, "busy_gpus": 0.0}
        self._settled = dict(self._sums)
        """As the sums were at the newest end of a run that counts."""
        self._last_end: datetime | None = None
        self.preemptions = self.lost = self.restarts = 0

    def saw(self, at: datetime, message: Message) -> None:
        self._pass(at)
        told: Any = message
        match message:
            case job.RunQueued():
                self._queued(at, told)
            case cluster.LeaseAccepted():
                self._holds_now(told)
            case cluster.OutputsUploaded():
                self._lets_go(told.run_id, {told.agent_id})
            case cluster.AgentRegistered():
                self._gone(told.agent_id)
                self._gpus_of[told.agent_id] = told.resources.gpus
                self._gpus += told.resources.gpus
            case cluster.AgentLost() | cluster.AgentDrained():
                self._gone(told.agent_id)
        run = self._runs.get(getattr(told, "run_id", ""))
        if run is not None and not run.end:
            self._of_a_run(run, at, told)

    def _of_a_run(self, run: _Account, at: datetime, told: Any) -> None:
        counts = told.run_id in self._counted
        match told:
            case job.RunPreparing() if run.since is not None:
                run.waited += self._span(run.since, at)
                run.since, run.began = None, run.began or at
            case job.RunPreempted():
                run.preempted = True
                self.preemptions += counts
            case job.RunRequeued():
                self.restarts += told.restart and counts
                self.lost += not told.restart and not run.preempted and counts
                run.preempted = False
                self._lets_go(told.run_id, set(run.agents))
                run.since = run.since or at
            case job.RunCompleted() | job.RunFailed() | job.RunCanceled():
                run.end = {job.RunCompleted: "completed", job.RunFailed: "failed", job.RunCanceled: "canceled"}[type(told)]
                run.waited += 0.0 if run.since is None else self._span(run.since, at)
                run.since = None
                self._lets_go(told.run_id, set(run.agents))
                if counts:
                    self._settled, self._last_end = dict(self._sums), at

    def began(self) -> Mapping[str, datetime | None]:
        """Run id -> when it first had all of its nodes."""
        return {name: run.began for name, run in self._runs.items() if name in self._counted}

    def figures(self) -> Figures:
        """Seconds throughout. A run that still waits is counted with what it has waited so far."""
        runs = [(name, run) for name, run in sorted(self._runs.items()) if name in self._counted]
        waits = {name: run.waited + (0.0 if run.since is None else self._span(run.since, self._now)) for name, run in runs}
        groups: dict[str, dict[str, list[float]]] = {"experiments": defaultdict(list), "users": defaultdict(list)}
        for name, run in runs:
            groups["experiments"][run.experiment].append(waits[name])
            groups["users"][run.user].append(waits[name])
        ended = self._last_end is not None
        sums = self._settled if ended else self._sums
        ends = [run.end or "unfinished" for _, run in runs]
        return {
            "runs": {"all": len(runs)} | {end: ends.count(end) for end in ("completed", "failed", "canceled", "unfinished")},
            "waits": _of(waits.values()),
            "utilisation": {
                "node_seconds": _share(sums["busy_nodes"], sums["nodes"]),
                "gpu_seconds": _share(sums["busy_gpus"], sums["gpus"]),
            },
            "preemptions": self.preemptions,
            "lost_attempts": self.lost,
            "restarts": self.restarts,
            "makespan": round(self._span(self._begin, self._last_end or self._now), 3),
            **{name: {key: _of(found) for key, found in sorted(group.items())} for name, group in groups.items()},
        }

    # -- parts

    def _pass(self, at: datetime) -> None:
        """Adds up what was the case until now."""
        span = self._span(self._now, at)
        if span > 0:
            self._sums["nodes"] += span * len(self._gpus_of)
            self._sums["gpus"] += span * self._gpus
            self._sums["busy_nodes"] += span * len(self._holds)
            self._sums["busy_gpus"] += span * self._busy_gpus
        self._now = max(at, self._now)

    def _span(self, start: datetime, end: datetime) -> float:
        """Of that, what counts."""
        return max(0.0, (end - max(start, self._begin)).total_seconds())

    def _queued(self, at: datetime, told: Any) -> None:
        spec = told.spec
        self._runs.setdefault(told.run_id, _Account(told.experiment, spec.user, not spec.HasField("resources"), spec.resources.gpus, at))

    def _holds_now(self, told: Any) -> None:
        run = self._runs.get(told.run_id)
        if run is not None and not run.end and told.agent_id in self._gpus_of:
            run.agents.add(told.agent_id)
            gpus = self._gpus_of[told.agent_id] if run.whole else run.gpus
            held = self._holds.setdefault(told.agent_id, {})
            self._busy_gpus += gpus - held.get(told.run_id, 0)
            held[told.run_id] = gpus

    def _lets_go(self, run_id: str, agents: Iterable[str]) -> None:
        run = self._runs.get(run_id)
        for name in agents:
            if run is not None:
                run.agents.discard(name)
            held = self._holds.get(name, {})
            self._busy_gpus -= held.pop(run_id, 0)
            if not held:
                self._holds.pop(name, None)

    def _gone(self, agent_id: str) -> None:
        self._gpus -= self._gpus_of.pop(agent_id, 0)
        for run_id, gpus in self._holds.pop(agent_id, {}).items():
            self._busy_gpus -= gpus
            self._runs[run_id].agents.discard(agent_id)


def _of(waits: Iterable[float]) -> Figures:
    found = sorted(waits)
    if not found:
        return {"runs": 0, "mean": 0.0, "p50": 0.0, "p95": 0.0, "most": 0.0}
    return {
        "runs": len(found),
        "mean": round(sum(found) / len(found), 3),
        "p50": round(_percentile(found, 0.5), 3),
        "p95": round(_percentile(found, 0.95), 3),
        "most": round(found[-1], 3),
    }


def _percentile(ordered: list[float], part: float) -> float:
    """The smallest that so many are not above."""
    return ordered[max(0, -int(-len(ordered) * part // 1) - 1)]


def _share(busy: float, available: float) -> Figures:
    return {"busy": round(busy, 3), "available": round(available, 3), "share": round(busy / available, 4) if available else 0.0}
