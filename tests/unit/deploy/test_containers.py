"""The stack in containers: the compose file names what there is, and each container becomes its part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.local import containers
from deploy.local.keys import Secrets
from deploy.local.layout import SERVICES, Layout
from deploy.local.stack import StackError

COMPOSE = Path(__file__).parents[3] / "docker-compose.yml"


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setattr("deploy.local.cache.part", lambda name: Path("/cache") / name)
    monkeypatch.setattr("deploy.local.kafka.java", lambda: Path("/java/bin/java"))
    return Layout(tmp_path)


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    found: list[tuple[list[str], dict[str, str]]] = []

    def execve(path: str, words: list[str], environment: dict[str, str]) -> None:
        assert path == words[0]
        found.append((words, environment))

    monkeypatch.setattr("os.execve", execve)
    monkeypatch.setattr("os.chdir", lambda path: None)
    return found


def test_the_compose_file_has_every_part_and_each_service_says_when_it_answers() -> None:
    parts: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]

    assert parts.keys() == {"prepare", "furnish", "kafka", "minio", containers.NODES, *SERVICES}
    for name in (*SERVICES, "kafka", "minio", containers.NODES):
        assert parts[name]["command"][-2:] == ["run", name]
    for name in SERVICES:
        assert parts[name]["healthcheck"]["test"][-2:] == ["ready", name]
        assert parts[name]["depends_on"] == {"furnish": {"condition": "service_completed_successfully"}}


def test_a_container_becomes_its_part_with_its_own_keys_alone(layout: Layout, became: list[Any]) -> None:
    passwords = Secrets.load_or_make(layout.secrets).passwords

    containers.run(layout, "registry")

    ((words, environment),) = became
    assert words[1:] == ["-m", "services.registry"]
    assert environment["TRAINYARD_OBJECT_STORE__SECRET_KEY"] == passwords["registry"]
    assert environment["TRAINYARD_SETTINGS"] == str(layout.settings)
    assert not set(environment.values()) & {word for name, word in passwords.items() if name != "registry"}


def test_nodes_are_run_by_a_supervisor_that_has_nothing_else(layout: Layout, became: list[Any]) -> None:
    Secrets.load_or_make(layout.secrets)

    with pytest.raises(StackError):  # the stand-in for exec returns, which exec does not
        containers.run(layout, containers.NODES)

    assert became[0][0][-1] == "--nodaemon"
    programs = [line for line in layout.supervisor_config.read_text().splitlines() if line.startswith("[program:")]
    assert programs == [f"[program:agent-{slot}]" for slot in range(4)]


def test_a_part_that_there_is_not_is_named_with_those_that_there_are(layout: Layout) -> None:
    Secrets.load_or_make(layout.secrets)

    with pytest.raises(StackError, match=r"no part 'rm'; there are kafka, minio, dataset, .* and nodes"):
        containers.run(layout, "rm")
    with pytest.raises(StackError, match="no service 'kafka'"):
        containers.ready(layout, "kafka")
