"""`trainyard run`: list, show, follow and steer runs. Submitting is in runs_submit.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from trainyard._cli import completion, exits, runs_steer, runs_submit
from trainyard._cli.common import (
    All,
    AsOf,
    Config,
    Json,
    Limit,
    RunId,
    Since,
    TagFilter,
    Token,
    as_of,
    moment,
    new_group,
    page_of,
    paged,
    pairs,
    stream,
    workspace,
    wrong,
)
from trainyard._cli.output import emit, note, one, rows, say, size
from trainyard._cli.shapes import attempt_line, file_row, point_row, run_row, run_view
from trainyard._errors import RunNotFoundException, TrainyardException
from trainyard._text import shown_line
from trainyard._values import value_of

group = new_group("Runs: submit, list, show, follow, download, cancel, tag.")
group.command("submit")(runs_submit.submit)
_LIST_COLUMNS = ("runId", "status", "position", "queuedAt", "why")
_RECONNECTS = 20
# Each place is a question to the scheduler.
_PLACES, _PATIENCE_SECONDS = 200, 2.0


@group.command("list")
def run_list(
    experiment: Annotated[str, typer.Option(help="only this experiment's", autocompletion=completion.experiments)] = "",
    status: Annotated[list[str] | None, typer.Option(help="only in this status, e.g. Running; may be repeated")] = None,
    tag: TagFilter = None,
    text: Annotated[str, typer.Option(help="only with this text in the id or display name")] = "",
    since: Since = "",
    roots_only: Annotated[bool, typer.Option("--roots-only", help="no children")] = False,
    at: AsOf = "",
    limit: Limit = 20,
    page_token: Token = "",
    everything: All = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Newest first."""
    from trainyard.history.v1 import history_pb2

    _listed(
        history_pb2.ListRunsRequest(
            experiment=experiment, roots_only=roots_only, statuses=_statuses(status), tags=pairs(tag, "--tag", bare=True), text=text
        ),
        since, at, limit, page_token, everything, as_json, config,
    )  # fmt: skip


@group.command("children")
def run_children(
    run_id: RunId,
    status: Annotated[list[str] | None, typer.Option(help="only in this status; may be repeated")] = None,
    tag: TagFilter = None,
    since: Since = "",
    at: AsOf = "",
    limit: Limit = 20,
    page_token: Token = "",
    everything: All = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """The children of a run, newest first."""
    from trainyard.history.v1 import history_pb2

    request = history_pb2.ListRunsRequest(parent_run_id=run_id, statuses=_statuses(status), tags=pairs(tag, "--tag", bare=True))
    _listed(request, since, at, limit, page_token, everything, as_json, config)


def _listed(request: Any, since: str, at: str, limit: int, token: str, everything: bool, as_json: bool, config: str | None) -> None:
    clients = workspace(config)._clients
    if (then := as_of(at)) is not None:
        request.as_of.CopyFrom(then)
    earliest = moment(since, "--since").timestamp() if since else None

    def fetch(number: int, page: str) -> tuple[Any, str]:
        request.page_size, request.page_token = number, page
        answer = clients.call(clients.history.ListRuns, request, RunNotFoundException)
        return answer.runs, answer.next_page_token

    def too_old(run: Any) -> bool:
        return earliest is not None and run.queued_at.seconds + run.queued_at.nanos / 1e9 < earliest

    found = paged(fetch, limit=limit, token=token, everything=everything, stop=too_old)
    shown = found if at else _placed(clients, found)
    rows((run_row(run) for run in shown), _LIST_COLUMNS, as_json=as_json)


def _placed(clients: Any, runs: Iterable[Any]) -> Iterator[Any]:
    """Those that wait with their places and reasons, which the scheduler alone knows; without, once it does not answer."""
    from trainyard.job.v1 import job_pb2

    left = _PLACES
    for run in runs:
        # Of history's own it is the one that was told last.
        run.position = 0
        if left and run.status in (job_pb2.RUN_STATUS_QUEUED, job_pb2.RUN_STATUS_PROVISIONING):
            try:
                now = clients.call(clients.jobs.GetRun, job_pb2.GetRunRequest(run_id=run.run_id), patience=_PATIENCE_SECONDS).run
                run.position, run.why, left = now.position, now.why or run.why, left - 1
            except TrainyardException:
                left = 0
        yield run


def _statuses(given: list[str] | None) -> list[Any]:
    from trainyard._run_status import STATUS_NAMES
    from trainyard.job.v1 import job_pb2

    wanted = {name.lower() for name in given or ()}
    known = {name.lower() for name in STATUS_NAMES.values()}
    if unknown := wanted - known:
        listed = ", ".join(sorted(set(STATUS_NAMES.values())))
        raise wrong(f"There is no status {sorted(unknown)[0]!r}; there is: {listed}.", "--status")
    return [job_pb2.RunStatus.Value(f"RUN_STATUS_{key}") for key, name in STATUS_NAMES.items() if name.lower() in wanted]


def _view(clients: Any, run_id: str, at: str = "") -> Any:
    from trainyard.history.v1 import history_pb2

    return clients.call(clients.history.GetRun, history_pb2.GetRunRequest(run_id=run_id, as_of=as_of(at)), RunNotFoundException).run


def _whole_view(space: Any, run_id: str, at: str) -> Any:
    """With every file, those too that an event had no room to list."""
    from trainyard._history import files_of

    view = _view(space._clients, run_id, at)
    files = files_of(space, view)
    del view.files[:]
    view.files.extend(files)
    return view


def _points(clients: Any, run_id: str, **fields: Any) -> Any:
    """Points, page by page."""
    from trainyard.history.v1 import history_pb2

    request = history_pb2.GetMetricsRequest(run_id=run_id, **fields)
    while True:
        answer = clients.call(clients.history.GetMetrics, request, RunNotFoundException)
        for group in answer.runs:
            for batch in group.batches:
                yield from batch.points
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


@group.command("show")
def run_show(run_id: RunId, at: AsOf = "", as_json: Json = False, config: Config = None) -> None:
    """All that is known of a run, now or as of a time: status and why, metrics, files, logs, children, failure."""
    space = workspace(config)
    clients = space._clients
    view = _whole_view(space, run_id, at)
    if not at:
        list(_placed(clients, [view.run]))
    points = _points(clients, run_id, as_of=as_of(at), preferred_ranks=True)
    shown = run_view(view, {point.name: value_of(point) for point in points})
    if not as_json:
        if "\n" in shown.get("error", {}).get("message", ""):
            # They stand in the message.
            shown["error"].pop("lastLines", None)
        shown["attempts"] = [attempt_line(attempt) for attempt in shown["attempts"]]
        shown["files"] = [f"{file.path} ({size(file.size_bytes)})" for file in view.files[:20]]
        shown["files"] += [f"and {len(view.files) - 20} more: trainyard run files {run_id}"] if len(view.files) > 20 else []
        shown.pop("spec", None)
        shown.pop("metricNames")
        shown = {name: value for name, value in shown.items() if value not in (None, "", [], {})}
    one(shown, as_json=as_json)


@group.command("logs")
def run_logs(
    run_id: RunId,
    log: Annotated[str, typer.Option(help="name of the log; `trainyard run show` lists them; the rank's output by default")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until the log ends")] = False,
    rank: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="whose output")] = 0,
    epoch: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="attempt; 0 = the newest")] = 0,
    contains: Annotated[str, typer.Option(help="only lines with this text, any case")] = "",
    first_line: Annotated[int, typer.Option(min=0, help="from this line on, counted from 0")] = 0,
    limit: Annotated[int, typer.Option(min=0, help="at most so many lines; 0 = all")] = 0,
    at: AsOf = "",
    as_json: Json = False,
    config: Config = None,
) -> None:
    """A run's output, line by line as it was written; with --as-of what was written by then."""
    from trainyard.history.v1 import history_pb2

    if follow and at:
        raise wrong("A log as it was does not go on: leave --follow out, or --as-of.", "--follow")
    clients = workspace(config)._clients
    request = history_pb2.ReadLogRequest(
        run_id=run_id,
        log=log,
        rank=rank,
        epoch=epoch,
        first_line=first_line,
        most_lines=limit,
        follow=follow,
        contains=contains,
        as_of=as_of(at),
    )
    tries, attempt, given = _RECONNECTS, 0, 0
    while True:
        try:
            for answer in stream(clients.history.ReadLog(request), RunNotFoundException):
                tries = _RECONNECTS
                if attempt and answer.epoch != attempt:
                    note(f"[attempt {answer.epoch}]")
                attempt = answer.epoch
                for line in answer.lines:
                    request.first_line, given = line.number + 1, given + 1
                    if as_json:
                        emit({"line": int(line.number), "text": line.text, "log": log, "rank": rank, "epoch": attempt})
                    else:
                        say(shown_line(line.text))
            return
        except TrainyardException as error:
            if exits.of(error) is not exits.Exit.UNAVAILABLE or not follow or not tries or (limit and given >= limit):
                raise
        # History was restarted, and the run perhaps as well: its newer attempt is read from its first line.
        tries -= 1
        newest = max((it.epoch for it in _view(clients, run_id).logs if (it.log, it.rank) == (log, rank)), default=attempt)
        if not epoch and newest > attempt:
            request.first_line = 0
        request.most_lines = limit - given if limit else 0


@group.command("metrics")
def run_metrics(
    run_id: RunId,
    name: Annotated[str, typer.Option(help="only this metric")] = "",
    rank: Annotated[list[int] | None, typer.Option(help="only of this rank; may be repeated")] = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="its descendants' too")] = False,
    since: Since = "",
    at: AsOf = "",
    limit: Limit = 1000,
    page_token: Token = "",
    everything: All = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """What a run logged, oldest first."""
    from trainyard.history.v1 import history_pb2

    clients = workspace(config)._clients
    earliest = moment(since, "--since").timestamp() if since else 0.0

    def fetch(number: int, page: str) -> tuple[Any, str]:
        request = history_pb2.GetMetricsRequest(
            run_id=run_id, name=name, ranks=rank or [], recursive=recursive, page_size=number, page_token=page, as_of=as_of(at)
        )
        answer = clients.call(clients.history.GetMetrics, request, RunNotFoundException)
        batches = [batch for group in answer.runs for batch in group.batches]
        return [(batch, point) for batch in batches for point in batch.points], answer.next_page_token

    found = paged(
        fetch, limit=limit, token=page_token, everything=everything,
        keep=lambda pair: pair[1].logged_at.seconds + pair[1].logged_at.nanos / 1e9 >= earliest,
    )  # fmt: skip
    rows((point_row(*pair) for pair in found), ("name", "value", "step", "rank", "loggedAt"), as_json=as_json)


@group.command("files")
def run_files(
    run_id: RunId,
    prefix: Annotated[str, typer.Option(help="only below this path")] = "",
    at: AsOf = "",
    limit: Limit = 1000,
    page_token: Token = "",
    everything: All = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """What a run has left behind, by path; bytes."""
    view = _whole_view(workspace(config), run_id, at)
    files = [file_row(file) for file in view.files if file.path.startswith(prefix)]
    page = page_of(files, lambda row: str(row["path"]), limit=limit, token=page_token, everything=everything)
    rows(page, ("bytes", "path"), as_json=as_json)


for _name, _command in (
    ("download", runs_steer.run_download),
    ("cancel", runs_steer.run_cancel),
    ("tag", runs_steer.run_tag),
    ("wait", runs_steer.run_wait),
):
    group.command(_name)(_command)
