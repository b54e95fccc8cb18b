"""A run, as its submitter sees it. Loads with the standard library alone: scripts import Run for get_context()."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from trainyard._errors import TrainyardException
from trainyard._progress import Printer
from trainyard._run_files import RunFiles
from trainyard._run_status import status_name, statuses_named, type_of
from trainyard._services_of import checked_experiment, checked_name, clients_of
from trainyard._times import as_utc

if TYPE_CHECKING:
    from trainyard._context import ScriptRun
    from trainyard._experiment import Experiment
    from trainyard._offline import OfflineRun
    from trainyard._workspace import Workspace


def _descendants(workspace: Any, run_id: str, known: set[str], as_of: Any) -> Iterator[Any]:
    from trainyard._history import list_runs

    for child in list_runs(workspace, parent=run_id, as_of=as_of):
        if child.run_id not in known:
            known.add(child.run_id)
            yield child
            yield from _descendants(workspace, child.run_id, known, as_of)


def _fits(message: Any, tags: Mapping[str, str], properties: Mapping[str, str], statuses: list[int]) -> bool:
    has = all(
        name in found and value in ("", found[name])
        for wanted, found in ((tags, message.tags), (properties, message.properties))
        for name, value in wanted.items()
    )
    return has and (not statuses or message.status in statuses)


class Run(RunFiles):
    """One run: a submitted script, or one in its client's hands (start_logging, child_run).

    Run(experiment, run_id) and Run.get(workspace, run_id) find one that exists; RunNotFoundException where there is none.
    """

    def __init__(self, experiment: Experiment, run_id: str, *, _message: Any = None) -> None:
        super().__init__()
        self.experiment: Experiment = checked_experiment(experiment)
        self.id = checked_name("run_id", run_id)
        self._message = _message if _message is not None and _message.HasField("spec") else self._fetch()

    @staticmethod
    def get(workspace: Workspace, run_id: str) -> Run:
        """The run of that id, whatever its experiment. Raises RunNotFoundException."""
        from trainyard._errors import RunNotFoundException
        from trainyard._experiment import Experiment
        from trainyard.job.v1 import job_pb2

        clients = clients_of(workspace)
        request = job_pb2.GetRunRequest(run_id=checked_name("run_id", run_id))
        message = clients.call(clients.jobs.GetRun, request, RunNotFoundException).run
        return Run(Experiment(workspace, message.experiment), run_id, _message=message)

    def __repr__(self) -> str:
        return f"Run(experiment={self.experiment.name!r}, id={self.id!r}, status={self.status!r})"

    @staticmethod
    def get_context(allow_offline: bool = True, **_: Any) -> ScriptRun | OfflineRun:
        """The run that this script is part of; outside of one an OfflineRun, or RunEnvironmentException where allow_offline is False."""
        from trainyard import _context

        return _context.get_context(allow_offline=allow_offline)

    get_submitted_run = get_context

    @property
    def number(self) -> int:
        """Counts the experiment's runs from 1, children included."""
        return int(self._message.number)

    @property
    def type(self) -> str:
        """Azure's word for it: azureml.scriptrun where agents run a script, azureml.interactiverun where the client does the work."""
        return type_of(self._message)

    @property
    def display_name(self) -> str:
        """As given when it was made; its id where none was."""
        return str(self._message.display_name) or self.id

    @property
    def parent(self) -> Run | None:
        """The run that this one is a child of."""
        return Run(self.experiment, self._message.parent_run_id) if self._message.parent_run_id else None

    @property
    def status(self) -> str:
        """As `get_status()`."""
        return self.get_status()

    def get_status(self) -> str:
        """Asked of the scheduler anew: one of Queued, Provisioning, Preparing, Running, Finalizing, Completed, Failed, Canceled and others."""
        return status_name(self._refresh().status)

    @property
    def why(self) -> str:
        """The reason for its status, in words, asked anew; of a run that waits also what would let it start."""
        return str(self._refresh().why)

    @property
    def position(self) -> int | None:
        """Its place in its pool's queue, from 1, asked anew; None where it does not wait for nodes."""
        return int(self._refresh().position) or None

    def get_portal_url(self) -> str:
        """There is no web page yet: the command that shows the same."""
        return f"trainyard run show {self.id}"

    def get_details(self, *, as_of: Any = None) -> dict[str, Any]:
        """All about the run in Azure's shape. logFiles: name -> URL, good for an hour; of a log that is still written, its end as data.

        as_of, here and below: as it was at a datetime, an ISO time, so long ago ("1h") or a record of the log ("topic/partition@offset").
        """
        from trainyard import _details, _history, _logs, _moments

        then = _moments.as_of(as_of)
        view = _history.run_view(self.experiment.workspace, self.id, then)
        return _details.details(view, _logs.urls(self.experiment.workspace, view, then))

    def get_details_with_logs(self, *, as_of: Any = None) -> dict[str, Any]:
        """get_details(), with each log's text in the place of its URL."""
        from trainyard import _details, _history, _logs, _moments

        then = _moments.as_of(as_of)
        view = _history.run_view(self.experiment.workspace, self.id, then)
        return _details.details(view, _logs.texts(self.experiment.workspace, view, then))

    def get_detailed_status(self) -> dict[str, Any]:
        """{'status', 'details', 'position'}: the status, why it is so, in words, and the place in the queue, None where it does not wait."""
        run = self._refresh()
        return {"status": status_name(run.status), "details": run.why, "position": int(run.position) or None}

    def get_metrics(
        self,
        name: str | None = None,
        recursive: bool = False,
        run_type: str | None = None,
        *,
        rank: int | str | None = None,
        as_of: Any = None,
    ) -> dict[str, Any]:
        """All that was logged before the call, by name; after a re-queue, by the newest attempt only.

        One value is a scalar, several are a list; a row is a dict, several are a dict of lists. recursive: {run id: {...}} of the run
        and its descendants. Where several ranks logged a name, rank 0's values, or the lowest rank's that logged it; `rank`: that rank's
        alone, or "all": {rank: {name: ...}}. docs/clusters.md says how the values of several processes become one list.
        """
        from trainyard import _history, _metrics, _moments

        then = _moments.as_of(as_of)
        self.flush()
        ranks = _metrics.ranks_of(rank)
        found = _history.batches(self.experiment.workspace, self.id, name, recursive=recursive, ranks=ranks, as_of=then)
        shaped: Callable[..., dict[Any, Any]] = _metrics.by_rank if rank == "all" else _metrics.shaped
        by_run = {run_id: shaped(run_id, batches) for run_id, batches in found.items()}
        return by_run if recursive else by_run.get(self.id, {})

    def get_children(
        self,
        recursive: bool = False,
        tags: object = None,
        properties: object = None,
        type: str | None = None,  # noqa: A002 - as in Azure
        status: str | None = None,
        _rehydrate_runs: bool = True,
        *,
        as_of: Any = None,
    ) -> Iterator[Run]:
        """Child runs, newest first; with recursive each is followed by its own. Filters: a name, or a dict of names and values."""
        from trainyard import _history, _moments

        workspace = self.experiment.workspace
        then = _moments.as_of(as_of)
        chosen = _history.wanted(tags), _history.wanted(properties), statuses_named(status)
        if not recursive:
            found = _history.list_runs(workspace, parent=self.id, tags=chosen[0], properties=chosen[1], statuses=chosen[2], as_of=then)
        else:
            found = _descendants(workspace, self.id, {self.id}, then)
        for message in found:
            if not recursive or _fits(message, *chosen):
                child = type_of(message)
                if type is None or type == child:
                    yield Run(self.experiment, message.run_id, _message=message)

    def _since(self) -> datetime:
        from trainyard._watch import a_little_before

        return a_little_before(self._queued_at())

    def _queued_at(self) -> datetime:
        when: datetime = as_utc(self._message.queued_at)
        return when

    def cancel(self, reason: str = "") -> None:
        """Asks for its end, and its children's: a script gets TERM, then KILL. Returns at once; one that has ended stays as it is."""
        from trainyard.job.v1 import job_pb2

        self._tell("CancelRun", job_pb2.CancelRun(run_id=self.id, reason=reason))

    def wait_for_completion(
        self, show_output: bool = False, wait_post_processing: bool = False, raise_on_error: bool = True
    ) -> dict[str, Any]:
        """The run's details once it has ended, its outputs saved; show_output prints phases and every line as it is written.

        Raises ActivityFailedException, with the error as JSON, where it did not end as Completed. Ctrl-C ends the waiting, not the run.
        While history does not answer, the details come from the scheduler: without logFiles, and a warning says so.
        """
        try:
            self._watch(show_output)
        except KeyboardInterrupt:
            Printer(sys.stderr).line(f"The run goes on: {self.id}. End it with run.cancel() or `trainyard run cancel {self.id}`.", "note")
            raise
        if raise_on_error and self.get_status() != "Completed":
            from trainyard._details import failure

            raise failure(self._message)
        return self._details_at_end()

    def _details_at_end(self) -> dict[str, Any]:
        from trainyard import _details, _logs
        from trainyard._history import PATIENCE_AT_END, run_view
        from trainyard.history.v1.history_pb2 import RunView

        workspace = self.experiment.workspace
        try:
            view = run_view(workspace, self.id, patience=PATIENCE_AT_END)
            return _details.details(view, _logs.urls(workspace, view))
        except TrainyardException as error:
            found = _details.details(RunView(run=self._message), {})
            what = f"The logs and what else history knows are missing here: {error.message} Ask run.get_details() later."
            return {**found, "warnings": [*found.get("warnings", ()), {"source": "trainyard", "message": what}]}

    def _watch(self, show_output: bool) -> None:
        from trainyard import _watch
        from trainyard._show import Story

        story = Story(self.id, self.get_portal_url()) if show_output else None
        for news in _watch.follow(self.experiment.workspace, self.id, self._queued_at(), logs=show_output):
            if isinstance(news, _watch.Line):
                if story is not None:
                    story.output(news)
                continue
            self._message = news
            if story is not None:
                story.state(news)
        if story is not None:
            story.summary(self._message)
