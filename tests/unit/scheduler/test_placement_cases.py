"""Acceptance cases of placement as data: pools, nodes and jobs, and the events and placements that must follow. One file of
placement_cases/ a case; steps of a mapping each, as test_cases has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import MessageToDict, ParseDict

from services.scheduler.domain import Tick
from tests.unit.scheduler.placing_world import Yard
from tests.unit.scheduler.story import a_pool
from tests.unit.scheduler.test_cases import _matches
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job

CASES = sorted((Path(__file__).parent / "placement_cases").glob("*.yaml"))
_OF_PLACEMENT = (job.RunRejected, job.RunScaling, job.RunPreempted, job.RunRequeued, cluster.PoolResized, cluster.LeaseOffered)


class Case:
    """`nodes` joined the pool yard before it began."""

    def __init__(self, text: str) -> None:
        case = yaml.safe_load(text)
        self.script, self.events, self.placements = case["script"], case["expectedEvents"], case["expectedPlacements"]
        self.yard = Yard(nodes=case.get("nodes", 0))
        for name, options in case.get("pools", {}).items():
            self.yard.tell(a_pool(name, **options))
        self._policies = 0
        self._set(case.get("policy", {}))
        self._begun = len(self.yard.facts)

    def play(self) -> None:
        for step in self.script:
            self._take(dict(step))

    def _take(self, step: dict[str, Any]) -> None:
        match step:
            case {"submit": run_id, **job_of}:
                fields = {field.name: value for field, value in ParseDict(job_of, job.SubmitRun().spec).ListFields()}
                self.yard.submit(run_id, target=fields.pop("compute_target", "yard"), **fields)
            case {"end": run_id}:
                self.yard.cancels(run_id)
            case {"saved": run_id}:
                self.yard.ends(run_id)
            case {"join": number, **options}:
                self.yard.joins(number, **options)
            case {"up": agent_id}:
                self.yard.with_agent(agent_id)
            case {"policy": policy}:
                self._set(policy)
            case {"seconds": seconds}:
                self.yard.later(seconds).tell(Tick())
            case _:
                raise ValueError(f"no step: {step}")

    def _set(self, policy: dict[str, Any]) -> None:
        self._policies += 1
        made = ParseDict(policy, cluster.Policy())
        self.yard.tell(cluster.SetPolicy(submission_id=f"policy-{self._policies}", policy=made))

    def happened(self) -> list[tuple[str, dict[str, Any]]]:
        """All that placement said, in order."""
        told = [fact.message for fact in self.yard.facts[self._begun :] if isinstance(fact.message, _OF_PLACEMENT)]
        return [(it.DESCRIPTOR.name, MessageToDict(it)) for it in told]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = Case(path.read_text())

    case.play()

    happened = case.happened()
    wanted = [next(iter(it.items())) for it in case.events]
    assert [(name, it.get("runId") or it.get("name")) for name, it in happened] == [
        (name, it.get("runId") or it.get("name")) for name, it in wanted
    ]
    for (name, fields), (_, found) in zip(wanted, happened, strict=True):
        assert _matches(fields, found), f"{name}: {fields} is not in {found}"
    assert case.yard.held == case.placements


def test_there_are_cases_of_placement_and_an_unknown_step_is_noticed() -> None:
    assert len(CASES) >= 8
    case = Case("{script: [{fly: 1}], expectedEvents: [], expectedPlacements: {}}")

    with pytest.raises(ValueError, match="no step"):
        case.play()
