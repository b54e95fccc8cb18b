"""`trainyard agent`: this host as a node, and the nodes that there are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.unit.client.platform import Platform
from trainyard._cli import agents
from trainyard.cluster.v1 import cluster_pb2

Cli = Callable[..., Result]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """What the process would have become."""
    made: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda _, words, environment: made.append((words, environment)))
    monkeypatch.delenv("TRAINYARD_SETTINGS", raising=False)
    return made


def a_static_pool(platform: Platform) -> None:
    platform.pools["hand"] = cluster_pb2.Pool(name="hand", provider=cluster_pb2.Provider(static=cluster_pb2.StaticNodes()))


def test_this_host_becomes_an_agent_of_the_pool(platform: Platform, cli: Cli, begun: list[Any], tmp_path: Path) -> None:
    a_static_pool(platform)
    settings = tmp_path / "agent.toml"
    settings.touch()
    options = ["--pool", "hand", "--id", "one", "--address", "10.0.0.7", "--gpus", "0,1", "--label", "zone=a", "--label", "gpu.name=T4"]

    result = cli("agent", "join", *options, "--settings", str(settings))

    assert result.exit_code == 0, result.output
    ((words, environment),) = begun
    assert words[1:] == ["-m", "services.trainer_agent"]
    assert environment["TRAINYARD_SETTINGS"] == str(settings)
    assert (environment["TRAINYARD_AGENT__ID"], environment["TRAINYARD_AGENT__POOL"]) == ("one", "hand")
    assert (environment["TRAINYARD_AGENT__ADDRESS"], environment["CUDA_VISIBLE_DEVICES"]) == ("10.0.0.7", "0,1")
    assert json.loads(environment["TRAINYARD_AGENT__LABELS"]) == {"zone": "a", "gpu.name": "T4"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--pool", "nowhere"], "There is no pool 'nowhere'"),
        (["--pool", "grows"], "starts its nodes itself"),
        (["--pool", "hand", "--id", "../x"], "is no name of a node"),
        (["--pool", "hand", "--settings", "/no/such.toml"], "is no file"),
        (["--pool", "hand", "--label", "zone"], "NAME=VALUE"),
    ],
)
def test_what_cannot_be_is_said_before_anything_begins(
    platform: Platform, cli: Cli, begun: list[Any], tmp_path: Path, options: list[str], told: str
) -> None:
    a_static_pool(platform)
    platform.pools["grows"] = cluster_pb2.Pool(name="grows")
    settings = tmp_path / "agent.toml"
    settings.touch()
    named = [] if "--settings" in options else ["--settings", str(settings)]

    result = cli("agent", "join", *options, *named)

    assert result.exit_code != 0
    assert told in result.output
    assert begun == []


def test_a_stack_whose_home_has_no_settings_for_agents_is_named(platform: Platform, cli: Cli, begun: list[Any]) -> None:
    a_static_pool(platform)

    result = cli("agent", "join", "--pool", "hand")

    assert "agent.toml, which is no file" in result.output
    assert begun == []


def test_a_host_without_the_agent_says_where_to_get_it(cli: Cli, begun: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "find_spec", lambda name: None)

    result = cli("agent", "join", "--pool", "hand")

    assert "make setup" in result.output
    assert begun == []


def test_nodes_are_listed_with_what_is_in_use(platform: Platform, cli: Cli) -> None:
    a_static_pool(platform)
    node = platform.pools["hand"].nodes.add(agent_id="one", state="running", run_ids=["r1", "r2"])
    node.resources.cpus, node.used.cpus, node.resources.gpus = 8, 2, 1

    (listed,) = [json.loads(line) for line in cli("agent", "list", "--json").output.splitlines()]

    assert (listed["agent"], listed["pool"], listed["state"], listed["runs"]) == ("one", "hand", "running", ["r1", "r2"])
    assert (listed["cpus"], listed["gpus"]) == ("2/8", "0/1")


def test_an_agent_is_asked_to_leave(platform: Platform, cli: Cli) -> None:
    result = cli("agent", "drain", "one", "--why", "maintenance")

    assert result.exit_code == 0
    asked = platform.last(cluster_pb2.DrainAgent)
    assert (asked.agent_id, asked.why) == ("one", "maintenance")
