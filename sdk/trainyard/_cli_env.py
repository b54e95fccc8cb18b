"""`trainyard env`: the environments that are kept on this machine, and making one before it is needed."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainyard._environment_cache import Cached, cached, default_cache
from trainyard._environment_cache import prune as prune_cache
from trainyard._errors import TrainyardException, UserErrorException
from trainyard._times import as_utc

if TYPE_CHECKING:
    from trainyard._environment import Environment
    from trainyard._workspace import Workspace

environments = typer.Typer(no_args_is_help=True, help="Environments of scripts: kept on this machine, registered, made beforehand.")

_SPAN = re.compile(r"(\d+)\s*([smhd])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_SHOWN_REQUIREMENTS = 60
Cache = Annotated[Path | None, typer.Option("--cache", help="the agents' cache folder; by default TRAINYARD_CACHE, else this user's")]
Config = Annotated[str | None, typer.Option("--config", help="config.json, or the folder that holds it")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object a line")]


@contextmanager
def _told() -> Iterator[None]:
    """A typed error is a message and exit code 1, not a stack."""
    try:
        yield
    except TrainyardException as error:
        typer.echo(f"{error.code}: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@environments.command("list")
def list_environments(
    registered: Annotated[
        bool, typer.Option("--registered", help="the named ones of the registry instead, each with its latest version")
    ] = False,
    contains: Annotated[str, typer.Option(help="only those with this text in their name or requirements")] = "",
    limit: Annotated[int, typer.Option(min=1, help="at most so many")] = 50,
    as_json: AsJson = False,
    cache: Cache = None,
    config: Config = None,
) -> None:
    """What is kept on this machine, last used first: size, of it what would be free without it, last use, and whether it is in use."""
    with _told():
        rows = _registered(config) if registered else [_row(it) for it in cached(cache or default_cache())]
        chosen = [row for row in rows if contains.lower() in json.dumps(row).lower()]
        for row in chosen[:limit]:
            typer.echo(json.dumps(row, ensure_ascii=False) if as_json else _line(row))
        if not as_json and len(chosen) > limit:
            typer.echo(f"... and {len(chosen) - limit} more: give --limit, or narrow it with --contains", err=True)


@environments.command()
def prune(
    unused_for: Annotated[str, typer.Option(help="only what nobody used for so long: 12h, 30d; 0s for all")] = "30d",
    environment_id: Annotated[list[str] | None, typer.Option("--id", help="only this one; may be given more than once")] = None,
    dry_run: Annotated[bool, typer.Option(help="say what would go, and leave it")] = False,
    as_json: AsJson = False,
    cache: Cache = None,
) -> None:
    """Remove environments from this machine. One in use is never removed; one that a run needs again is built again."""
    with _told():
        before = datetime.now(UTC) - _span(unused_for)
        folder, ids = cache or default_cache(), environment_id or []
        if dry_run:
            chosen = [it for it in cached(folder) if it.last_used < before and (not ids or it.id in ids)]
            removed, kept = [it for it in chosen if not it.in_use], [it for it in chosen if it.in_use]
        else:
            removed, kept = prune_cache(folder, unused_since=before, ids=ids)
        for what, found in (("would remove" if dry_run else "removed", removed), ("in use", kept)):
            for it in found:
                typer.echo(json.dumps({"action": what, **_row(it)}) if as_json else f"{what}: {_line(_row(it))}")
        if not as_json:
            typer.echo(f"{len(removed)} {'would go' if dry_run else 'removed'}, {_size(sum(it.own_bytes for it in removed))} free")


@environments.command()
def prebuild(
    name: Annotated[str, typer.Argument(help="a registered or curated environment; empty: what the options say")] = "",
    version: Annotated[int, typer.Option(min=0, help="of the registered environment; 0: the latest")] = 0,
    framework_version: Annotated[str, typer.Option(help="a TensorFlow of this version")] = "",
    pip: Annotated[list[str] | None, typer.Option("--pip", help="a requirement; may be given more than once")] = None,
    requirements_file: Annotated[Path | None, typer.Option("--requirements", help="a requirements.txt")] = None,
    conda_file: Annotated[Path | None, typer.Option("--conda", help="an environment.yml")] = None,
    target: Annotated[str, typer.Option(help="the compute target whose node builds it")] = "local",
    config: Config = None,
) -> None:
    """Build an environment on a compute target now, so that the first run finds it. It is a run of its own, without a script: its log shows."""
    from trainyard._experiment import Experiment
    from trainyard._script_run_config import ScriptRunConfig

    with _told():
        workspace = _workspace(config)
        options = (framework_version, *(pip or ()), requirements_file, conda_file)
        if bool(name) == any(options):
            raise UserErrorException(
                "Give the name of an environment, or what is to be in one.",
                target="name",
                hint="trainyard env prebuild NAME, or --framework-version, --pip, --requirements, --conda",
            )
        environment = _named(workspace, name, version) if name else _described(framework_version, pip or [], requirements_file, conda_file)
        with tempfile.TemporaryDirectory() as empty:
            wanted = ScriptRunConfig(empty, command=["python", "-c", "pass"], environment=environment, compute_target=target)
            run = Experiment(workspace, "prebuild").submit(wanted, tags={"environment": environment.name})
        run.wait_for_completion(show_output=True)


def _workspace(config: str | None) -> Workspace:
    from trainyard._workspace import Workspace

    return Workspace.from_config(config)


def _named(workspace: Workspace, name: str, version: int) -> Environment:
    from trainyard._environment import Environment

    return Environment.get(workspace, name, version)


def _described(framework_version: str, pip: list[str], requirements_file: Path | None, conda_file: Path | None) -> Environment:
    from trainyard._conda import CondaDependencies
    from trainyard._environment import of_framework, requirements

    dependencies = CondaDependencies(conda_file)
    for package in [*(requirements(requirements_file) if requirements_file else ()), *pip]:
        dependencies.add_pip_package(package)
    return of_framework("tensorflow" if framework_version else "none", framework_version, dependencies, {})


def _registered(config: str | None) -> list[dict[str, object]]:
    from trainyard.environment.v1 import environment_pb2

    clients = _workspace(config)._clients
    found = clients.call(clients.environments.ListEnvironments, environment_pb2.ListEnvironmentsRequest()).environments
    return [
        {
            "name": it.name,
            "version": int(it.version),
            "registeredAt": as_utc(it.registered_at).isoformat(),
            "requirements": [*it.definition.pip_packages] or it.definition.conda_specification.splitlines(),
        }
        for it in found
    ]


def _row(it: Cached) -> dict[str, object]:
    return {
        "id": it.id,
        "lastUsed": it.last_used.isoformat(timespec="seconds"),
        "sizeBytes": it.size_bytes,
        "ownBytes": it.own_bytes,
        "inUse": it.in_use,
        "requirements": list(it.requirements),
    }


def _line(row: dict[str, object]) -> str:
    wanted = ", ".join(map(str, row["requirements"])) or "no packages"  # type: ignore[call-overload]
    wanted = wanted if len(wanted) <= _SHOWN_REQUIREMENTS else f"{wanted[: _SHOWN_REQUIREMENTS - 3]}..."
    if "name" in row:
        return f"{row['name']}:{row['version']}  registered {str(row['registeredAt'])[:16]}  {wanted}"
    sizes = f"{_size(row['sizeBytes'])}, {_size(row['ownBytes'])} of its own"  # type: ignore[arg-type]
    return f"{row['id']}  used {str(row['lastUsed'])[:16]}  {'in use' if row['inUse'] else 'idle':<6}  {sizes}  {wanted}"


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _span(text: str) -> timedelta:
    match = _SPAN.match(text.strip())
    if match is None:
        raise UserErrorException(f"--unused-for is a time like 12h or 30d, not {text!r}.", target="--unused-for")
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
