"""A pool of which no node comes up, as the whole scheduler sees it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.chassis.topics import make_topics
from tests.component.service_process import ServiceProcess, running
from trainyard.cluster.v1 import cluster_pb2, cluster_pb2_grpc
from trainyard.job.v1 import job_pb2, job_pb2_grpc, spec_pb2

pytestmark = pytest.mark.component


@pytest.fixture
def scheduler(tmp_path: Path, kafka_bootstrap: str) -> Iterator[ServiceProcess]:
    make_topics(kafka_bootstrap)
    with running("scheduler", tmp_path, kafka_bootstrap, SCHEDULER__POOL_DEAD_SECONDS="4") as process:
        yield process


def a_dead_pool(name: str) -> Any:
    """Nobody listens on the host's port."""
    nodes = cluster_pb2.SshNodes(hosts=["127.0.0.1:1"], python="python3")
    return cluster_pb2.CreatePool(name=name, vm_size="LOCAL", max_nodes=1, provider=cluster_pb2.Provider(ssh=nodes))


def a_run(pool: str) -> Any:
    spec = spec_pb2.RunSpec(compute_target=pool, entry_script="train.py", environment=spec_pb2.EnvironmentSpec(framework="none"))
    spec.source.inline.files["train.py"] = b"print()"
    return job_pb2.SubmitRun(experiment="dead", spec=spec)


def test_its_runs_fail_with_the_reason_over_a_restart_of_the_scheduler_too(scheduler: ServiceProcess) -> None:
    compute = cluster_pb2_grpc.ComputeServiceStub(scheduler.channel)
    jobs = job_pb2_grpc.JobServiceStub(scheduler.channel)
    compute.CreatePool(a_dead_pool("dead"))
    run_id = jobs.SubmitRun(a_run("dead")).run.run_id
    scheduler.kill()
    scheduler.start()

    deadline = time.monotonic() + 60
    for seen in jobs.WatchRun(job_pb2.WatchRunRequest(run_id=run_id), wait_for_ready=True, timeout=60):
        run = seen.run
        assert time.monotonic() < deadline

    pool = compute.GetPool(cluster_pb2.GetPoolRequest(name="dead")).pool
    assert job_pb2.RunStatus.Name(run.status) == "RUN_STATUS_FAILED"
    assert run.failure.code == "PoolDead"
    assert "127.0.0.1:1 cannot be reached by ssh" in run.failure.message
    assert [node.state for node in pool.nodes] == ["unusable"]
    assert "Connection refused" in pool.errors[0]


def test_bounds_and_policies_are_kept_over_a_restart(scheduler: ServiceProcess) -> None:
    compute = cluster_pb2_grpc.ComputeServiceStub(scheduler.channel)
    compute.CreatePool(cluster_pb2.CreatePool(name="kept", vm_size="LOCAL", max_nodes=1))
    compute.UpdatePool(cluster_pb2.UpdatePool(name="kept", max_nodes=3))
    policy = compute.SetPolicy(cluster_pb2.SetPolicy(policy=cluster_pb2.Policy(no_backfill=True, weights={"ann": 2.0}))).policy

    scheduler.kill()
    scheduler.start()

    assert compute.GetPool(cluster_pb2.GetPoolRequest(name="kept"), wait_for_ready=True).pool.max_nodes == 3
    assert compute.GetPolicy(cluster_pb2.GetPolicyRequest()).policy == policy
