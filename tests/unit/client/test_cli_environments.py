import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner, Result

from tests.unit.client.platform import Platform
from trainyard._cli import app
from trainyard._environment_cache import COMPLETE, Hold, hold
from trainyard.environment.v1 import environment_pb2
from trainyard.job.v1.spec_pb2 import EnvironmentSpec


def an_environment(cache: Path, name: str, *requirements: str, used: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
    folder = cache / "environments" / name
    (folder / "lib").mkdir(parents=True)
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements))
    (folder / "lib" / "module.py").write_bytes(b"x" * 1000)
    os.link(folder / "lib" / "module.py", cache / f"{name}-wheel")
    (folder / COMPLETE).touch()
    (folder.with_suffix(".lock")).touch()
    for mark in (folder / COMPLETE, folder.with_suffix(".lock")):
        os.utime(mark, (used.timestamp(), used.timestamp()))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    an_environment(tmp_path, "old", "six==1.17.0")
    an_environment(tmp_path, "new", "rich", "pandas", used=datetime(2026, 2, 1, tzinfo=UTC))
    (tmp_path / "environments" / "half").mkdir()
    return tmp_path


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["env", *words])
    assert result.exit_code == code, result.output
    return result.output


def rows(*words: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in run(*words, "--json").splitlines() if line.startswith("{")]


def in_use(cache: Path, name: str) -> Hold:
    held = hold(cache, name)
    assert held is not None
    return held


def test_what_is_kept_is_listed_last_used_first_with_sizes_and_whether_it_is_in_use(cache: Path) -> None:
    held = in_use(cache, "old")

    listed = rows("list", "--cache", str(cache))

    assert [(it["id"], it["inUse"], it["requirements"]) for it in listed] == [
        ("old", True, ["six==1.17.0"]),
        ("new", False, ["rich", "pandas"]),
    ]
    assert listed[1]["sizeBytes"] == 1000 + len("rich\npandas\n")
    assert listed[1]["ownBytes"] == len("rich\npandas\n")
    held.release()


def test_the_list_is_filtered_and_cut_and_says_so(cache: Path) -> None:
    assert [it["id"] for it in rows("list", "--cache", str(cache), "--contains", "PANDAS")] == ["new"]
    assert "--page-token new" in run("list", "--cache", str(cache), "--limit", "1")
    assert run("list", "--cache", str(cache / "nowhere")) == ""


def test_prune_removes_what_nobody_used_for_so_long_and_never_what_is_in_use(cache: Path) -> None:
    held = in_use(cache, "new")

    dry = run("prune", "--cache", str(cache), "--dry-run", "--unused-for", "1d")
    assert "1 would go" in dry
    assert (cache / "environments" / "old").is_dir()
    told = run("prune", "--cache", str(cache), "--unused-for", "1d")

    assert "removed\told" in told
    assert not (cache / "environments" / "old").exists()
    assert (cache / "environments" / "new").is_dir()
    held.release()


def test_prune_takes_only_what_is_named(cache: Path) -> None:
    assert [it["id"] for it in rows("prune", "--cache", str(cache), "--id", "new")] == ["new"]
    assert (cache / "environments" / "old").is_dir()


def test_a_time_that_is_none_is_a_clear_error(cache: Path) -> None:
    assert "90s, 30m, 2h, 7d" in run("prune", "--cache", str(cache), "--unused-for", "soon", code=2)


@pytest.mark.parametrize("words", [(), ("mine", "--pip", "six")])
def test_prebuild_wants_a_name_or_what_is_to_be_in_it(words: tuple[str, ...], tmp_path: Path) -> None:
    config = {"workspace_name": "w", "trainyard": {"services": {}}}
    (tmp_path / "config.json").write_text(json.dumps(config))

    assert "Give the name of an environment" in run("prebuild", *words, "--config", str(tmp_path), code=2)


def test_errors_of_the_environments_commands_end_with_the_codes_of_every_other(
    platform: Platform, cli: Callable[..., Result], tmp_path: Path
) -> None:
    platform.refusals = {"ListEnvironments": (grpc.StatusCode.UNAVAILABLE, "Unavailable")}

    unknown, away = cli("env", "prebuild", "nobodys"), cli("env", "list", "--registered")

    assert (unknown.exit_code, away.exit_code) == (3, 5)
    assert unknown.stderr.startswith("EnvironmentNotFound: There is no environment 'nobodys'.")
    assert unknown.stdout == away.stdout == ""


def test_the_registered_ones_are_listed_with_what_is_in_them(platform: Platform, cli: Callable[..., Result]) -> None:
    for name in ("vision", "words"):
        definition = EnvironmentSpec(name=name, pip_packages=[f"{name}==1"])
        platform.environments[name] = environment_pb2.EnvironmentVersion(name=name, version=2, definition=definition)

    listed = cli("env", "list", "--registered", "--text", "VISION==1", "--json")

    assert [json.loads(line) for line in listed.stdout.splitlines()] == [
        {"name": "vision", "version": 2, "registeredAt": None, "requirements": ["vision==1"]}
    ]
