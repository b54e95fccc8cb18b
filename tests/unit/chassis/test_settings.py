"""Settings: one file, the environment over it, and errors that name the setting."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from services.chassis.settings import FILE, Settings


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("TRAINYARD_"):
            monkeypatch.delenv(name)


def a_file(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    path = folder / "settings.toml"
    path.write_text(text)
    monkeypatch.setenv(FILE, str(path))


def test_without_a_file_and_an_environment_the_defaults_hold() -> None:
    settings = Settings.load("scheduler")

    assert settings.service == "scheduler"
    assert settings.loop == "faust"
    assert settings.scheduler.node_slots == 4


def test_the_file_is_over_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_file(tmp_path, monkeypatch, 'loop = "kafka"\n[scheduler]\nnode_slots = 9\n')

    settings = Settings.load("scheduler")

    assert settings.loop == "kafka"
    assert settings.scheduler.node_slots == 9


def test_the_environment_is_over_the_file_name_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_file(tmp_path, monkeypatch, "port = 1000\n[scheduler]\nnode_slots = 9\nmax_lost_attempts = 3\n")
    monkeypatch.setenv("TRAINYARD_PORT", "2000")
    monkeypatch.setenv("TRAINYARD_SCHEDULER__NODE_SLOTS", "7")

    settings = Settings.load("scheduler")

    assert settings.port == 2000
    assert settings.scheduler.node_slots == 7
    assert settings.scheduler.max_lost_attempts == 3


def test_what_is_given_in_code_is_over_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINYARD_PORT", "2000")

    assert Settings.load("scheduler", port=3000).port == 3000


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TRAINYARD_PORT", "70000", "port"),
        ("TRAINYARD_PORT", "many", "port"),
        ("TRAINYARD_LOOP", "rabbit", "loop"),
        ("TRAINYARD_SCHEDULER__NODE_SLOTS", "-1", "scheduler.node_slots"),
        ("TRAINYARD_AGENT__HEARTBEAT_SECONDS", "0", "agent.heartbeat_seconds"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_name(name: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ValidationError, match=told):
        Settings.load("scheduler")


def test_who_is_put_to_sleep_for_want_of_memory_can_be_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = {"memory_budget_bytes": 1 << 30}
    doors = {"door_grpc_port": 17416, "door_rest_port": 17417}

    assert Settings.load("serving", port=17412, serving=budget | doors).serving.memory_budget_bytes == 1 << 30
    assert Settings.load("registry", serving=budget).serving.memory_budget_bytes == 1 << 30
    for given in ({"port": 17412, "serving": budget}, {"serving": budget | doors}):
        with pytest.raises(ValidationError, match=r"which the door wakes: set port, serving\.door_grpc_port"):
            Settings.load("serving", **given)


def test_a_file_that_is_not_there_is_an_error_and_not_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FILE, str(tmp_path / "nowhere.toml"))

    with pytest.raises(FileNotFoundError, match="TRAINYARD_SETTINGS.*nowhere.toml"):
        Settings.load("scheduler")


def test_one_file_serves_services_that_know_different_parts_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_file(tmp_path, monkeypatch, "[something_newer]\nvalue = 1\n")

    assert Settings.load("registry").service == "registry"


def test_secrets_are_not_told() -> None:
    settings = Settings.load("registry", object_store={"access_key": "a", "secret_key": "hush"})

    assert "hush" not in repr(settings)
    assert "hush" not in str(settings.model_dump())
    assert settings.object_store.secret_key.get_secret_value() == "hush"


def test_the_database_is_a_file_of_the_services_own_unless_a_url_is_given(tmp_path: Path) -> None:
    assert Settings.load("registry", home=tmp_path).sql_url == f"sqlite:///{tmp_path / 'db' / 'registry.db'}"
    assert Settings.load("registry", database_url="postgresql://db/x").sql_url == "postgresql://db/x"


@pytest.mark.parametrize("content", [b"this is no TOML", b"port = 1\nport = 2", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    a_file(tmp_path, monkeypatch, "")
    (tmp_path / "settings.toml").write_bytes(content)

    with pytest.raises(ValueError, match=r"TRAINYARD_SETTINGS names .*settings\.toml, which is no TOML"):
        Settings.load("scheduler")
