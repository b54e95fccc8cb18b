"""A run, as its submitter sees it. Loads with the standard library alone: scripts import Run for get_context()."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard._errors import ActivityFailedException, UserErrorException, from_failure

if TYPE_CHECKING:
    from trainyard._experiment import Experiment
    from trainyard._model import Model, ResourceConfiguration

STATUS_NAMES = {
    "QUEUED": "Queued",
    "PROVISIONING": "Provisioning",
    "PREPARING": "Preparing",
    "RUNNING": "Running",
    "FINALIZING": "Finalizing",
    "COMPLETED": "Completed",
    "FAILED": "Failed",
    "CANCELED": "Canceled",
    "CANCEL_REQUESTED": "CancelRequested",
    "NOT_RESPONDING": "NotResponding",
    "REJECTED": "Failed",
}
METRICS_TOPIC = "trainyard.metrics"


def status_name(number: int) -> str:
    from trainyard.job.v1 import job_pb2

    return STATUS_NAMES.get(job_pb2.RunStatus.Name(number).removeprefix("RUN_STATUS_"), "NotStarted")


class Run:
    def __init__(self, experiment: Experiment, run_id: str, *, _message: Any = None) -> None:
        self.experiment = experiment
        self.id = run_id
        self._message = _message if _message is not None and _message.HasField("spec") else self._fetch()

    def __repr__(self) -> str:
        return f"Run(experiment={self.experiment.name!r}, id={self.id!r}, status={self.status!r})"

    @staticmethod
    def get_context(allow_offline: bool = True, **_: Any) -> Any:
        """The run that this script is part of."""
        from trainyard import _context

        return _context.get_context(allow_offline=allow_offline)

    get_submitted_run = get_context

    def _fetch(self) -> Any:
        from trainyard._errors import RunNotFoundException
        from trainyard.job.v1 import job_pb2

        clients = self.experiment.workspace._clients
        return clients.call(clients.jobs.GetRun, job_pb2.GetRunRequest(run_id=self.id), RunNotFoundException).run

    def _refresh(self) -> Any:
        from trainyard._watch import is_terminal

        if not is_terminal(self._message.status):
            self._message = self._fetch()
        return self._message

    @property
    def run_id(self) -> str:
        return self.id

    @property
    def number(self) -> int:
        return int(self._message.number)

    @property
    def type(self) -> str:
        return "azureml.scriptrun"

    @property
    def parent(self) -> None:
        return None

    @property
    def status(self) -> str:
        return self.get_status()

    @property
    def tags(self) -> dict[str, str]:
        return dict(self._message.spec.tags)

    @property
    def properties(self) -> dict[str, str]:
        spec = self._message.spec
        found = {"ContentSnapshotId": spec.source.snapshot.id, "_azureml.ComputeTargetType": "AmlCompute"}
        return {name: value for name, value in found.items() if value}

    def get_status(self) -> str:
        return status_name(self._refresh().status)

    def get_tags(self) -> dict[str, str]:
        return self.tags

    def get_properties(self) -> dict[str, str]:
        return self.properties

    def get_portal_url(self) -> str:
        """There is no web page yet: the command that shows the same."""
        return f"trainyard run show {self.id}"

    def get_details(self) -> dict[str, Any]:
        from trainyard._details import details

        return details(self._refresh())

    def get_metrics(self, name: str | None = None, recursive: bool = False) -> dict[str, Any]:
        """All that was logged up to now; after a re-queue, by the newest attempt only."""
        from trainyard import _metrics
        from trainyard.job.v1 import telemetry_pb2

        records = self.experiment.workspace._events.read_all([METRICS_TOPIC], key=self.id, since=self._since())
        batches = [
            record.event.message
            for record in records
            if record.event is not None and isinstance(record.event.message, telemetry_pb2.MetricBatch)
        ]
        found = _metrics.fold(batches)
        if name is not None:
            found = {name: found[name]} if name in found else {}
        return {self.id: found} if recursive else found

    def _since(self) -> datetime:
        from trainyard._watch import _CLOCK_SLACK

        return self._queued_at() - _CLOCK_SLACK

    def _queued_at(self) -> datetime:
        when: datetime = self._message.queued_at.ToDatetime(UTC)
        return when

    def _files(self) -> dict[str, Any]:
        return {file.path: file for file in self._refresh().outputs.files}

    def get_file_names(self) -> list[str]:
        return sorted(self._files())

    def download_file(self, name: str, output_file_path: str | None = None) -> None:
        """Checked against its digest. Into output_file_path (a file, or an existing folder), else under its last name here."""
        files = self._files()
        if name not in files:
            raise UserErrorException(f"Run {self.id} has no file {name!r}; its files are: {_listed(files)}.", target=name)
        target = Path(output_file_path) if output_file_path else Path(Path(name).name)
        if target.is_dir() or str(output_file_path or "").endswith("/"):
            target = target / Path(name).name
        self._download(files[name], target)

    def download_files(
        self,
        prefix: str | None = None,
        output_directory: str | None = None,
        output_paths: list[str] | None = None,
        append_prefix: bool = True,
    ) -> None:
        """Everything below prefix; append_prefix=False leaves the prefix out of the local paths."""
        from concurrent.futures import ThreadPoolExecutor

        from trainyard._paths import safe_relpath

        chosen = [(path, file) for path, file in sorted(self._files().items()) if not prefix or path.startswith(prefix)]
        if output_paths is not None and len(output_paths) != len(chosen):
            raise UserErrorException(
                f"output_paths names {len(output_paths)} files, {len(chosen)} match {prefix!r}.", target="output_paths"
            )
        folder = Path(output_directory or ".")
        targets: list[Path] = []
        for index, (path, _) in enumerate(chosen):
            local = path if append_prefix or not prefix else path[len(prefix) :].lstrip("/") or Path(path).name
            targets.append(folder / (output_paths[index] if output_paths is not None else safe_relpath(local)))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda pair: self._download(pair[0][1], pair[1]), zip(chosen, targets, strict=True)))

    def _download(self, artifact: Any, target: Path) -> None:
        from trainyard._details import fetch

        fetch(self.experiment.workspace._objects, artifact, target)

    def cancel(self, reason: str = "") -> None:
        from trainyard.job.v1 import job_pb2

        clients = self.experiment.workspace._clients
        self._message = clients.call(clients.jobs.CancelRun, job_pb2.CancelRun(run_id=self.id, reason=reason)).run

    def wait_for_completion(
        self, show_output: bool = False, wait_post_processing: bool = False, raise_on_error: bool = True
    ) -> dict[str, Any]:
        """The run's details once it has ended; shows phases and every line as it is written."""
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
        if raise_on_error and self.get_status() != "Completed":
            raise self._failure()
        return self.get_details()

    def _failure(self) -> ActivityFailedException:
        run = self._message
        if run.HasField("failure"):
            error = from_failure(run.failure, ActivityFailedException, f"Run {self.id} failed.", fixed=True)
            assert isinstance(error, ActivityFailedException)
            return error
        return ActivityFailedException(
            f"Run {self.id} ended as {self.get_status()}: {run.why or 'no reason was given'}", code=self.get_status()
        )

    def register_model(
        self,
        model_name: str,
        model_path: str | None = None,
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        model_framework: str | None = None,
        model_framework_version: str | None = None,
        description: str | None = None,
        datasets: Sequence[Any] | None = None,
        resource_configuration: ResourceConfiguration | None = None,
        **_: Any,
    ) -> Model:
        """A file or folder of this run's artifacts as a new version; a path that is not there raises ModelPathNotFoundException."""
        import uuid

        from trainyard._model import Model
        from trainyard._model_find import dataset_refs
        from trainyard.model.v1 import model_pb2

        request = model_pb2.RegisterModelVersion(
            submission_id=uuid.uuid4().hex,
            model=model_name,
            run_id=self.id,
            path=model_path or model_name,
            framework=model_framework or "",
            framework_version=model_framework_version or "",
            description=description or "",
            tags=dict(tags or {}),
            properties=dict(properties or {}),
        )
        if resource_configuration is not None:
            request.requirements.CopyFrom(resource_configuration._to_message())
        request.datasets.extend(dataset_refs(datasets))
        workspace = self.experiment.workspace
        answer = workspace._clients.call(workspace._clients.models.RegisterModelVersion, request)
        return Model._from_message(workspace, answer.version)


def _listed(files: Mapping[str, Any]) -> str:
    names = sorted(files)
    return (", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")) or "none"
