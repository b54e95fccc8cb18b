"""Logs of bounded size, the environment that a version is served in, and what a server may see."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from services.chassis import environments
from services.serving.adapters.endpoint_logs import EndpointLogs
from services.serving.adapters.home_keeper import Keeper
from services.serving.adapters.model_environments import definition_for
from services.serving.adapters.model_servers import ModelServers, reachable_at
from services.serving.adapters.server_environment import SERVER_PACKAGES, child_environment
from services.serving.ports import Ports
from tests.unit.serving.builders import a_version


def test_a_log_is_one_line_a_line_whatever_is_written(tmp_path: Path) -> None:
    logs = EndpointLogs(tmp_path)
    say = logs.of("digits")

    for line in ("plain", "two\nlines\r\nof it", "", "ä\ud800", "x" * 100_000):
        say(line)

    assert logs.tail("digits", 10) == ["plain", "two lines of it", "", "ä?", "x" * 8192]
    assert logs.tail("digits", 2) == ["ä?", "x" * 8192]
    assert EndpointLogs(tmp_path).tail("digits", 10)[0] == "plain"
    assert logs.tail("never", 10) == []


def test_a_log_never_grows_beyond_twice_its_limit_and_keeps_the_end(tmp_path: Path) -> None:
    logs = EndpointLogs(tmp_path, max_bytes=1000)
    say = logs.of("digits")

    for number in range(1000):
        say(f"line {number:05}")

    assert sum(path.stat().st_size for path in (tmp_path / "logs").iterdir()) <= 2100
    assert logs.tail("digits", 90) == [f"line {number:05}" for number in range(910, 1000)]


def test_a_version_is_served_in_its_own_line_of_tensorflow_with_what_the_server_needs() -> None:
    said: list[str] = []

    own = definition_for(a_version(framework_version="2.19"), said.append)
    unsaid = definition_for(a_version(), said.append)

    assert own == environments.definition("tensorflow", "2.19", [], extra=SERVER_PACKAGES)
    assert unsaid == environments.definition("tensorflow", "", [], extra=SERVER_PACKAGES)
    assert said == []


@pytest.mark.parametrize("version", ["1.16", "3.0", "nonsense"])
def test_a_version_that_is_not_supported_is_tried_in_the_default_line_and_that_is_told(version: str) -> None:
    said: list[str] = []

    found = definition_for(a_version(framework_version=version), said.append)

    assert found == environments.definition("tensorflow", "", [], extra=SERVER_PACKAGES)
    assert f"framework_version '{version}' of mnist:1" in said[0]


def test_a_server_is_given_a_list_of_variables_and_no_more() -> None:
    ours = {
        "PATH": "/bin",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "TRAINYARD_OBJECT_STORE__SECRET_KEY": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "MINIO_ROOT_PASSWORD": "secret",
        "DATABASE_URL": "secret",
        "PYTHONPATH": "/ours",
    }

    given = child_environment(ours)

    assert given.keys() == {"PATH", "TF_ENABLE_ONEDNN_OPTS", "PYTHONPATH", "PYTHONNOUSERSITE", "PYTHONUNBUFFERED"}
    assert given["PYTHONPATH"] != "/ours"


def test_a_port_is_free_until_somebody_listens_there_even_if_he_would_share_it(tmp_path: Path) -> None:
    servers = ModelServers(Keeper(tmp_path), "127.0.0.1", tmp_path, 1.0)
    with socket.socket() as sharing:
        sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sharing.bind(("127.0.0.1", 0))
        sharing.listen()
        port = sharing.getsockname()[1]

        assert not servers.is_free(Ports(port, 0))
        assert not servers.is_free(Ports(0, port))
    assert servers.is_free(Ports(port, port))
    assert servers.is_free(Ports())


def test_a_service_that_listens_everywhere_is_reached_by_its_machines_name() -> None:
    assert reachable_at("0.0.0.0") == socket.gethostname()
    assert reachable_at("127.0.0.1") == "127.0.0.1"
