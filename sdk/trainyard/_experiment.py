"""Experiments: names under which runs are kept."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from trainyard._errors import ExperimentExecutionException, UserErrorException
from trainyard._run import Run
from trainyard._texts import texts

if TYPE_CHECKING:
    from trainyard._estimator import Estimator
    from trainyard._workspace import Workspace

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,107}\Z")


def new_run_id(experiment: str, now: float) -> str:
    """`<experiment>_<epoch seconds>_<8 hex>`. Made here, so that a repeated request names the same run."""
    return f"{experiment}_{int(now)}_{secrets.token_hex(4)}"


class Experiment:
    def __init__(self, workspace: Workspace, name: str) -> None:
        if not isinstance(name, str) or not _NAME.match(name):
            raise UserErrorException(
                f"An experiment's name is a letter or digit, then letters, digits, - and _, at most 108 in all; {name!r} is none.",
                target=name,
            )
        self.workspace = workspace
        self.name = name

    def __repr__(self) -> str:
        return f"Experiment(name={self.name!r})"

    def submit(self, config: Estimator, tags: Mapping[str, str] | None = None) -> Run:
        """Sends the source folder, then the request; returns as soon as the scheduler has taken it."""
        from trainyard import _snapshot
        from trainyard._estimator import Estimator
        from trainyard.job.v1 import job_pb2

        if not isinstance(config, Estimator):
            raise UserErrorException(
                f"submit takes an estimator, not {config!r}.",
                target="config",
                hint="write est = TensorFlow(source_directory=..., entry_script=..., compute_target=...)",
            )
        given_tags = texts("tags", tags)
        spec = config._to_spec()
        spec.tags.update(given_tags)
        spec.source.snapshot.CopyFrom(_snapshot.take(config.source_directory, self.workspace._objects))
        if not any(file.path == spec.entry_script for file in spec.source.snapshot.files):
            raise UserErrorException(
                f"The entry_script {spec.entry_script!r} is kept out of the snapshot by an ignore file.",
                target=spec.entry_script,
                hint="take it out of .amlignore or .gitignore",
            )
        request = job_pb2.SubmitRun(submission_id=new_run_id(self.name, time.time()), experiment=self.name, spec=spec)
        clients = self.workspace._clients
        answer = clients.call(clients.jobs.SubmitRun, request, ExperimentExecutionException)
        return Run(self, answer.run.run_id, _message=answer.run)

    def get_runs(
        self, type: str | None = None, tags: object = None, properties: object = None, include_children: bool = False
    ) -> Iterator[Run]:  # noqa: A002
        """Newest first."""
        from trainyard.job.v1 import job_pb2

        clients = self.workspace._clients
        request = job_pb2.ListRunsRequest(experiment=self.name, limit=1000)
        for message in clients.call(clients.jobs.ListRuns, request).runs:
            run = Run(self, message.run_id, _message=message)
            if _has_tags(run, tags):
                yield run


def _has_tags(run: Run, tags: object) -> bool:
    if not tags:
        return True
    own = run.tags
    return all(own.get(name) == value for name, value in tags.items()) if isinstance(tags, Mapping) else tags in own
