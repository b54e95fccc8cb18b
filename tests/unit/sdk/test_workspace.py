import json
from pathlib import Path

import pytest

from trainyard import UserErrorException, Workspace

STACK = {"subscription_id": "local", "resource_group": "local", "workspace_name": "local", "trainyard": {"home": "h", "services": {}}}
AZURE = {"subscription_id": "s-1", "resource_group": "rg", "workspace_name": "vision"}


@pytest.fixture(autouse=True)
def _no_stack_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAINYARD_CONFIG", raising=False)


def put(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("place", ["config.json", ".trainyard/config.json", ".azureml/config.json"])
def test_config_is_found_here_and_in_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    put(tmp_path / place, STACK)
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "deeper")

    assert Workspace.from_config().config_path == tmp_path / place


def test_a_config_json_that_is_no_workspace_is_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "config.json", STACK)
    put(tmp_path / "app" / "config.json", {"debug": True})
    monkeypatch.chdir(tmp_path / "app")

    assert Workspace.from_config().config_path == tmp_path / "config.json"


def test_an_azure_config_gives_the_name_and_the_local_stack_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / ".trainyard" / "config.json", STACK)
    put(tmp_path / "project" / "config.json", AZURE)
    monkeypatch.chdir(tmp_path / "project")

    workspace = Workspace.from_config()

    assert (workspace.name, workspace.subscription_id, workspace.resource_group) == ("vision", "s-1", "rg")
    assert workspace._stack == STACK["trainyard"]


def test_the_environment_names_the_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = put(tmp_path / "elsewhere" / "config.json", {**STACK, "workspace_name": "other"})
    put(tmp_path / "project" / "config.json", STACK)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("TRAINYARD_CONFIG", str(other))

    assert Workspace.from_config().name == "other"


def test_an_azure_config_without_a_stack_says_how_to_start_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "config.json", AZURE)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UserErrorException) as caught:
        Workspace.from_config()
    assert "make up" in caught.value.hint


def test_a_path_may_be_a_file_or_a_folder_and_garbage_is_named(tmp_path: Path) -> None:
    file = put(tmp_path / ".trainyard" / "config.json", STACK)
    assert Workspace.from_config(file).config_path == file
    assert Workspace.from_config(tmp_path).config_path == file

    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserErrorException, match="bad.json"):
        Workspace.from_config(tmp_path / "bad.json")
