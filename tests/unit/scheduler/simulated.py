"""A virtual yard in which every step is looked at: what must never be, and what must come to be."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime
from typing import Any

from google.protobuf.message import Message

from services.scheduler.domain import Tick
from services.scheduler.simulation import Ledger, Workload, Yard
from services.scheduler.simulation.workloads import of_yaml
from trainyard import _gang
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job

ENDS = (job.RunCompleted, job.RunFailed, job.RunCanceled, job.RunRejected)


class CheckedYard(Yard):
    def __init__(self, workload: Workload) -> None:
        self.events: list[tuple[datetime, Message]] = []
        self.ends: Counter[str] = Counter()
        self.ledger = Ledger(workload.begin, [it.run_id for it in workload.submissions])
        self._offers: dict[str, list[Any]] = defaultdict(list)
        super().__init__(workload, [self._saw, self.ledger.saw])

    @property
    def placements(self) -> list[tuple[datetime, str, str, int]]:
        """(when, run, node, attempt), in order."""
        return [(at, it.run_id, it.agent_id, it.epoch) for at, it in self.events if isinstance(it, cluster.LeaseOffered)]

    def said(self, kind: type[Message]) -> list[Any]:
        return [it for _, it in self.events if isinstance(it, kind)]

    def _saw(self, at: datetime, message: Any) -> None:
        self.events.append((at, message))
        if isinstance(message, cluster.LeaseOffered):
            self._offers[message.run_id].append(message)
            older = [it.agent_id for it in self.machines.scripts[message.run_id].parts.values() if it.epoch < message.epoch]
            assert not older, f"{message.run_id} gets attempt {message.epoch} while {older} still work on an earlier one"
        if isinstance(message, ENDS):
            self.ends[message.run_id] += 1
            assert self.ends[message.run_id] == 1, f"{message.run_id} has ended twice"

    def _say(self, message: Message | Tick) -> None:
        before = self.state.runs
        super()._say(message)
        for run_id, offers in self._offers.items():
            if run_id not in before or offers[0].epoch > before[run_id].epoch:
                self._is_one_gang(offers)
        self._offers.clear()
        self._holds_no_more_than_there_is()

    @staticmethod
    def _is_one_gang(offers: list[Any]) -> None:
        distribution = offers[0].spec.distribution
        assert sorted(it.node_index for it in offers) == list(range(len(offers)))
        assert _gang.fewest_nodes(distribution) <= len(offers) <= _gang.node_count(distribution), "a part of a gang was placed"
        assert len({it.agent_id for it in offers}) == len(offers)
        assert sorted(rank for it in offers for rank in it.ranks) == list(range(offers[0].world_size))

    def _holds_no_more_than_there_is(self) -> None:
        for name, holds in self.state.index.holds.items():
            agent = self.state.agents.get(name)
            if agent is None:
                continue
            devices = [device for hold in holds.values() for device in hold.gpus]
            assert len(devices) == len(set(devices)) <= agent.resources.gpus, f"a device of {name} was given twice"
            assert sum(hold.cpus for hold in holds.values()) <= agent.resources.cpus + 1e-6, f"more cores than {name} has"
            assert sum(hold.memory_bytes for hold in holds.values()) <= agent.resources.memory_bytes, f"more memory than {name} has"
            assert len(holds) == 1 or not any(hold.whole for hold in holds.values()), f"{name} is one run's alone"

    def everybody_has_ended(self) -> None:
        """Or stands waiting with a reason."""
        for it in self._workload.submissions:
            assert self.ends[it.run_id] or self.waiting.get(it.run_id), f"{it.run_id} has neither ended nor says why"


def lived(wish: Any) -> CheckedYard:
    """A workload of a few lines, to its end."""
    yard = CheckedYard(of_yaml(wish))
    yard.run()
    yard.everybody_has_ended()
    return yard
