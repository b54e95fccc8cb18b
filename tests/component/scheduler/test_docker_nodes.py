"""Agents in containers, by a real Docker engine."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from services.chassis.settings import Settings
from services.chassis.topics import make_topics
from services.scheduler.adapters.docker_nodes import AGENT, DockerNodes
from services.scheduler.ports import NodeRefused, NodeState, NodeStatus, ProviderTrouble
from tests.component.scheduler.docker_engine import IMAGE, Engine
from tests.component.topic_log import TopicLog
from trainyard.cluster.v1 import cluster_pb2 as cluster

# The image of a checkout takes its time.
pytestmark = [pytest.mark.component, pytest.mark.timeout(600)]
T = TypeVar("T")
NOBODY: frozenset[str] = frozenset()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("docker")
    try:
        made = Engine(folder)
    except RuntimeError as error:
        pytest.skip(str(error))
    try:
        made.import_agent(folder)
        yield made
        with made.client() as client:
            client.delete(f"/images/{IMAGE}", params={"force": "true"})
    finally:
        made.close()


@pytest.fixture
def settings(engine: Engine, tmp_path: Path, kafka_bootstrap: str) -> Iterator[Settings]:
    make_topics(kafka_bootstrap)
    (tmp_path / "agent.toml").write_text(f'kafka_bootstrap = "{kafka_bootstrap}"\n')
    made = Settings(service="scheduler", home=tmp_path / "home")
    made.scheduler.docker_socket, made.scheduler.agent_settings = engine.socket, str(tmp_path / "agent.toml")
    yield made
    with engine.client() as client:
        for item in client.get(
            "/containers/json", params={"all": "true", "filters": f'{{"label": ["trainyard.home={made.home}"]}}'}
        ).json():
            client.delete(f"/containers/{item['Id']}", params={"force": "true", "v": "true"})


@pytest.fixture
def log(kafka_bootstrap: str) -> Iterator[TopicLog]:
    made = TopicLog(kafka_bootstrap)
    yield made
    made.close()


def nodes_in(settings: Settings, pool: str, image: str = IMAGE) -> DockerNodes:
    return DockerNodes(pool, cluster.DockerNodes(image=image), settings)


def containers(engine: Engine, agent_id: str) -> list[Any]:
    with engine.client() as client:
        found: list[Any] = client.get("/containers/json", params={"filters": f'{{"label": ["{AGENT}={agent_id}"]}}'}).json()
    return found


async def until(look: Callable[[], Awaitable[T]], wanted: Callable[[T], bool], seconds: float = 150.0) -> T:
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


async def status(nodes: DockerNodes, name: str) -> NodeStatus | None:
    return (await nodes.states({name}, NOBODY)).get(name)


async def test_an_agent_is_started_once_found_by_a_new_scheduler_and_stopped_gently(
    engine: Engine, settings: Settings, log: TopicLog
) -> None:
    nodes = nodes_in(settings, "box")
    await nodes.start("box-0")
    (incarnation,) = await told(log, "box-0", cluster.AgentRegistered)
    (container,) = containers(engine, "box-0")

    anew = nodes_in(settings, "box")
    seen = await status(anew, "box-0")
    await anew.start("box-0")
    again = containers(engine, "box-0")
    await anew.stop("box-0")
    await anew.stop("box-0")

    assert seen == NodeStatus(NodeState.UP)
    assert [it["Id"] for it in again] == [container["Id"]]
    assert await status(anew, "box-0") is None
    assert await told(log, "box-0", cluster.AgentDrained) == [incarnation]


async def test_a_killed_agent_is_seen_with_its_last_words_and_started_anew(engine: Engine, settings: Settings, log: TopicLog) -> None:
    nodes = nodes_in(settings, "box-kill")
    await nodes.start("box-kill-0")
    await told(log, "box-kill-0", cluster.AgentRegistered)
    await nodes.states({"box-kill-0"}, {"box-kill-0"})
    with engine.client() as client:
        pid = client.get(f"/containers/{containers(engine, 'box-kill-0')[0]['Id']}/json").json()["State"]["Pid"]

    os.kill(pid, signal.SIGKILL)
    seen = await until(lambda: status(nodes, "box-kill-0"), lambda it: it is not None and it.state is NodeState.BROKEN)
    await nodes.start("box-kill-0")

    assert seen is not None and "trainyard-box-kill-0" in seen.why and "registers" in seen.why
    assert len(set(await told(log, "box-kill-0", cluster.AgentRegistered, 2))) == 2


async def test_an_agent_runs_as_the_owner_of_its_settings(engine: Engine, settings: Settings) -> None:
    os.chown(settings.scheduler.agent_settings, 10002, 10003)
    nodes = nodes_in(settings, "box-user")

    await nodes.start("box-user-0")
    with engine.client() as client:
        made = client.get(f"/containers/{containers(engine, 'box-user-0')[0]['Id']}/json").json()
    await nodes.stop("box-user-0")

    assert made["Config"]["User"] == "10002:10003"


async def test_pools_do_not_see_each_others_nodes(settings: Settings) -> None:
    one, other = nodes_in(settings, "one"), nodes_in(settings, "other")

    await one.start("one-0")

    assert await one.states(NOBODY, NOBODY) == {"one-0": NodeStatus(NodeState.UP)}
    assert await other.states(NOBODY, NOBODY) == {}


async def test_an_agent_that_ends_again_and_again_is_left_alone_for_a_while(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text("this is no TOML")
    nodes = nodes_in(settings, "crash")
    await nodes.start("crash-0")
    with pytest.raises(NodeRefused, match="a moment ago"):
        await nodes.start("crash-0")

    seen = await until(lambda: status(nodes, "crash-0"), lambda it: it is not None and it.state is NodeState.BROKEN)

    assert seen is not None and "agent.toml" in seen.why


async def test_an_image_that_is_not_there_is_named_with_what_to_do(settings: Settings) -> None:
    nodes = nodes_in(settings, "none", image="trainyard-test/no-such:1")

    with pytest.raises(NodeRefused, match=r"trainyard-test/no-such:1.*docker pull"):
        await nodes.start("none-0")


async def test_without_the_agents_settings_no_container_is_made(settings: Settings) -> None:
    settings.scheduler.agent_settings = ""

    with pytest.raises(NodeRefused, match=r"scheduler\.agent_settings is not set"):
        await nodes_in(settings, "bare").start("bare-0")


async def test_an_engine_that_is_away_is_the_whole_pools_trouble(tmp_path: Path) -> None:
    settings = Settings(service="scheduler", home=tmp_path)
    settings.scheduler.docker_socket = str(tmp_path / "none.sock")

    with pytest.raises(ProviderTrouble, match=r"no Docker engine answers at .*none\.sock") as raised:
        await nodes_in(settings, "away").states(NOBODY, NOBODY)

    assert not isinstance(raised.value, NodeRefused)
