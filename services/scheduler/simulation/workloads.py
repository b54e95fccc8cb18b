"""Workloads from a few lines of YAML and a seed: arrivals, gangs, durations, priorities, failures of nodes. See docs/replay.md."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from services.scheduler.simulation.plans import NOTHING, Attempt, End, Submission, Workload
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.cluster.v1.resources_pb2 import Resources
from trainyard.job.v1.spec_pb2 import EnvironmentSpec, RunSpec

START = datetime(2026, 1, 1, tzinfo=UTC)
_TOP = ("seed", "pools", "runs")
_POOL = {
    "nodes": 1, "cpus": 64.0, "memory_in_gb": 256.0, "gpus": 0, "joined": True, "min_nodes": 0, "lowpriority": False,
    "idle_seconds": 120.0, "fails_every_seconds": 0.0, "back_after_seconds": 60.0,
}  # fmt: skip
_RUNS = {
    "pool": "pool", "count": 1, "every_seconds": 1.0, "work_seconds": 60.0, "prepare_seconds": 1.0, "save_seconds": 1.0,
    "nodes": 1, "cpus": 0.0, "memory_in_gb": 0.0, "gpus": 0, "processes": 1, "priority": 0, "experiments": 1, "users": 1,
    "fails": 0.0, "restarts": 0, "checkpoint_seconds": 0.0, "fewest_nodes": 0, "limit": 0.0,
}  # fmt: skip


def of_yaml(wish: Any) -> Workload:
    """`wish`: the file's content, as plain values. Where a list of several stands for a value of `runs`, each run draws one. Times between
    arrivals, durations and times between failures are drawn from an exponential distribution with the mean that is named. Raises ValueError."""
    top = _checked("the workload", wish, dict.fromkeys(_TOP))
    chance = random.Random(int(top["seed"] or 0))
    pools = [_Pool(str(name), _checked(f"pools.{name}", of, _POOL)) for name, of in _named(top["pools"] or {}).items()]
    kinds = [(str(name), _checked(f"runs.{name}", of, _RUNS)) for name, of in _named(top["runs"] or {}).items()]
    submissions = sorted((it for name, of in kinds for it in _submissions(name, of, chance)), key=lambda it: (it.at, it.run_id))
    end = max((it.at for it in submissions), default=START)
    comings = [list(pool.joins(chance, end)) for pool in pools]
    return Workload(
        begin=START,
        submissions=tuple(submissions),
        facts=tuple((START, pool.created()) for pool in pools),
        joins=tuple(sorted(((at, agent) for found in comings for at, agent, _ in found), key=lambda it: (it[0], it[1].agent_id))),
        deaths=tuple(sorted((dies, agent.agent_id) for found in comings for _, agent, dies in found if dies is not None)),
        node_slots=sum(int(pool.of["nodes"]) for pool in pools),
    )


@dataclass(frozen=True)
class _Pool:
    name: str
    of: Mapping[str, Any]

    @property
    def size(self) -> Resources:
        return Resources(cpus=self.of["cpus"], memory_bytes=int(self.of["memory_in_gb"] * 2**30), gpus=int(self.of["gpus"]))

    def created(self) -> Any:
        of = self.of
        made = cluster.PoolCreated(
            submission_id=self.name, name=self.name, vm_size="LOCAL", min_nodes=int(of["min_nodes"]), max_nodes=int(of["nodes"])
        )
        made.vm_priority = "lowpriority" if of["lowpriority"] else "dedicated"
        made.shape.CopyFrom(self.size)
        made.idle_before_scaledown.FromMilliseconds(int(of["idle_seconds"] * 1000))
        made.created_at.FromDatetime(START)
        (made.provider.static if of["joined"] else made.provider.local).SetInParent()
        return made

    def joins(self, chance: random.Random, end: datetime) -> Iterator[tuple[datetime, Any, datetime | None]]:
        """(when it comes, who, when it dies): again and again for a node that fails and comes back."""
        for position in range(int(self.of["nodes"]) if self.of["joined"] else 0):
            agent = cluster.AgentRegistered(agent_id=f"{self.name}-{position}", pool=self.name, resources=self.size)
            at = START
            while self.of["fails_every_seconds"]:
                dies = at + _drawn(chance, self.of["fails_every_seconds"])
                if dies >= end:
                    break
                yield at, agent, dies
                if not self.of["back_after_seconds"]:
                    return
                at = dies + timedelta(seconds=self.of["back_after_seconds"])
            yield at, agent, None


def _submissions(name: str, of: Mapping[str, Any], chance: random.Random) -> Iterator[Submission]:
    at = START
    for number in range(int(of["count"])):
        one = {key: chance.choice(value) if isinstance(value, list) else value for key, value in of.items()}
        at += _drawn(chance, one["every_seconds"])
        spec = _spec(one)
        spec.user = f"user-{chance.randrange(int(one['users']))}"
        works = _drawn(chance, one["work_seconds"])
        attempt = Attempt(_seconds(one["prepare_seconds"]), works, _seconds(one["save_seconds"]))
        failing = Attempt(attempt.prepares, works / 2 // _MS * _MS, attempt.saves, End.FAILS, 1)
        fails = 0
        while fails <= int(one["restarts"]) and chance.random() < one["fails"]:
            fails += 1
        yield Submission(
            at=at,
            run_id=f"{name}-{number}",
            experiment=f"{name}-{chance.randrange(int(one['experiments']))}",
            spec=spec,
            attempts=(*[failing] * fails, attempt),
            checkpoint_every=_seconds(one["checkpoint_seconds"]),
        )


def _spec(one: Mapping[str, Any]) -> Any:
    spec = RunSpec(
        compute_target=one["pool"],
        entry_script="run.py",
        environment=EnvironmentSpec(framework="none"),
        priority=int(one["priority"]),
        max_restarts=int(one["restarts"]),
    )
    spec.source.inline.files["run.py"] = b""
    spec.distribution.node_count = int(one["nodes"])
    spec.distribution.process_count_per_node = int(one["processes"])
    if one["fewest_nodes"]:
        spec.distribution.horovod.min_nodes = min(int(one["fewest_nodes"]), int(one["nodes"]))
    if one["cpus"] or one["memory_in_gb"] or one["gpus"]:
        size = Resources(cpus=one["cpus"], memory_bytes=int(one["memory_in_gb"] * 2**30), gpus=int(one["gpus"]))
        spec.resources.CopyFrom(size)
    if one["limit"]:
        spec.max_duration.FromMilliseconds(int(one["limit"] * 1000))
    return spec


_MS = timedelta(milliseconds=1)


def _seconds(length: float) -> timedelta:
    return timedelta(milliseconds=round(length * 1000))


def _drawn(chance: random.Random, mean: float) -> timedelta:
    return _seconds(chance.expovariate(1 / mean)) if mean else NOTHING


def _named(value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"pools and runs hold names and what stands for them, not {value!r:.100}")
    return value


def _checked(where: str, value: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """With what is not named as it is by default."""
    value = {} if value is None else value
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} holds names and values, not {value!r:.100}")
    if strange := [str(key) for key in value if key not in known]:
        raise ValueError(f"{where} has no {strange[0][:100]!r}; it has: {', '.join(known)}")
    for name, given in value.items():
        for it in given if isinstance(given, list) and given else [given]:
            _check(f"{where}.{name}", it, known[name])
    return {**known, **value}


def _check(where: str, given: Any, default: Any) -> None:
    if isinstance(default, bool | str):
        fits = isinstance(given, type(default))
    elif isinstance(default, int | float):
        number = isinstance(given, int | float) and not isinstance(given, bool)
        fits = number and math.isfinite(given) and (given >= 0 or where.endswith(".priority"))
    else:
        return
    if not fits:
        raise ValueError(f"{where} cannot be {given!r:.100}; it is like {default!r}")
