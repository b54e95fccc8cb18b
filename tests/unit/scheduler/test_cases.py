"""Acceptance cases as data: a job, what its nodes and the world do, and the events that must follow. One file of cases/ a case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import MessageToDict, ParseDict

from services.scheduler.domain import Tick
from tests.unit.scheduler.gang_story import GangStory
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job

CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))
_OF_PLACEMENT = (job.RunScaling, cluster.PoolCreated, cluster.PoolResized, cluster.LeaseOffered)


class Case:
    """A step is a mapping of one verb to what it needs; `say` has whom beside it, and the fields of the report."""

    def __init__(self, text: str) -> None:
        case = yaml.safe_load(text)
        self.script, self.expected = case["script"], case["expectedEvents"]
        options = ParseDict(case.get("job", {}), job.SubmitRun().spec)
        fields = {field.name: value for field, value in options.ListFields()}
        self.story = GangStory(fields.pop("distribution", None), **fields, world=case.get("world", {}))

    def play(self) -> None:
        for step in self.script:
            self._take(dict(step))

    def _take(self, step: dict[str, Any]) -> None:
        match step:
            case {"offer": nodes}:
                self.story.offered(nodes)
            case {"say": kind, "nodes": nodes, **fields}:
                for node in nodes:
                    self._say(node, kind, fields)
            case {"join": node}:
                if f"node-{node}" not in self.story.incarnations:
                    self.story.node(node)
                self.story.joins(node)
            case {"beginAnew": node, "process": incarnation}:
                self.story.node(node, incarnation)
            case {"drain": node, "why": why}:
                self.story.tell(cluster.AgentDrained(agent_id=f"node-{node}", incarnation="first", why=why))
            case {"cancel": reason}:
                self.story.tell(job.CancelRun(run_id="run", reason=reason))
            case {"preempt": why}:
                self._preempt(why)
            case {"seconds": seconds}:
                self.story.later(seconds).tell(Tick())
            case {"tick": what}:
                self._tick(what)
            case _:
                raise ValueError(f"no step: {step}")

    def _say(self, node: int, kind: str, fields: dict[str, Any]) -> None:
        epoch, process = fields.pop("ofEpoch", None), fields.pop("ofProcess", "")
        self.story.says(node, ParseDict(fields, getattr(cluster, kind)()), epoch, process)

    def _preempt(self, why: str) -> None:
        """As placement says it."""
        epoch = self.story.run().epoch
        self.story.tell(job.RunPreempted(run_id="run", epoch=epoch, why=why))
        for member in self.story.members():
            self.story.tell(cluster.LeaseRevoked(run_id="run", epoch=epoch, agent_id=member.agent_id, save_outputs=True))

    def _tick(self, what: dict[str, list[int]]) -> None:
        attempt = ("run", self.story.run().epoch)
        agents = {key: tuple(f"node-{node}" for node in what.get(key, ())) for key in ("silent", "heard", "given_up")}
        late = {key: (attempt,) for key in ("overdue", "unformed") if key in what}
        self.story.tell(Tick(**agents, **late))

    def happened(self) -> list[tuple[str, dict[str, Any]]]:
        """All that was said of the run, and to whom it was taken from; the gang's copies for its members are left out."""
        told = [fact for fact in self.story.facts if not isinstance(fact.message, _OF_PLACEMENT)]
        told = [fact for fact in told if not (fact.topic == "trainyard.leases" and isinstance(fact.message, job.GangFormed))]
        return [(fact.message.DESCRIPTOR.name, MessageToDict(fact.message)) for fact in told]


def _matches(wanted: Any, found: Any) -> bool:
    """Fields that are not named may be anything; of a text a part is enough."""
    match wanted:
        case dict():
            return isinstance(found, dict) and all(_matches(value, found.get(key)) for key, value in wanted.items())
        case list():
            return isinstance(found, list) and len(wanted) == len(found) and all(map(_matches, wanted, found))
        case str():
            return isinstance(found, str) and wanted in found
        case False | 0:
            # What a message does not carry.
            return found in (None, wanted)
        case _:
            return bool(wanted == found)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = Case(path.read_text())

    case.play()

    happened = case.happened()
    wanted = [next(iter(it.items())) if isinstance(it, dict) else (it, {}) for it in case.expected]
    assert [name for name, _ in happened] == [name for name, _ in wanted]
    for (name, fields), (_, found) in zip(wanted, happened, strict=True):
        assert _matches(fields, found), f"{name}: {fields} is not in {found}"


def test_there_are_cases_and_a_wrong_one_is_noticed() -> None:
    assert len(CASES) >= 15
    assert not _matches({"failure": {"rank": 1}}, {"failure": {"rank": 2}})
    assert not _matches({"members": [{}]}, {"members": [{}, {}]})
    assert _matches({"why": "is none"}, {"why": "there is none"})
    assert not _matches({"why": "is one"}, {"why": "there is none"})
