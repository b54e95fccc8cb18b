"""Agents on hosts, by a real sshd on loopback: started once, found again, restarted, stopped, and told apart from hosts that fail."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from services.chassis.topics import make_topics
from services.scheduler.adapters.ssh_nodes import SshNodes
from services.scheduler.ports import NodeRefused, NodeState, NodeStatus
from tests.component.scheduler import sshd
from tests.component.scheduler.sshd import Sshd
from tests.component.topic_log import TopicLog
from trainyard.cluster.v1 import cluster_pb2 as cluster

pytestmark = [pytest.mark.component, pytest.mark.timeout(400), pytest.mark.skipif(bool(sshd.missing()), reason=sshd.missing())]
T = TypeVar("T")
NOBODY: frozenset[str] = frozenset()


@pytest.fixture
def host(tmp_path: Path, kafka_bootstrap: str) -> Iterator[Sshd]:
    make_topics(kafka_bootstrap)
    made = Sshd(tmp_path / "host")
    settings = f'kafka_bootstrap = "{kafka_bootstrap}"\nhome = "{made.home}"\ncache = "{made.home / "cache"}"\n'
    (made.home / "settings.toml").write_text(settings)
    yield made.start()
    made.stop()
    for pid in pids(made):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def log(kafka_bootstrap: str) -> Iterator[TopicLog]:
    made = TopicLog(kafka_bootstrap)
    yield made
    made.close()


def nodes_on(*hosts: str, of: Sshd, pool: str, python: str = sys.executable) -> SshNodes:
    definition = cluster.SshNodes(
        hosts=hosts, python=python, identity_file=str(of.identity), known_hosts_file=str(of.known_hosts), settings_file="~/settings.toml"
    )
    return SshNodes(pool, definition)


def pids(host: Sshd) -> list[int]:
    """Of the agents that run in the host's home."""
    known = [json.loads(path.read_text())["pid"] for path in (host.home / ".trainyard" / "nodes").glob("*.json")]
    return [pid for pid in known if psutil.pid_exists(pid)]


async def until(look: Callable[[], Awaitable[T]], wanted: Callable[[T], bool], seconds: float = 150.0) -> T:
    """What was seen when it was as wanted. Looks again and again: it happens in other processes."""
    deadline = time.monotonic() + seconds
    while not wanted(seen := await look()):
        assert time.monotonic() < deadline, seen
        await asyncio.sleep(0.1)
    return seen


async def told(log: TopicLog, agent_id: str, kind: type, count: int = 1) -> list[str]:
    """Incarnations that the agent has told of so, once they are as many."""

    async def look() -> list[str]:
        events = await asyncio.to_thread(log.events, "trainyard.agents")
        return [it.message.incarnation for it in events if isinstance(it.message, kind) and it.message.agent_id == agent_id]

    return await until(look, lambda seen: len(seen) >= count)


async def status(nodes: SshNodes, name: str) -> NodeStatus | None:
    return (await nodes.states({name}, NOBODY)).get(name)


async def test_an_agent_is_started_once_and_a_new_scheduler_finds_it(host: Sshd, log: TopicLog) -> None:
    nodes = nodes_on(host.host, of=host, pool="once")
    before = await status(nodes, "once-0")

    await nodes.start("once-0")
    first = pids(host)
    await told(log, "once-0", cluster.AgentRegistered)
    anew = nodes_on(host.host, of=host, pool="once")
    seen = await status(anew, "once-0")
    await anew.start("once-0")

    assert before is None
    assert seen == NodeStatus(NodeState.UP)
    assert pids(host) == first and len(first) == 1


async def test_starts_at_the_same_moment_start_one(host: Sshd) -> None:
    one, other = (nodes_on(host.host, of=host, pool="race") for _ in range(2))

    await asyncio.gather(one.start("race-0"), other.start("race-0"), other.start("race-0"), return_exceptions=True)

    home = str(host.home)
    agents = [it.pid for it in psutil.process_iter(["cmdline", "environ"]) if _is_agent_of(it, home)]
    assert agents == pids(host) and len(agents) == 1


def _is_agent_of(process: psutil.Process, home: str) -> bool:
    return "services.trainer_agent" in (process.info["cmdline"] or []) and (process.info["environ"] or {}).get("HOME") == home


async def test_a_killed_agent_is_seen_with_its_last_words_and_started_anew(host: Sshd, log: TopicLog) -> None:
    nodes = nodes_on(host.host, of=host, pool="kill")
    await nodes.start("kill-0")
    await told(log, "kill-0", cluster.AgentRegistered)
    await nodes.states({"kill-0"}, {"kill-0"})

    os.kill(pids(host)[0], signal.SIGKILL)
    seen = await until(lambda: status(nodes, "kill-0"), lambda it: it is not None and it.state is NodeState.BROKEN)
    await nodes.start("kill-0")
    incarnations = await told(log, "kill-0", cluster.AgentRegistered, 2)

    assert seen is not None and host.host in seen.why and "registers" in seen.why
    assert len(set(incarnations)) == 2
    assert await status(nodes, "kill-0") == NodeStatus(NodeState.UP)


async def test_a_stopped_agent_says_good_bye_and_is_gone(host: Sshd, log: TopicLog) -> None:
    nodes = nodes_on(host.host, of=host, pool="stop")
    await nodes.start("stop-0")
    (incarnation,) = await told(log, "stop-0", cluster.AgentRegistered)

    await nodes.stop("stop-0")
    await nodes.stop("stop-0")
    await until(lambda: status(nodes, "stop-0"), lambda it: it is None)

    assert await told(log, "stop-0", cluster.AgentDrained) == [incarnation]
    assert pids(host) == []
    await nodes.stop("stop-0")


async def test_a_process_that_got_the_pid_later_is_no_agent_and_is_left_alone(host: Sshd) -> None:
    nodes = nodes_on(host.host, of=host, pool="pid")
    await nodes.start("pid-0")
    file = host.home / ".trainyard" / "nodes" / "pid-0.json"
    known = json.loads(file.read_text())
    os.kill(known["pid"], signal.SIGKILL)
    file.write_text(json.dumps({**known, "pid": os.getpid()}))

    seen = await status(nodes, "pid-0")
    await nodes.stop("pid-0")

    assert seen is not None and seen.state is NodeState.BROKEN
    file.unlink(missing_ok=True)


async def test_after_a_reboot_of_the_host_nothing_runs_there(host: Sshd) -> None:
    nodes = nodes_on(host.host, of=host, pool="boot")
    await nodes.start("boot-0")
    file = host.home / ".trainyard" / "nodes" / "boot-0.json"
    known = json.loads(file.read_text())
    os.kill(known["pid"], signal.SIGKILL)
    file.write_text(json.dumps({**known, "boot": "an earlier one"}))

    assert await status(nodes, "boot-0") is None


async def test_a_dead_host_breaks_its_own_node_and_no_other(host: Sshd) -> None:
    nodes = nodes_on(host.host, "127.0.0.1:1", of=host, pool="half")
    with pytest.raises(NodeRefused, match="cannot be reached"):
        await nodes.start("half-1")
    await nodes.start("half-0")

    seen = await nodes.states({"half-0", "half-1"}, NOBODY)

    assert seen["half-0"] == NodeStatus(NodeState.UP)
    assert seen["half-1"].state is NodeState.BROKEN
    assert "127.0.0.1:1 cannot be reached by ssh" in seen["half-1"].why


async def test_a_host_that_comes_back_is_asked_again(host: Sshd) -> None:
    nodes = nodes_on(host.host, of=host, pool="back")
    host.stop()
    away = await status(nodes, "back-0")

    host.start()
    await until(lambda: status(nodes, "back-0"), lambda it: it is None)
    await nodes.start("back-0")

    assert away is not None and away.state is NodeState.BROKEN and "Connection refused" in away.why
    assert await status(nodes, "back-0") == NodeStatus(NodeState.UP)


async def test_a_host_with_another_key_is_not_trusted(host: Sshd) -> None:
    host.know_another()
    nodes = nodes_on(host.host, of=host, pool="key")

    seen = await status(nodes, "key-0")

    assert seen is not None and seen.state is NodeState.BROKEN
    assert "Host key verification failed" in seen.why
    assert not (host.home / ".trainyard").exists()


async def test_an_unknown_host_is_not_trusted_either(host: Sshd) -> None:
    host.known_hosts.write_text("")
    nodes = nodes_on(host.host, of=host, pool="new")

    seen = await status(nodes, "new-0")

    assert seen is not None and "Host key verification failed" in seen.why


async def test_a_python_that_is_not_there_is_named(host: Sshd) -> None:
    nodes = nodes_on(host.host, of=host, pool="py", python="/no such/python; touch /tmp/x")

    seen = await status(nodes, "py-0")

    assert seen is not None and seen.state is NodeState.BROKEN
    assert "/no such/python; touch /tmp/x" in seen.why
    with pytest.raises(NodeRefused):
        await nodes.start("py-0")
    with pytest.raises(NodeRefused, match="no host is listed"):
        await nodes.start("py-7")


@pytest.mark.parametrize("program", ["/bin/echo", "/bin/true"])
async def test_a_program_that_is_no_python_is_named(host: Sshd, program: str) -> None:
    nodes = nodes_on(host.host, of=host, pool="no", python=program)

    seen = await status(nodes, "no-0")

    assert seen is not None and f"{program} answered" in seen.why


async def test_an_agent_that_ends_again_and_again_is_left_alone_for_a_while(host: Sshd) -> None:
    (host.home / "settings.toml").unlink()
    nodes = nodes_on(host.host, of=host, pool="crash")

    await nodes.start("crash-0")
    with pytest.raises(NodeRefused, match="a moment ago"):
        await nodes.start("crash-0")
    seen = await until(lambda: status(nodes, "crash-0"), lambda it: it is not None and it.state is NodeState.BROKEN)

    assert seen is not None and "settings.toml" in seen.why
