"""`trainyard env`: the environments that are kept on this machine, and making one before it is needed."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainyard._cli.common import All, Config, Json, Limit, Token, moment, new_group, page_of, workspace, wrong
from trainyard._cli.output import iso, note, rows, size
from trainyard._environment_cache import Cached, cached, default_cache
from trainyard._environment_cache import prune as prune_cache

if TYPE_CHECKING:
    from trainyard._environment import Environment
    from trainyard._workspace import Workspace

group = new_group("Environments of scripts: kept on this machine, registered, made beforehand.")
Cache = Annotated[Path | None, typer.Option("--cache", help="the agents' cache folder; by default TRAINYARD_CACHE, else this user's")]
_KEPT = ("id", "lastUsed", "inUse", "sizeBytes", "ownBytes", "requirements")
_REGISTERED = ("name", "version", "registeredAt", "requirements")


@group.command("list")
def env_list(
    registered: Annotated[
        bool, typer.Option("--registered", help="the named ones of the registry instead, each with its latest version")
    ] = False,
    text: Annotated[str, typer.Option("--text", "--contains", help="only with this text in the id, name or requirements")] = "",
    cache: Cache = None,
    limit: Limit = 100,
    page_token: Token = "",
    everything: All = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """What is kept on this machine, last used first: sizes in bytes, of it what would be free without it, and whether it is in use."""
    found = _registered(workspace(config)) if registered else [_row(it) for it in cached(cache or default_cache())]
    chosen = [row for row in found if text.lower() in json.dumps(row, ensure_ascii=False).lower()]
    key = "name" if registered else "id"
    page = page_of(chosen, lambda row: str(row[key]), limit=limit, token=page_token, everything=everything)
    rows(page, _REGISTERED if registered else _KEPT, as_json=as_json)


@group.command("prune")
def env_prune(
    unused_for: Annotated[str, typer.Option(help="only what nobody used for so long: 12h, 30d; 0s for all")] = "30d",
    environment_id: Annotated[list[str] | None, typer.Option("--id", help="only this one; may be repeated")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go, and leave it")] = False,
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Remove environments from this machine. One in use is never removed; one that a run needs again is built again."""
    before, folder, ids = moment(unused_for, "--unused-for"), cache or default_cache(), environment_id or []
    if dry_run:
        chosen = [it for it in cached(folder) if it.last_used < before and (not ids or it.id in ids)]
        removed, kept = [it for it in chosen if not it.in_use], [it for it in chosen if it.in_use]
    else:
        removed, kept = prune_cache(folder, unused_since=before, ids=ids)
    action = "would remove" if dry_run else "removed"
    listed = [{"action": action, **_row(it)} for it in removed] + [{"action": "in use", **_row(it)} for it in kept]
    rows(listed, ("action", *_KEPT), as_json=as_json)
    note(f"{len(removed)} {'would go' if dry_run else 'removed'}, {size(sum(it.own_bytes for it in removed))} free")


@group.command("prebuild")
def env_prebuild(
    name: Annotated[str, typer.Argument(help="a registered or curated environment; empty: what the options say")] = "",
    version: Annotated[int, typer.Option(min=0, help="of the registered environment; 0: the latest")] = 0,
    framework_version: Annotated[str, typer.Option(help="a TensorFlow of this version")] = "",
    pip: Annotated[list[str] | None, typer.Option("--pip", help="a requirement; may be repeated")] = None,
    requirements_file: Annotated[Path | None, typer.Option("--requirements", help="a requirements.txt")] = None,
    conda_file: Annotated[Path | None, typer.Option("--conda", help="an environment.yml")] = None,
    target: Annotated[str, typer.Option(help="the compute target whose node builds it")] = "local",
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Build an environment on a compute target now, so that the first run finds it: a run without a script. Exit code 4 where it fails."""
    from trainyard._cli.runs_steer import wait_for
    from trainyard._experiment import Experiment
    from trainyard._script_run_config import ScriptRunConfig

    options = (framework_version, *(pip or ()), requirements_file, conda_file)
    if bool(name) == any(options):
        raise wrong(
            "Give the name of an environment, or what is to be in one.",
            "name",
            "trainyard env prebuild NAME, or --framework-version, --pip, --requirements, --conda",
        )
    space = workspace(config)
    environment = named(space, name, version) if name else _described(framework_version, pip or [], requirements_file, conda_file)
    with tempfile.TemporaryDirectory() as empty:
        wanted = ScriptRunConfig(empty, command=["python", "-c", "pass"], environment=environment, compute_target=target)
        run = Experiment(space, "prebuild").submit(wanted, tags={"environment": environment.name})
    wait_for(run, quiet=False, as_json=as_json)


def named(space: Workspace, name: str, version: int) -> Environment:
    """A registered or curated one; version 0 is the latest. What a curated name stands for is told on standard error."""
    import warnings

    from trainyard._environment import Environment

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = Environment.get(space, name, version)
    for warning in told:
        note(warning.message)
    return found


def _described(framework_version: str, pip: list[str], requirements_file: Path | None, conda_file: Path | None) -> Environment:
    from trainyard._conda import CondaDependencies
    from trainyard._environment import of_framework, requirements

    dependencies = CondaDependencies(conda_file)
    for package in [*(requirements(requirements_file) if requirements_file else ()), *pip]:
        dependencies.add_pip_package(package)
    return of_framework("tensorflow" if framework_version else "none", framework_version, dependencies, {})


def _registered(space: Workspace) -> list[dict[str, Any]]:
    from trainyard.environment.v1 import environment_pb2

    clients = space._clients
    found = clients.call(clients.environments.ListEnvironments, environment_pb2.ListEnvironmentsRequest()).environments
    return [
        {
            "name": it.name,
            "version": int(it.version),
            "registeredAt": iso(it.registered_at),
            "requirements": [*it.definition.pip_packages] or it.definition.conda_specification.splitlines(),
        }
        for it in found
    ]


def _row(it: Cached) -> dict[str, Any]:
    return {
        "id": it.id,
        "lastUsed": it.last_used.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "sizeBytes": it.size_bytes,
        "ownBytes": it.own_bytes,
        "inUse": it.in_use,
        "requirements": list(it.requirements),
    }
