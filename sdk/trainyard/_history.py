"""What the history service tells: runs, metrics and log lines, as they are now or as they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainyard._errors import RunNotFoundException, TrainyardException, from_rpc
from trainyard._moments import as_of as moment

if TYPE_CHECKING:
    from trainyard._workspace import Workspace

AsOf = Any
"""A datetime, an ISO time, a span back from now ("1h") or a record "topic/partition@offset"; None: now."""
_PAGE = 100
# Of a page; its bytes end it sooner.
_MOST_POINTS = 100_000
PATIENCE_AT_END = 15.0
"""Seconds that whoever waits for a run's end gives history to answer: longer than it takes to start anew."""


class LogNotFoundException(TrainyardException):
    """The run has no such log; the message lists those it has."""

    code = "LogNotFound"


def run_view(workspace: Workspace, run_id: str, as_of: AsOf = None, *, patience: float | None = None) -> Any:
    """A RunView with all that was written before the call. Raises RunNotFoundException; after `patience` seconds, that history is away."""
    from trainyard.history.v1 import history_pb2 as pb

    clients = workspace._clients
    request = pb.GetRunRequest(run_id=run_id, as_of=moment(as_of))
    return clients.call(clients.history.GetRun, request, RunNotFoundException, where="history", patience=patience).run


def files_of(workspace: Workspace, view: Any) -> list[Any]:
    """A RunView's Artifacts, sorted by path; a list too long for an event is read from the object store."""
    from trainyard._artifacts import is_listed, resolve

    if is_listed(view.run.outputs):
        return list(view.files)
    # An output goes before an upload of the same path, as everywhere.
    found = {file.path: file for file in (*view.files, *resolve(workspace._objects, view.run.outputs).files)}
    return [found[path] for path in sorted(found)]


def batches(
    workspace: Workspace,
    run_id: str,
    name: str | None = None,
    *,
    recursive: bool = False,
    as_of: AsOf = None,
    ranks: Sequence[int] | None = (),
) -> dict[str, list[Any]]:
    """MetricBatches of the newest attempt by run: the run first, then its descendants where they are asked for.

    ranks: only of these; none: of all; None: of each name the preferred rank's.
    """
    from trainyard.history.v1 import history_pb2 as pb

    clients = workspace._clients
    request = pb.GetMetricsRequest(
        run_id=run_id,
        name=name or "",
        recursive=recursive,
        as_of=moment(as_of),
        page_size=_MOST_POINTS,
        ranks=ranks,
        preferred_ranks=ranks is None,
    )
    found: dict[str, list[Any]] = {}
    while True:
        answer = clients.call(clients.history.GetMetrics, request, RunNotFoundException, where="history")
        for run in answer.runs:
            found.setdefault(run.run_id, []).extend(run.batches)
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token


def list_runs(
    workspace: Workspace,
    *,
    experiment: str = "",
    parent: str = "",
    roots_only: bool = False,
    statuses: Sequence[int] = (),
    tags: Mapping[str, str] | None = None,
    properties: Mapping[str, str] | None = None,
    text: str = "",
    as_of: AsOf = None,
) -> Iterator[Any]:
    """Runs without spec and outputs, newest first, a page at a time as they are asked for. An empty value asks for the name alone."""
    from trainyard.history.v1 import history_pb2 as pb

    clients = workspace._clients
    request = pb.ListRunsRequest(
        experiment=experiment,
        parent_run_id=parent,
        roots_only=roots_only,
        statuses=list(statuses),  # type: ignore[arg-type]  # numbers are as good as names
        tags=dict(tags or {}),
        properties=dict(properties or {}),
        text=text,
        page_size=_PAGE,
        as_of=moment(as_of),
    )
    while True:
        answer = clients.call(clients.history.ListRuns, request, where="history")
        yield from answer.runs
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def experiment_names(workspace: Workspace, as_of: AsOf = None) -> Iterator[str]:
    """Those with a run, by name."""
    from trainyard.history.v1 import history_pb2 as pb

    clients = workspace._clients
    request = pb.ListExperimentsRequest(page_size=1000, as_of=moment(as_of))
    while True:
        answer = clients.call(clients.history.ListExperiments, request, where="history")
        yield from (found.name for found in answer.experiments)
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def log_lines(
    workspace: Workspace,
    run_id: str,
    log: str = "",
    *,
    rank: int = 0,
    first_line: int = 0,
    contains: str = "",
    follow: bool = False,
    seconds: float | None = None,
    as_of: AsOf = None,
) -> Iterator[tuple[int, str]]:
    """(number, text) of a log, of its newest attempt. Raises LogNotFoundException, which names the logs that there are, and
    PlatformUnavailableException where all of it has not come after `seconds`."""
    import grpc

    from trainyard.history.v1 import history_pb2 as pb

    request = pb.ReadLogRequest(
        run_id=run_id, log=log, rank=rank, first_line=first_line, contains=contains, follow=follow, as_of=moment(as_of)
    )
    try:
        for answer in workspace._clients.history.ReadLog(request, timeout=seconds):
            yield from ((line.number, line.text) for line in answer.lines)
    except grpc.RpcError as error:
        raise from_rpc(error, LogNotFoundException, "history") from error


def rebuild(workspace: Workspace) -> Iterator[tuple[int, int]]:
    """(events applied, of how many) as it goes; returns once the new database has taken the place of the old one."""
    import grpc

    from trainyard.history.v1 import history_pb2 as pb

    try:
        for step in workspace._clients.history.RebuildHistory(pb.RebuildHistoryRequest()):
            yield int(step.events), int(step.of)
    except grpc.RpcError as error:
        raise from_rpc(error, TrainyardException, "history") from error


def wanted(given: object) -> dict[str, str]:
    """Tags or properties as a filter: a name, or a mapping of names to values."""
    if not given:
        return {}
    if isinstance(given, Mapping):
        return {str(name): str(value) for name, value in given.items()}
    return {str(given): ""}
