"""The command `trainyard`: events, runs, dead letters, and the local stack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from trainyard._errors import TrainyardException, UserErrorException

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Train and serve TensorFlow models on your own machines.")
events = typer.Typer(no_args_is_help=True, help="What happens, as events.")
runs = typer.Typer(no_args_is_help=True, help="Runs.")
deadletters = typer.Typer(no_args_is_help=True, help="Messages that no service could take.")
app.add_typer(events, name="events")
app.add_typer(runs, name="run")
app.add_typer(deadletters, name="deadletters")

DEAD_LETTERS = "trainyard.deadletters"
# Chatter: heartbeats come every second and say nothing that another event does not.
_QUIET = ("trainyard.heartbeats",)
Config = Annotated[str | None, typer.Option("--config", help="config.json, or the folder that holds it")]


@contextmanager
def _told() -> Iterator[None]:
    """A typed error is a message, not a stack."""
    try:
        yield
    except TrainyardException as error:
        typer.echo(f"{error.code}: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _workspace(config: str | None) -> Any:
    from trainyard._workspace import Workspace

    return Workspace.from_config(config)


def starting_point(text: str) -> tuple[datetime | None, bool]:
    """(since, from the end): 'beginning', 'now' or an ISO time, taken as UTC where it names no zone."""
    if text == "beginning":
        return None, False
    if text == "now":
        return None, True
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise UserErrorException(f"--from is 'beginning', 'now' or an ISO time, not {text!r}.", target="--from") from error
    return (when if when.tzinfo else when.replace(tzinfo=UTC)), False


@events.command("tail")
def tail(
    start: Annotated[str, typer.Option("--from", help="beginning, now or an ISO time")] = "now",
    follow: Annotated[bool, typer.Option(help="go on with what comes; --no-follow ends where the topics end now")] = True,
    until_idle: Annotated[float | None, typer.Option(help="end once nothing came for so many seconds")] = None,
    topic: Annotated[list[str] | None, typer.Option(help="only this topic; may be given more than once")] = None,
    run: Annotated[str | None, typer.Option(help="only what is about this run")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
    heartbeats: Annotated[bool, typer.Option(help="heartbeats too")] = False,
    config: Config = None,
) -> None:
    """Every event in order, with what caused it."""
    from trainyard._tail import as_object, as_text, concerns, ordered_stream

    with _told():
        since, from_end = starting_point(start)
        reader = _workspace(config)._events
        there = reader.topics()
        unknown = sorted(set(topic or ()) - set(there))
        if unknown:
            raise UserErrorException(f"There is no topic {unknown[0]!r}; there is: {', '.join(there)}.", target=unknown[0])
        topics = list(topic or [name for name in there if heartbeats or name not in _QUIET])
        stream = ordered_stream(reader, topics, since=since, from_end=from_end, follow=follow, until_idle=until_idle)
        for record in stream:
            if run is not None and not concerns(record, run):
                continue
            typer.echo(json.dumps(as_object(record), ensure_ascii=False) if as_json else as_text(record))
            sys.stdout.flush()


@runs.command("list")
def run_list(
    experiment: Annotated[str, typer.Option(help="only this experiment's")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="so many at the most")] = 20,
    as_json: Annotated[bool, typer.Option("--json")] = False,
    config: Config = None,
) -> None:
    """Newest first."""
    from trainyard._run import status_name
    from trainyard._tail import one_line
    from trainyard.job.v1 import job_pb2

    with _told():
        clients = _workspace(config)._clients
        for found in clients.call(clients.jobs.ListRuns, job_pb2.ListRunsRequest(experiment=experiment, limit=limit)).runs:
            queued = found.queued_at.ToDatetime(UTC)
            if as_json:
                row = {
                    "runId": found.run_id,
                    "experiment": found.experiment,
                    "status": status_name(found.status),
                    "queuedAt": queued.isoformat(),
                }
                typer.echo(json.dumps({**row, "why": found.why}, ensure_ascii=False))
            else:
                line = f"{found.run_id:<44} {status_name(found.status):<13} {queued:%Y-%m-%d %H:%M:%S}  {found.why}"
                typer.echo(one_line(line))


def _run(config: str | None, run_id: str) -> Any:
    from trainyard._errors import RunNotFoundException
    from trainyard._experiment import Experiment
    from trainyard._run import Run
    from trainyard.job.v1 import job_pb2

    workspace = _workspace(config)
    message = workspace._clients.call(workspace._clients.jobs.GetRun, job_pb2.GetRunRequest(run_id=run_id), RunNotFoundException).run
    return Run(Experiment(workspace, message.experiment), run_id, _message=message)


@runs.command("show")
def run_show(run_id: str, config: Config = None) -> None:
    """Details, metrics and files, as JSON."""
    with _told():
        run = _run(config, run_id)
        shown = {**run.get_details(), "metrics": run.get_metrics(), "files": run.get_file_names()}
        typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))


@runs.command("cancel")
def run_cancel(run_id: str, reason: str = "", config: Config = None) -> None:
    """Ask a run to end."""
    with _told():
        run = _run(config, run_id)
        run.cancel(reason)
        typer.echo(f"{run_id}: {run.get_status()}")


@deadletters.command("list")
def deadletters_list(as_json: Annotated[bool, typer.Option("--json")] = False, config: Config = None) -> None:
    """All of them, oldest first, each under its number."""
    from trainyard._tail import one_line

    with _told():
        for number, letter in _letters(config):
            refused = letter.refused_at.ToDatetime(UTC)
            place = f"{letter.topic}/{letter.partition}@{letter.offset}"
            if as_json:
                row = {"number": number, "from": place, "service": letter.service, "error": letter.error, "refusedAt": refused.isoformat()}
                typer.echo(json.dumps(row, ensure_ascii=False))
            else:
                typer.echo(one_line(f"{number:>5}  {refused:%Y-%m-%d %H:%M:%S}  {place:<34} {letter.service:<10} {letter.error}"))


@deadletters.command("show")
def deadletters_show(number: int, config: Config = None) -> None:
    """One of them, whole."""
    with _told():
        letter = _letter(config, number)
        typer.echo(f"from     {letter.topic}, partition {letter.partition}, offset {letter.offset}")
        typer.echo(f"key      {letter.key!r}")
        for header in letter.headers:
            typer.echo(f"header   {header.name} = {header.value!r}")
        typer.echo(f"refused  {letter.refused_at.ToDatetime(UTC).isoformat()} by {letter.service}: {letter.error}")
        typer.echo(f"value    {len(letter.value)} bytes: {letter.value[:256]!r}")
        if letter.stack:
            typer.echo(letter.stack)


@deadletters.command("replay")
def deadletters_replay(number: int, config: Config = None) -> None:
    """Publish it once more as it came: same topic, key, headers and value."""
    from kafka import KafkaProducer

    with _told():
        letter = _letter(config, number)
        if len(letter.value) >= 512 << 10:
            raise UserErrorException(f"Dead letter {number} was cut to 512 KiB; it cannot be replayed.", target=str(number))
        producer = KafkaProducer(bootstrap_servers=_workspace(config)._events.bootstrap)
        try:
            headers = [(header.name, header.value) for header in letter.headers]
            placed = producer.send(letter.topic, key=letter.key or None, value=letter.value, headers=headers).get(timeout=30)
        finally:
            producer.close()
        typer.echo(f"published again: {letter.topic}, partition {placed.partition}, offset {placed.offset}")


def _letters(config: str | None) -> Iterator[tuple[int, Any]]:
    from trainyard.event.v1.dead_letter_pb2 import DeadLetter

    for record in _workspace(config)._events.read_all([DEAD_LETTERS]):
        if record.event is not None and isinstance(record.event.message, DeadLetter):
            yield record.offset, record.event.message


def _letter(config: str | None, number: int) -> Any:
    for found, letter in _letters(config):
        if found == number:
            return letter
    raise UserErrorException(f"There is no dead letter {number}.", target=str(number), hint="trainyard deadletters list")


def _stack(verb: str, arguments: list[str]) -> None:
    """The local stack comes with a checkout, not with the client."""
    environment = dict(os.environ)
    if find_spec("deploy") is None or find_spec("deploy.local") is None:
        checkout = Path(__file__).resolve().parents[2]
        if not (checkout / "deploy" / "local" / "__init__.py").is_file():
            typer.echo("The local stack is not installed here: run this from a checkout of Trainyard, or use `make up` there.", err=True)
            raise typer.Exit(1)
        environment["PYTHONPATH"] = os.pathsep.join([str(checkout), *filter(None, [environment.get("PYTHONPATH")])])
    raise typer.Exit(subprocess.run([sys.executable, "-m", "deploy.local", verb, *arguments], env=environment, check=False).returncode)


# --help too: the options are those of the local stack.
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(context_settings=_PASS_ON, add_help_option=False)
def up(context: typer.Context) -> None:
    """Start the local stack and write config.json."""
    _stack("up", context.args)


@app.command(context_settings=_PASS_ON, add_help_option=False)
def down(context: typer.Context) -> None:
    """Stop the local stack."""
    _stack("down", context.args)


@app.command(context_settings=_PASS_ON, add_help_option=False)
def status(context: typer.Context) -> None:
    """What of the local stack runs."""
    _stack("status", context.args)
