"""Experiments: names under which runs are kept."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard._client_run import new_run_id
from trainyard._errors import ExperimentExecutionException, UserErrorException
from trainyard._lineage import framework_of
from trainyard._run import Run
from trainyard._scheduling import login_name
from trainyard._script_source import refuse_shadows
from trainyard._services_of import checked_workspace
from trainyard._texts import texts

if TYPE_CHECKING:
    from trainyard._estimator import Estimator
    from trainyard._script_run_config import ScriptRunConfig
    from trainyard._workspace import Workspace

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,107}\Z")


class Experiment:
    """A name in a workspace under which runs are kept, made by its first run.

    name: a letter or digit, then letters, digits, - and _, at most 108. Raises UserErrorException for any other.
    """

    def __init__(self, workspace: Workspace, name: str) -> None:
        if not isinstance(name, str) or not _NAME.match(name):
            raise UserErrorException(
                f"An experiment's name is a letter or digit, then letters, digits, - and _, at most 108 in all; {name!r} is none.",
                target=name,
            )
        self.workspace: Workspace = checked_workspace(workspace)
        self.name = name

    def __repr__(self) -> str:
        return f"Experiment(name={self.name!r})"

    def submit(self, config: Estimator | ScriptRunConfig, tags: Mapping[str, str] | None = None, *, display_name: str = "") -> Run:
        """Sends the source folder, then the request; returns as soon as the scheduler has taken it.

        The folder's git state becomes properties of the run: azureml.git.* and mlflow.source.git.*. Whose run it is, for fair shares, the
        configuration's `user` says; else it is the login name.
        """
        from trainyard import _git, _local, _snapshot
        from trainyard.job.v1 import job_pb2

        if not hasattr(config, "_to_spec"):
            raise UserErrorException(
                f"submit takes an estimator, not {config!r}.",
                target="config",
                hint="write est = TensorFlow(source_directory=..., entry_script=..., compute_target=...)",
            )
        given_tags = texts("tags", tags)
        spec = config._to_spec()
        _local.ensure(self.workspace, spec.compute_target)
        spec.tags.update(given_tags)
        spec.properties.update(_git.properties(Path(config.source_directory)))
        spec.display_name = display_name
        spec.user = spec.user or login_name()
        spec.source.snapshot.CopyFrom(_snapshot.take(config.source_directory, self.workspace._objects))
        paths = [file.path for file in _snapshot.listed(self.workspace._objects, spec.source.snapshot).files]
        refuse_shadows(spec.entry_script, paths, framework_of(spec))
        if spec.entry_script and spec.entry_script not in paths:
            raise UserErrorException(
                f"The entry_script {spec.entry_script!r} is kept out of the snapshot by an ignore file.",
                target=spec.entry_script,
                hint="take it out of .amlignore or .gitignore",
            )
        request = job_pb2.SubmitRun(submission_id=new_run_id(self.name, time.time()), experiment=self.name, spec=spec)
        clients = self.workspace._clients
        answer = clients.call(clients.jobs.SubmitRun, request, ExperimentExecutionException)
        return Run(self, answer.run.run_id, _message=answer.run)

    def start_logging(
        self,
        outputs: str | None = None,
        snapshot_directory: str | None = ".",
        *,
        display_name: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> Run:
        """A run in the caller's hands: `with experiment.start_logging() as run: run.log(...)`.

        It ends as Completed, or on an exception as Failed with the traceback; without `with`, by complete() or fail().
        outputs: a folder that is uploaded at the end, under outputs/. snapshot_directory: kept as it is now; None for none.
        """
        from trainyard import _git, _snapshot
        from trainyard.job.v1 import job_pb2

        request = job_pb2.OpenRun(submission_id=new_run_id(self.name, time.time()), experiment=self.name, display_name=display_name)
        request.tags.update({str(name): str(value) for name, value in (tags or {}).items()})
        if snapshot_directory is not None:
            request.source.snapshot.CopyFrom(_snapshot.take(Path(snapshot_directory), self.workspace._objects))
            request.properties.update(_git.properties(Path(snapshot_directory)))
        clients = self.workspace._clients
        answer = clients.call(clients.jobs.OpenRun, request, ExperimentExecutionException)
        run = Run(self, answer.run.run_id, _message=answer.run)
        run._outputs = Path(outputs) if outputs else None
        return run

    def get_runs(
        self,
        type: str | None = None,  # noqa: A002 - as in Azure
        tags: object = None,
        properties: object = None,
        include_children: bool = False,
        *,
        as_of: Any = None,
    ) -> Iterator[Run]:
        """Newest first, fetched a page at a time as they are asked for. tags, properties: a name, or a dict of names and values.

        as_of: as they were at a datetime, an ISO time, so long ago ("1h") or a record of the log ("topic/partition@offset").
        """
        from trainyard import _history
        from trainyard._run_status import type_of

        found = _history.list_runs(
            self.workspace,
            experiment=self.name,
            roots_only=not include_children,
            tags=_history.wanted(tags),
            properties=_history.wanted(properties),
            as_of=as_of,
        )
        for message in found:
            if message.number and (type is None or type == type_of(message)):
                yield Run(self, message.run_id, _message=message)
