"""What a client tells the platform about a run: labels, files, metrics, children, its end. Loads with the standard library alone."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard._errors import RunNotFoundException, UserErrorException
from trainyard._live import LiveRun, Upload, copy_source
from trainyard._logger import Point, complain
from trainyard._progress import Printer

if TYPE_CHECKING:
    from trainyard._experiment import Experiment

_SHOW_AFTER_SECONDS = 1.0


def new_run_id(experiment: str, now: float) -> str:
    """`<experiment>_<epoch seconds>_<8 hex>`. Made here, so that a repeated request names the same run."""
    return f"{experiment}_{int(now)}_{secrets.token_hex(4)}"


class ClientRun(LiveRun):
    """`_message` is the run as it was last seen."""

    experiment: Experiment
    _message: Any
    _outputs: Path | None = None
    """A folder to be uploaded at the end of a run that start_logging made."""

    def _fetch(self) -> Any:
        from trainyard.job.v1 import job_pb2

        clients = self.experiment.workspace._clients
        return clients.call(clients.jobs.GetRun, job_pb2.GetRunRequest(run_id=self.id), RunNotFoundException).run

    def _attempt(self) -> Any:
        """The run with its newest attempt. One that has ended, and one in its client's hands, is not asked for: what counts here does not change."""
        from trainyard._watch import is_terminal

        if not is_terminal(self._message.status) and not self._message.opened:
            self._message = self._fetch()
        return self._message

    def _tell(self, method: str, request: Any) -> None:
        clients = self.experiment.workspace._clients
        self._message = clients.call(getattr(clients.jobs, method), request, UserErrorException).run

    def _label(self, tags: Mapping[str, str], removed: Sequence[str]) -> None:
        from trainyard.job.v1 import job_pb2

        self._tell("TagRun", job_pb2.TagRun(run_id=self.id, set=tags, removed=removed))

    def _add_properties(self, properties: Mapping[str, str]) -> None:
        from trainyard.job.v1 import job_pb2

        self._tell("AddRunProperties", job_pb2.AddRunProperties(run_id=self.id, properties=properties))

    def _labels(self) -> tuple[dict[str, str], dict[str, str]]:
        self._message = run = self._fetch()
        own = {"ContentSnapshotId": run.spec.source.snapshot.id}
        if not run.opened:
            own["_azureml.ComputeTargetType"] = "AmlCompute"
        return dict(run.tags), {name: value for name, value in own.items() if value} | dict(run.properties)

    # -- metrics and files

    def _emit(self, point: Point) -> None:
        from trainyard._metric_sender import sender_of

        # Of a script's run only the newest attempt's metrics count, and which that is may have changed since it was looked at.
        sender_of(self.experiment.workspace).put(self.id, int(self._attempt().epoch), point)

    def flush(self, timeout_seconds: float = 300.0) -> None:
        """Returns when all that was logged here lies in the platform's log, or after the time."""
        from trainyard._metric_sender import sender_of

        if not sender_of(self.experiment.workspace).flush(timeout_seconds):
            complain(f"what was logged is not in the log after {timeout_seconds:g} s")

    def _attach(self, path: str, content: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="trainyard-") as folder:
            file = Path(folder) / "content"
            file.write_bytes(content)
            self._upload([(path, str(file))])

    def _upload(self, uploads: Sequence[Upload]) -> None:
        from concurrent.futures import ThreadPoolExecutor

        from trainyard._uploads import put
        from trainyard.event.v1.artifact_pb2 import ArtifactSet
        from trainyard.job.v1 import job_pb2

        objects = self.experiment.workspace._objects
        with tempfile.TemporaryDirectory(prefix="trainyard-") as folder, ThreadPoolExecutor(8) as pool:

            def one(number: int, upload: Upload) -> Any:
                copy = Path(folder) / str(number)
                copy_source(upload[1], copy)
                try:
                    return put(objects, self.id, upload[0], copy)
                finally:
                    copy.unlink()

            waiting = [pool.submit(one, number, upload) for number, upload in enumerate(uploads)]
            progress = _Progress(len(waiting))
            files: dict[str, Any] = {}
            for done in waiting:
                artifact = done.result()
                files[artifact.path] = artifact
                progress.one_more()
        progress.end()
        self._refuse_changes(files)
        listed = [files[path] for path in sorted(files)]
        for start in range(0, len(listed), 2000):
            some = ArtifactSet(files=listed[start : start + 2000])
            self._tell("AddRunFiles", job_pb2.AddRunFiles(run_id=self.id, files=some))

    def _refuse_changes(self, files: Mapping[str, Any]) -> None:
        """The scheduler knows what the run has, but for a list of outputs that lies in the object store."""
        from trainyard._artifacts import is_listed, resolve

        outputs = self._attempt().outputs
        if is_listed(outputs):
            return
        known = {file.path: file.sha256 for file in resolve(self.experiment.workspace._objects, outputs).files}
        for path, file in sorted(files.items()):
            if known.get(path, file.sha256) != file.sha256:
                what = f"Run {self.id} has a file {path!r} with other content; files of a run never change."
                raise UserErrorException(what, code="PathIsTaken", target=path)

    # -- children and the end

    def _open_children(self, names: Sequence[str], tags: Sequence[Mapping[str, str]]) -> list[Any]:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(self._open_child, names, tags))

    def _open_child(self, name: str, tags: Mapping[str, str]) -> Any:
        from trainyard.job.v1 import job_pb2

        experiment = self.experiment.name
        request = job_pb2.OpenRun(
            submission_id=new_run_id(experiment, time.time()),
            experiment=experiment,
            parent_run_id=self.id,
            tags=tags,
            display_name=name,
        )
        clients = self.experiment.workspace._clients
        answer = clients.call(clients.jobs.OpenRun, request, UserErrorException)
        return type(self)(self.experiment, answer.run.run_id, _message=answer.run)  # type: ignore[call-arg]

    def _close(self, status: str, failure: Mapping[str, Any] | None) -> None:
        from trainyard.event.v1.artifact_pb2 import Failure
        from trainyard.job.v1 import job_pb2

        if self._outputs is not None and self._outputs.is_dir():
            self.upload_folder("outputs", self._outputs)
        number: Any = job_pb2.RunStatus.Value(f"RUN_STATUS_{status}")
        why = Failure(**failure) if failure else None
        self._tell("CloseRun", job_pb2.CloseRun(run_id=self.id, status=number, failure=why))


class _Progress:
    """Of an upload that takes longer than a second, a line every second."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._shown_at = time.monotonic()
        self._shown = False

    def one_more(self) -> None:
        self._done += 1
        if time.monotonic() - self._shown_at >= _SHOW_AFTER_SECONDS:
            self._shown_at, self._shown = time.monotonic(), True
            Printer().line(f"Uploaded {self._done} of {self._total} files", "dim")

    def end(self) -> None:
        if self._shown:
            Printer().line(f"Uploaded {self._total} files", "dim")
