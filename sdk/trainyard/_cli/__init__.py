"""The command `trainyard`. One file a group; this one puts them together. Exit codes: exits.py."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from trainyard._cli import (
    agents,
    computes,
    datasets,
    datastores,
    deadletters,
    endpoints,
    environments,
    events,
    exits,
    experiments,
    history,
    models,
    runs,
    scheduling,
)
from trainyard._cli.doctor import doctor
from trainyard._cli.output import fail, note
from trainyard._cli.stack import PASS_ON, down, status, up
from trainyard._errors import TrainyardException


class Told(TyperGroup):
    """An error is a message and an exit code, not a stack."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except TrainyardException as error:
            fail(error)
            raise typer.Exit(exits.of(error)) from error
        except KeyboardInterrupt:
            note("interrupted")
            raise typer.Exit(exits.Exit.INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read has had enough. Python would complain when it flushes at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(exits.Exit.OK) from None
        except OSError as error:
            note(f"{type(error).__name__}: {error}")
            raise typer.Exit(exits.Exit.FAILED) from error


app = typer.Typer(
    cls=Told,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Train and serve TensorFlow models on your own machines.",
    epilog=exits.told(),
)
_GROUPS = {
    "run": runs.group,
    "experiment": experiments.group,
    "dataset": datasets.group,
    "datastore": datastores.group,
    "compute": computes.group,
    "scheduler": scheduling.group,
    "agent": agents.group,
    "env": environments.group,
    "model": models.group,
    "endpoint": endpoints.group,
    "events": events.group,
    "deadletters": deadletters.group,
    "history": history.group,
}
for _name, _group in _GROUPS.items():
    app.add_typer(_group, name=_name)
app.command("queue")(scheduling.queue)
app.command("status")(status)
app.command("doctor")(doctor)
app.command("up", context_settings=PASS_ON, add_help_option=False)(up)
app.command("down", context_settings=PASS_ON, add_help_option=False)(down)


def _version(asked: bool) -> None:
    if asked:
        from trainyard import VERSION
        from trainyard._cli.output import say

        say(f"trainyard {VERSION}")
        raise typer.Exit


@app.callback()
def main(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")] = False) -> None:
    """Train and serve TensorFlow models on your own machines."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal's encoding has no character for is no reason to stop.
            stream.reconfigure(errors="backslashreplace")
