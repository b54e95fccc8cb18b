"""A workspace's identity: Azure's constructor, get, list, write_config and details."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.client.platform import Platform
from trainyard import UserErrorException, Workspace


@pytest.fixture
def home(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("TRAINYARD_CONFIG", raising=False)
    (tmp_path / ".trainyard").mkdir()
    (tmp_path / ".trainyard" / "config.json").write_text(json.dumps(platform.config()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_azures_three_names_stand_over_the_nearest_stack(home: Path) -> None:
    workspace = Workspace("sub", "rg", "vision")

    assert (workspace.name, workspace.subscription_id, workspace.resource_group, workspace.location) == ("vision", "sub", "rg", "local")
    assert workspace._stack["kafka_bootstrap"] == "127.0.0.1:1"
    assert Workspace.get("vision", subscription_id="sub").subscription_id == "sub"
    assert list(Workspace.list()) == ["tests"]


def test_what_write_config_wrote_is_found_again_from_anywhere_and_holds_no_key(
    home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path_factory.mktemp("project")
    Workspace("sub", "rg", "vision").write_config(project)
    monkeypatch.chdir(project)

    written = (project / ".azureml" / "config.json").read_text()
    found = Workspace.from_config()

    assert "secret_key" not in written
    assert (found.name, found.resource_group, found.config_path) == ("vision", "rg", home / ".trainyard" / "config.json")


def test_the_environments_stack_wins_over_a_written_one(home: Path, monkeypatch: pytest.MonkeyPatch, platform: Platform) -> None:
    other = home / "other.json"
    other.write_text(json.dumps({**platform.config(), "workspace_name": "other"}))
    Workspace("sub", "rg", "vision").write_config(home)
    monkeypatch.setenv("TRAINYARD_CONFIG", str(other))

    assert Workspace.from_config().config_path == other


def test_details_name_addresses_and_never_a_key(home: Path) -> None:
    details = Workspace("sub", "rg", "vision").get_details()

    assert details["id"] == "/subscriptions/sub/resourceGroups/rg/providers/Trainyard/workspaces/vision"
    assert "'s'" not in repr(details.values())
    assert (details["name"], details["location"], details["storageAccount"]) == ("vision", "local", "127.0.0.1:1/b")
    assert Workspace.from_config().images == {}


@pytest.mark.parametrize("content", [{"workspace_name": "w"}, {"trainyard": {}}, {"workspace_name": "w", "trainyard": "no"}])
def test_a_stack_that_is_none_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(UserErrorException, match="does not describe a Trainyard stack"):
        Workspace.from_dict(content)


def test_without_a_stack_the_constructor_says_how_to_start_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAINYARD_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UserErrorException) as caught:
        Workspace("sub", "rg", "vision")
    assert "make up" in caught.value.hint
    assert Workspace.list() == {}
