"""What the registry must know of a run: how it ended, what it left behind and where it came from. Folded from trainyard.jobs.

The epoch fences: once a newer attempt was seen, or an attempt was declared lost, nothing that speaks for the older one counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from google.protobuf.message import Message

from trainyard._artifacts import together
from trainyard._lineage import environment_id
from trainyard.event.v1.artifact_pb2 import ArtifactSet, Attempt, Failure
from trainyard.job.v1 import job_pb2 as job
from trainyard.model.v1.model_pb2 import DatasetRef, Lineage

_STAGES: dict[type[Message], str] = {
    job.RunPreparing: "Preparing",
    job.GangFormed: "Preparing",
    job.RunStarted: "Running",
    job.RunFinalizing: "Finalizing",
    job.RunCompleted: "Completed",
    job.RunFailed: "Failed",
    job.RunCanceled: "Canceled",
}
FACTS: tuple[type[Message], ...] = (
    job.RunQueued,
    job.RunOpened,
    job.RunFilesAdded,
    job.RunRejected,
    job.RunRequeued,
    job.RunCancelRequested,
    *_STAGES,
)
"""What counts here; all of them name their run in `run_id`."""


@dataclass(frozen=True)
class Run:
    """`epoch` is the newest attempt seen, `lost_epoch` the newest that may no longer write; 0: none. Once ended only files are added."""

    id: str
    status: str
    lineage: Lineage
    epoch: int = 0
    lost_epoch: int = 0
    has_ended: bool = False
    artifacts: ArtifactSet = field(default_factory=ArtifactSet)


def evolve(run: Run | None, message: Message) -> Run | None:
    """The run after one of the FACTS; whatever does not count leaves it as it is."""
    match message:
        case job.RunQueued() if run is None:
            return Run(message.run_id, "Queued", _lineage(message))
        case job.RunOpened() if run is None:
            lineage = Lineage(run_id=message.run_id, experiment=message.experiment, snapshot_id=message.source.snapshot.id)
            return Run(message.run_id, "Running", lineage)
        case job.RunFilesAdded() if run is not None:
            # The scheduler lets an attempt add again what one that is over had added. After the end outputs go before uploads.
            replaces = bool(message.epoch) and not run.has_ended and _counts(run, message.epoch)
            first, counts = (run.artifacts, message.files) if replaces else (message.files, run.artifacts)
            return replace(run, artifacts=_merged(first, counts))
        case job.RunRejected() if run is None:
            return Run(message.run_id, "Rejected", Lineage(run_id=message.run_id, experiment=message.experiment), has_ended=True)
        case _ if run is None or run.has_ended:
            return run
        case job.RunCancelRequested():
            return replace(run, status="CancelRequested")
        case job.RunRequeued() if message.lost_epoch >= run.epoch:
            return replace(run, status="Queued", epoch=message.lost_epoch, lost_epoch=message.lost_epoch)
        case job.RunPreparing() | job.GangFormed() | job.RunStarted() | job.RunFinalizing() if _counts(run, message.epoch):
            return replace(run, status=_STAGES[type(message)], epoch=message.epoch)
        case job.RunCompleted() | job.RunFailed() if _counts(run, message.epoch):
            return _ended(run, message, message.outputs)
        # A run that waits for its next attempt is canceled under the epoch of the lost one, whose files do not count.
        case job.RunCanceled() if message.epoch >= run.epoch:
            return _ended(run, message, message.outputs if _counts(run, message.epoch) else ArtifactSet())
    return run


def over(asker: Run | None, by: Attempt) -> Failure | None:
    """Why nothing is registered for a script: its attempt is over. Whoever names none asks from outside."""
    if not by.epoch or (asker is not None and not asker.has_ended and _counts(asker, by.epoch)):
        return None
    if asker is None:
        what = f"There is no run {by.run_id[:200]!r} whose attempt {by.epoch} could register a model."
        return Failure(code="RunNotFound", message=what, target=by.run_id[:1000])
    now = "the run has ended" if asker.has_ended else "the run goes on with another"
    what = f"Attempt {by.epoch} of run {asker.id} is over: {now}. Nothing was registered for its script."
    return Failure(code="AttemptIsOver", message=what, target=asker.id[:1000])


def _counts(run: Run, epoch: int) -> bool:
    return epoch >= run.epoch and not (run.lost_epoch and epoch <= run.lost_epoch)


def _ended(run: Run, message: job.RunCompleted | job.RunFailed | job.RunCanceled, artifacts: ArtifactSet) -> Run:
    return replace(run, status=_STAGES[type(message)], epoch=message.epoch, has_ended=True, artifacts=_merged(run.artifacts, artifacts))


def _merged(first: ArtifactSet, counts: ArtifactSet) -> ArtifactSet:
    """By path; of two with one path the second set's counts."""
    merged: ArtifactSet = together(counts, first)
    return merged


def _lineage(queued: job.RunQueued) -> Lineage:
    spec = queued.spec
    datasets = dict.fromkeys((it.dataset, it.version) for it in spec.inputs if it.dataset)
    return Lineage(
        run_id=queued.run_id,
        experiment=queued.experiment,
        datasets=[DatasetRef(name=name, version=version) for name, version in datasets],
        snapshot_id=spec.source.snapshot.id,
        environment_id=environment_id(spec.environment),
    )
