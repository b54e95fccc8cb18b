"""`trainyard up | down | status`: the local stack comes with a checkout; whether it answers can be asked from anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import typer

from trainyard._cli import checks
from trainyard._cli.common import Config, Json, workspace
from trainyard._cli.exits import Exit
from trainyard._cli.output import emit, rows
from trainyard._errors import TrainyardException

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def up(context: typer.Context, as_json: Json = False) -> None:
    """Start the local stack and write config.json. Options are those of `python -m deploy.local up`."""
    _stack("up", context.args, as_json)


def down(context: typer.Context, as_json: Json = False) -> None:
    """Stop the local stack; its state stays."""
    _stack("down", context.args, as_json)


def status(as_json: Json = False, config: Config = None) -> None:
    """Which parts of the platform answer, and where. Exit code 5 where one does not."""
    found = list(checks.reachable(workspace(config)))
    rows((it.row() for it in found), ("part", "state", "found"), as_json=as_json)
    if any(it.state == checks.BAD for it in found):
        raise typer.Exit(Exit.UNAVAILABLE)


def _stack(verb: str, arguments: list[str], as_json: bool) -> None:
    environment = dict(os.environ)
    if find_spec("deploy") is None or find_spec("deploy.local") is None:
        checkout = Path(__file__).resolve().parents[3]
        if not (checkout / "deploy" / "local" / "__init__.py").is_file():
            raise TrainyardException(
                "The local stack is not installed here.",
                code="NoCheckout",
                hint="run this from a checkout of Trainyard, or use `make up` there",
            )
        environment["PYTHONPATH"] = os.pathsep.join([str(checkout), *filter(None, [environment.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "deploy.local", verb, *arguments], env=environment, check=False, stdout=sys.stderr if as_json else None
    )
    if as_json:
        emit({"verb": verb, "ok": done.returncode == 0})
    raise typer.Exit(Exit.OK if done.returncode == 0 else Exit.FAILED)
