"""`trainyard run download | cancel | tag | wait`: fetching from runs and steering them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trainyard._cli import exits
from trainyard._cli.common import Config, Json, RunId, pairs, workspace
from trainyard._cli.output import emit, one, say
from trainyard._cli.shapes import failure, run_row
from trainyard._errors import RunNotFoundException, TrainyardException


def run_download(
    run_id: RunId,
    prefix: Annotated[str, typer.Argument(help="a file, or all below this path", show_default=False)] = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write to")] = Path(),
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Its files, checked against their digests."""
    run = run_of(config, run_id)
    chosen = [
        name
        for name in run.get_file_names()
        if name == prefix or name.startswith(prefix if not prefix or prefix.endswith("/") else f"{prefix}/")
    ]
    if not chosen:
        raise TrainyardException(
            f"Run {run_id} has no file {prefix!r}.", code="FileNotFound", target=prefix, hint=f"trainyard run files {run_id}"
        )
    if chosen == [prefix]:
        target = output / prefix.rpartition("/")[2]
        run.download_file(prefix, str(target))
    else:
        run.download_files(prefix=f"{prefix.rstrip('/')}/" if prefix else None, output_directory=str(output))
    one({"runId": run_id, "files": len(chosen), "folder": str(output)}, as_json=as_json)


def run_cancel(
    run_id: RunId,
    reason: Annotated[str, typer.Option(help="why, for the record")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="return once it has ended")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Ask a run to end."""
    from trainyard.job.v1 import job_pb2

    space = workspace(config)
    clients = space._clients
    run = clients.call(clients.jobs.CancelRun, job_pb2.CancelRun(run_id=run_id, reason=reason), RunNotFoundException).run
    if wait:
        run = _ended(space, run_id)
    one({"runId": run_id, "status": run_row(run)["status"]}, as_json=as_json)


def run_tag(
    run_id: RunId,
    tags: Annotated[list[str] | None, typer.Argument(help="NAME or NAME=VALUE ...", show_default=False)] = None,
    remove: Annotated[list[str] | None, typer.Option(help="take this tag off; may be repeated")] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Set and remove tags; without either, show them."""
    from trainyard.job.v1 import job_pb2

    clients = workspace(config)._clients
    if not tags and not remove:
        from trainyard.history.v1 import history_pb2

        asked = history_pb2.GetRunRequest(run_id=run_id)
        found = clients.call(clients.history.GetRun, asked, RunNotFoundException).run.run.tags
    else:
        request = job_pb2.TagRun(run_id=run_id, set=pairs(tags, "TAGS", bare=True), removed=remove or [])
        found = clients.call(clients.jobs.TagRun, request, RunNotFoundException).run.tags
    one(dict(found), as_json=as_json)


def run_wait(
    run_id: RunId,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no output but the end")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Until it has ended, showing its phases and output. Exit code 4 where it ended badly."""
    wait_for(run_of(config, run_id), quiet=quiet, as_json=as_json)


def wait_for(run: Any, *, quiet: bool, as_json: bool) -> None:
    """Raises typer.Exit with code 4 where the run ended badly."""
    run.wait_for_completion(show_output=not quiet and not as_json, raise_on_error=False)
    from trainyard.job.v1 import job_pb2

    clients = run.experiment.workspace._clients
    found = clients.call(clients.jobs.GetRun, job_pb2.GetRunRequest(run_id=run.id), RunNotFoundException).run
    shown = {**run_row(found), **({"error": failure(found.failure)} if found.HasField("failure") else {})}
    if as_json:
        emit(shown)
    elif quiet:
        say(f"{run.id}: {shown['status']}")
    if shown["status"] != "Completed":
        raise typer.Exit(exits.Exit.RUN_FAILED)


def _ended(space: Any, run_id: str) -> Any:
    from trainyard._watch import states

    run = None
    for run in states(space, run_id):  # noqa: B007 - the last one counts
        pass
    return run


def run_of(config: str | None, run_id: str) -> Any:
    """The SDK's object. Raises RunNotFoundException."""
    from trainyard._experiment import Experiment
    from trainyard._run import Run
    from trainyard.job.v1 import job_pb2

    space = workspace(config)
    message = space._clients.call(space._clients.jobs.GetRun, job_pb2.GetRunRequest(run_id=run_id), RunNotFoundException).run
    return Run(Experiment(space, message.experiment), run_id, _message=message)
