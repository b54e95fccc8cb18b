"""Nodes that the supervisor does not start: joined by hand, and over ssh."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.component.scheduler import sshd
from tests.component.scheduler.sshd import Sshd
from tests.system.platform import Platform, names
from trainyard import AmlCompute, ComputeTarget
from trainyard.cluster.v1 import cluster_pb2
from trainyard.job.v1 import job_pb2

WAITS = """
import os, sys, time
while not os.path.exists(sys.argv[1]):
    time.sleep(0.02)
"""


@contextmanager
def joined(platform: Platform, folder: Path, pool: str, agent_id: str) -> Iterator[subprocess.Popen[bytes]]:
    """`trainyard agent join` as a person runs it, until the end of the block."""
    environment = {**os.environ, "TRAINYARD_CONFIG": str(platform.layout.config)}
    command = [sys.executable, "-m", "trainyard", "agent", "join", "--pool", pool, "--id", agent_id, "--home", str(folder / "home")]
    with (folder / f"{agent_id}.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def a_static_pool(platform: Platform, name: str, **options: Any) -> AmlCompute:
    wish = AmlCompute.provisioning_configuration("LOCAL", provider="static", **options)
    return ComputeTarget.create(platform.workspace, name, wish)


def states(pool: AmlCompute) -> dict[str, str]:
    return {node["nodeId"]: node["nodeState"] for node in pool.list_nodes()}


def test_agents_that_join_by_hand_run_what_waits_and_leave_the_pool_when_they_are_lost_or_stopped(
    platform: Platform, tmp_path: Path
) -> None:
    pool, go = a_static_pool(platform, "by-hand", max_nodes=2, idle_seconds_before_scaledown=1), tmp_path / "go"
    run = platform.submit(tmp_path / "code", WAITS, "by-hand", script_params={str(go): ""})
    assert "trainyard agent join --pool by-hand" in platform.jobs.GetRun(_get(run.id)).run.why

    with joined(platform, tmp_path, "by-hand", "hand-a") as one, joined(platform, tmp_path, "by-hand", "hand-b") as other:
        platform.until(lambda: sorted(states(pool).values()) == ["idle", "running"], "both have joined and one runs")
        runs_it = platform.node_of(run.id)
        go.touch()
        assert platform.until_status(run.id, "COMPLETED", "FAILED") == "COMPLETED"

        one.kill()
        platform.until(lambda: set(states(pool)) == {"hand-b"}, "the killed one has left")
        other.send_signal(signal.SIGINT)
        assert other.wait(60) == 0
        platform.until(lambda: states(pool) == {}, "the stopped one has left")

    assert runs_it in ("hand-a", "hand-b")
    told = [it.message for it in platform.log.events("trainyard.agents") if getattr(it.message, "agent_id", "") in ("hand-a", "hand-b")]
    assert sorted(names(told)) == ["AgentDrained", "AgentLost", "AgentRegistered", "AgentRegistered"]


def test_an_agent_that_cannot_join_ends_and_says_why(platform: Platform, tmp_path: Path) -> None:
    pool = a_static_pool(platform, "full-up", max_nodes=1)

    with joined(platform, tmp_path, "full-up", "full-a"):
        platform.until(lambda: states(pool) == {"full-a": "idle"}, "the first has joined")
        with joined(platform, tmp_path, "full-up", "full-b") as second:
            assert second.wait(60) != 0

        assert "full-up has its maximum of 1 nodes: full-a" in (tmp_path / "full-b.log").read_text()
        assert states(pool) == {"full-a": "idle"}


def test_an_agent_that_is_drained_ends_by_itself(platform: Platform, tmp_path: Path) -> None:
    pool = a_static_pool(platform, "drains", max_nodes=1)

    with joined(platform, tmp_path, "drains", "drain-a") as agent:
        platform.until(lambda: states(pool) == {"drain-a": "idle"}, "it has joined")
        platform.compute.DrainAgent(cluster_pb2.DrainAgent(agent_id="drain-a", why="maintenance"))
        agent.wait(60)

    platform.until(lambda: states(pool) == {}, "it has left")
    assert "maintenance" in (tmp_path / "drain-a.log").read_text()


@pytest.mark.skipif(bool(sshd.missing()), reason=sshd.missing())
def test_a_run_on_a_host_over_ssh_completes_and_the_hosts_agent_ends_with_its_pool(platform: Platform, tmp_path: Path) -> None:
    host = Sshd(tmp_path / "host").start()
    shutil.copy(platform.layout.agent_settings, host.home / "agent.toml")
    wish = AmlCompute.provisioning_configuration(
        "LOCAL",
        provider="ssh",
        hosts=[host.host],
        python=sys.executable,
        identity_file=str(host.identity),
        known_hosts_file=str(host.known_hosts),
        settings_file="~/agent.toml",
    )
    pool = ComputeTarget.create(platform.workspace, "over-ssh", wish)
    try:
        run = platform.submit(tmp_path / "code", "print('there')", "over-ssh")
        assert platform.until_status(run.id, "COMPLETED", "FAILED") == "COMPLETED"
        assert platform.node_of(run.id) == "over-ssh-0"

        pool.delete()

        nodes = host.home / ".trainyard" / "nodes"
        platform.until(lambda: not list(nodes.glob("*.json")) or "ends" in (nodes / "over-ssh-0.log").read_text(), "its agent has ended")
    finally:
        host.stop()


def _get(run_id: str) -> Any:
    return job_pb2.GetRunRequest(run_id=run_id)
