"""`trainyard doctor`: each part looked at from here, and what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from trainyard._cli import checks
from trainyard._cli.checks import BAD, Check, guarded
from trainyard._cli.common import Config, Json, workspace
from trainyard._cli.exits import Exit
from trainyard._cli.output import emit, say
from trainyard._errors import TrainyardException

if TYPE_CHECKING:
    from trainyard._workspace import Workspace

_UP = "see `make status`; start it with `make up`"


def doctor(as_json: Json = False, config: Config = None) -> None:
    """Look at every part from here: config, Kafka, topics, object store, services, models by name, history's lag, disk, clock, versions. Exit code 5 where a part does not answer, 1 where something else is wrong."""
    found = []
    for check in _checks(config):
        found.append(check)
        if as_json:
            emit(check.row())
            continue
        say(f"{check.state:<4}  {check.part:<16}  {check.found}")
        if check.what_to_do and check.state != checks.OK:
            say(f"      {'':<16}  what to do: {check.what_to_do}")
        sys.stdout.flush()
    bad = [check for check in found if check.state == BAD]
    if any(check.part in _ANSWERING for check in bad):
        raise typer.Exit(Exit.UNAVAILABLE)
    if bad:
        raise typer.Exit(Exit.FAILED)


_ANSWERING = ("kafka", "object store", "config", "scheduler", "dataset", "registry", "serving", "history")


def _checks(config: str | None) -> Iterator[Check]:
    yield guarded("versions", checks.versions, "pip install ./sdk")
    try:
        space: Workspace = workspace(config)
    except TrainyardException as error:
        yield Check("config", BAD, error.message, error.hint)
        return
    yield guarded("config", lambda: checks.config_file(space), _UP)
    answers = {}
    for check in checks.reachable(space):
        answers[check.part] = check.state != BAD
        yield check
    if answers.get("kafka"):
        yield guarded("topics", lambda: checks.topics(space), _UP)
        yield guarded("dead letters", lambda: checks.dead_letters(space), _UP)
    if answers.get("object store"):
        yield guarded("clock", lambda: checks.clock(space), _UP)
    if answers.get("history"):
        yield guarded("history's lag", lambda: checks.history(space), "see the log of history")
    yield from checks.disk(space)
