"""The scheduler in a virtual yard: random workloads, honest machines that die, and what must hold at every step."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scheduler.simulation.workloads import of_yaml
from tests.unit.scheduler.simulated import lived
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job

MIXED: dict[str, Any] = {
    "seed": 3,
    "pools": {
        "pool": {"nodes": 6, "gpus": 4, "fails_every_seconds": 400},
        "grown": {"nodes": 3, "joined": False, "min_nodes": 1, "idle_seconds": 30},
    },
    "runs": {
        "gang": {"count": 12, "every_seconds": 20, "nodes": [1, 2, 4], "processes": 2, "priority": [0, 0, 3], "checkpoint_seconds": 10},
        "part": {"count": 12, "every_seconds": 15, "cpus": [4, 16], "memory_in_gb": 8, "gpus": [0, 1, 2], "fails": 0.3, "restarts": 1},
        "elastic": {"count": 3, "every_seconds": 60, "nodes": 3, "fewest_nodes": 1},
        "grown": {"count": 6, "every_seconds": 40, "pool": "grown", "nodes": [1, 2]},
    },
}


def test_a_mixed_workload_on_nodes_that_die_comes_to_its_end() -> None:
    yard = lived(MIXED)

    assert yard.said(cluster.AgentLost) and yard.said(cluster.AgentDrained), "nodes have died, and idle ones were let go"
    assert sum(yard.ends.values()) == 33
    assert not yard.waiting


def test_the_same_workload_leads_to_the_same_events_in_another_process() -> None:
    program = (
        "import hashlib; from tests.unit.scheduler.simulated import lived; from tests.unit.scheduler.test_simulation import MIXED; "
        "print(hashlib.sha256(b''.join(repr(at).encode() + it.SerializeToString(deterministic=True) for at, it in lived(MIXED).events)).hexdigest())"
    )

    told = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }

    assert len(told) == 1, "nothing may depend on the order in which a hash puts names"


def test_nobody_waits_for_ever_behind_those_who_are_more_important() -> None:
    stream = {"count": 60, "every_seconds": 20, "work_seconds": 40, "nodes": 1, "priority": 2}

    yard = lived({"seed": 5, "pools": {"pool": {"nodes": 2}}, "runs": {"high": stream, "low": {"count": 1, "work_seconds": 5, "nodes": 2}}})

    began = yard.ledger.began()
    before = [name for name, at in began.items() if name.startswith("high") and at < began["low-0"]]
    assert len(before) < 40


def test_a_run_that_no_node_can_hold_is_left_with_its_reason() -> None:
    yard = lived(
        {
            "pools": {"pool": {"nodes": 1, "fails_every_seconds": 1, "back_after_seconds": 0}},
            "runs": {"a": {"count": 2, "every_seconds": 900}},
        }
    )

    assert yard.waiting and all(yard.waiting.values())


def test_a_preempted_run_goes_on_from_its_checkpoint() -> None:
    low = {"count": 1, "every_seconds": 0, "work_seconds": 10_000, "checkpoint_seconds": 10}
    high = {"count": 1, "every_seconds": 300, "priority": 5, "work_seconds": 10}

    with_checkpoints = lived({"seed": 2, "pools": {"pool": {}}, "runs": {"low": low, "high": high}})
    without = lived({"seed": 2, "pools": {"pool": {}}, "runs": {"low": {**low, "checkpoint_seconds": 0}, "high": high}})

    assert len(with_checkpoints.said(job.RunPreempted)) == len(without.said(job.RunPreempted)) == 1
    assert with_checkpoints.now < without.now


RUNS = st.fixed_dictionaries(
    {
        "count": st.integers(1, 8),
        "every_seconds": st.sampled_from([0, 5, 60]),
        "work_seconds": st.sampled_from([1, 30, 300]),
        "nodes": st.sampled_from([1, 2, [1, 3], 4]),
        "processes": st.integers(1, 2),
        "priority": st.sampled_from([0, 1, [0, 5]]),
        "gpus": st.sampled_from([0, 0, 1, [1, 4]]),
        "cpus": st.sampled_from([0, 8]),
        "fails": st.sampled_from([0, 0.4]),
        "restarts": st.integers(0, 2),
        "checkpoint_seconds": st.sampled_from([0, 10]),
        "fewest_nodes": st.sampled_from([0, 0, 1]),
    }
)
POOL = st.fixed_dictionaries(
    {
        "nodes": st.integers(4, 7),
        "gpus": st.just(4),
        "joined": st.booleans(),
        "min_nodes": st.integers(0, 2),
        "fails_every_seconds": st.sampled_from([0, 0, 200]),
    }
)


@settings(max_examples=25, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "seed": st.integers(0, 99),
            "pools": st.fixed_dictionaries({"pool": POOL}),
            "runs": st.dictionaries(st.sampled_from("abc"), RUNS, min_size=1),
        }
    )
)
def test_no_workload_breaks_what_must_hold(wish: Any) -> None:
    yard = lived(wish)

    assert not yard.waiting, "every run fits, so every run gets its turn"


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        ([], "holds names and values"),
        ({"pool": {}}, "has no 'pool'"),
        ({"runs": {"a": {"nodes": [1, "2"]}}}, "runs.a.nodes cannot be '2'"),
        ({"pools": {"a": {"gpus": -1}}}, "pools.a.gpus cannot be -1"),
        ({"pools": 3}, "hold names"),
    ],
)
def test_a_workload_with_a_fault_is_told_where_it_is(wish: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        of_yaml(wish)
