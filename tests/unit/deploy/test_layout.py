from __future__ import annotations

import configparser
import shlex
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy.local import keys, supervision
from deploy.local.__main__ import layout_of
from deploy.local.keys import Secrets
from deploy.local.layout import Layout, in_use
from deploy.local.stack import StackError, _check_ports, _settings
from services.chassis.settings import FILE, Settings


def test_no_two_things_share_a_port() -> None:
    ports = Layout(Path("/home"), node_slots=50).ports()

    assert len(set(ports.values())) == len(ports)


def test_a_port_in_use_is_named_with_what_it_is_meant_for_and_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        layout = Layout(Path("/home"), base=port - 2)

        with pytest.raises(StackError, match=rf"port {port}, meant for MinIO, is in use.*PORT_BASE"):
            _check_ports(layout)
        assert in_use(layout)["MinIO"] == port


def test_models_are_found_by_name_where_their_clients_look_unless_the_stack_has_other_ports() -> None:
    first, second = Layout(Path("/home")), Layout(Path("/home"), base=18400)

    assert (first.door_grpc_port, first.door_rest_port) == (8500, 8501)
    assert (second.door_grpc_port, second.door_rest_port) == (18416, 18417)


def test_a_stack_goes_without_a_door_whose_port_is_in_use_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        assert not _check_ports(Layout(Path("/home"), base=port - 16))

    assert f"port {port}, meant for models by name, gRPC, is in use" in capsys.readouterr().out


def test_a_deep_home_still_has_a_socket_that_the_kernel_takes() -> None:
    deep = Layout(Path("/home") / ("x" * 60) / ("y" * 60))

    assert len(str(deep.supervisor_socket)) < 108
    assert deep.supervisor_socket != Layout(Path("/home") / ("x" * 60) / ("z" * 60)).supervisor_socket


def test_what_is_not_asked_for_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text('{"base": 19000, "node_slots": 7}')

    assert layout_of(tmp_path, None, None) == Layout(tmp_path, 19000, 7)
    assert layout_of(tmp_path, 18000, None) == Layout(tmp_path, 18000, 7)


# -- keys


def test_keys_are_made_once_and_only_their_owner_may_read_them(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"

    first, second = Secrets.load_or_make(path), Secrets.load_or_make(path)

    assert first == second
    assert len(set(first.passwords.values())) == 7
    assert path.stat().st_mode & 0o777 == 0o600


def test_containers_that_start_together_agree_on_the_keys(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: Secrets.load_or_make(tmp_path / "secrets.json"), range(40)))

    assert all(it == found[0] for it in found)
    assert Secrets.load_or_make(tmp_path / "secrets.json") == found[0]


def test_the_service_that_reads_users_urls_may_read_datastores_and_write_lists_alone_and_no_service_has_roots_keys(tmp_path: Path) -> None:
    secrets = Secrets.load_or_make(tmp_path / "secrets.json")

    assert secrets.object_store("scheduler") == {}
    assert keys._ALLOWED["dataset"] == {"datastores/*": ("s3:GetObject",), "datastores/manifests/*": ("s3:PutObject",)}
    assert secrets.passwords["root"] not in secrets.object_store("serving").values()


def test_only_agents_write_outputs_and_only_clients_write_snapshots() -> None:
    def may_write(user: str) -> set[str]:
        statements = keys.policy(user)["Statement"]
        assert isinstance(statements, list)
        return {resource for it in statements if "s3:PutObject" in it["Action"] for resource in it["Resource"]}

    assert may_write("trainer_agent") == {f"arn:aws:s3:::trainyard/{place}/*" for place in ("runs", "uploads", "wheels")}
    assert may_write("client") == {f"arn:aws:s3:::trainyard/{place}/*" for place in ("snapshots", "datastores", "uploads")}
    assert may_write("dataset") == {"arn:aws:s3:::trainyard/datastores/manifests/*"}
    assert may_write("registry") == may_write("serving") == may_write("history") == set()


def test_the_registry_alone_may_take_files_away_and_only_those_of_uploaded_models() -> None:
    removing = {
        user: [prefix for prefix, actions in places.items() if "s3:DeleteObject" in actions] for user, places in keys._ALLOWED.items()
    }

    assert {user: places for user, places in removing.items() if places} == {"registry": ["uploads/models/*"]}


# -- the supervisor's configuration


@pytest.fixture
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> configparser.RawConfigParser:
    monkeypatch.setattr("deploy.local.cache.part", lambda name: Path("/cache dir") / name)
    monkeypatch.setattr("deploy.local.kafka.java", lambda: Path("/java home/bin/java"))
    layout = Layout(tmp_path / "a home 100%", node_slots=2)
    parsed = configparser.RawConfigParser(strict=True)
    secrets = Secrets.load_or_make(tmp_path / "secrets.json")
    parsed.read_string(supervision.configuration(layout, supervision.parts(layout, secrets), supervision.agents(layout, secrets)))
    return parsed


def test_paths_with_spaces_and_percent_signs_stay_whole(configuration: configparser.RawConfigParser) -> None:
    words = shlex.split(configuration["program:kafka"]["command"])

    assert words[0] == "/java home/bin/java"
    assert words[-1].endswith("a home 100%%/kafka/server.properties")


def test_what_others_lean_on_starts_first_and_stops_last(configuration: configparser.RawConfigParser) -> None:
    order = {name: int(configuration[f"program:{name}"]["priority"]) for name in ("kafka", "minio", "scheduler", "agent-0")}

    assert order["kafka"] == order["minio"] < order["scheduler"] < order["agent-0"]
    assert configuration["program:agent-1"]["autostart"] == "false"
    assert configuration["group:agents"]["programs"] == "agent-0,agent-1"


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("TRAINYARD_LOOP", True),
        ("TRAINYARD_HOME", False),
        ("AWS_SECRET_ACCESS_KEY", False),
        ("https_proxy", True),
        ("LOGNAME", True),
        ("SSL_CERT_FILE", True),
        ("EDITOR", False),
    ],
)
def test_only_what_services_may_need_of_the_callers_environment_is_passed_on(name: str, passes: bool) -> None:
    assert supervision._is_passed_on(name) is passes


def test_services_read_the_settings_that_up_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path / 'a "home"', base=19000, node_slots=3)
    file = tmp_path / "settings.toml"
    file.write_text(_settings(layout))
    monkeypatch.setenv(FILE, str(file))

    settings = Settings.load("scheduler")

    assert settings.home == layout.home
    assert settings.kafka_bootstrap == "127.0.0.1:19000"
    assert settings.scheduler.node_slots == 3
    assert settings.scheduler.supervisor_socket == str(layout.supervisor_socket)
