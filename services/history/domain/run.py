"""A run as its facts tell it. Total and a function of the set of facts: repeats, late facts and lost attempts change nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.history.domain import attempts
from services.history.domain.moment import Fact, in_order
from trainyard._artifacts import listed
from trainyard._errors import headline
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import Artifact
from trainyard.history.v1.history_pb2 import Attempt, Transition
from trainyard.job.v1 import job_pb2 as job

FACTS: tuple[type[Message], ...] = (
    job.RunQueued,
    job.RunRejected,
    job.RunOpened,
    job.RunWarned,
    job.RunScaling,
    job.RunPreparing,
    job.GangFormed,
    job.RunStarted,
    job.RunFinalizing,
    job.RunCompleted,
    job.RunFailed,
    job.RunCancelRequested,
    job.RunCanceled,
    job.RunNotResponding,
    job.RunResponding,
    job.RunPreempted,
    job.GangWaiting,
    job.RunRequeued,
    job.RunTagged,
    job.RunPropertiesAdded,
    job.RunFilesAdded,
)
REPORTS: tuple[type[Message], ...] = (cluster.TaskPhase, cluster.OutputsUploaded)
"""What agents say that shows before the scheduler sums it up."""
TERMINAL = frozenset((job.RUN_STATUS_COMPLETED, job.RUN_STATUS_FAILED, job.RUN_STATUS_CANCELED, job.RUN_STATUS_REJECTED))
_WAITING = (job.RUN_STATUS_QUEUED, job.RUN_STATUS_PROVISIONING)
_ATTEMPT: dict[type[Message], job.RunStatus] = {
    job.RunPreparing: job.RUN_STATUS_PREPARING,
    job.RunStarted: job.RUN_STATUS_RUNNING,
    job.RunFinalizing: job.RUN_STATUS_FINALIZING,
}
_END: dict[type[Message], job.RunStatus] = {
    job.RunCompleted: job.RUN_STATUS_COMPLETED,
    job.RunFailed: job.RUN_STATUS_FAILED,
    job.RunCanceled: job.RUN_STATUS_CANCELED,
}


@dataclass
class Story:
    """A run, and what its message has no room for."""

    run: job.Run
    first_at: int
    last_at: int
    transitions: list[Transition] = field(default_factory=list)
    attempts: dict[int, Attempt] = field(default_factory=dict)
    """By epoch; what became of their ranks is no matter of these facts."""
    added: dict[str, Artifact] = field(default_factory=dict)
    """Files that came apart from the outputs."""
    made_by: dict[tuple[str, str], int] = field(default_factory=dict)
    """("property" or "file", its name) -> the attempt that made it, where one did."""
    uploaded: dict[str, Artifact] = field(default_factory=dict)
    """Outputs of the current attempt as far as agents have saved them."""
    lost_epoch: int = 0
    silent: set[str] = field(default_factory=set)
    before_silence: job.RunStatus = job.RUN_STATUS_UNSPECIFIED

    @property
    def ended(self) -> bool:
        return self.run.status in TERMINAL

    @property
    def files(self) -> list[Artifact]:
        """Sorted by path. An output goes before an upload of the same path, as everywhere.

        Without those of lists that lie in the object store: the run's outputs name them.
        """
        found = {**self.added, **(listed(self.run.outputs) if self.ended else self.uploaded)}
        return [found[path] for path in sorted(found)]


def tell(facts: Iterable[Fact]) -> Story | None:
    """None where the facts begin no run."""
    story: Story | None = None
    for fact in in_order(facts):
        if story is None:
            story = _begin(fact)
            continue
        story.last_at = max(story.last_at, fact.spot.at)
        if not story.ended:
            attempts.note(story.attempts, fact.message, fact.spot.at, story.lost_epoch)
        _evolve(story, fact)
    return story


def _begin(fact: Fact) -> Story | None:
    message, at = fact.message, fact.spot.at
    match message:
        case job.RunQueued():
            run = job.Run(
                run_id=message.run_id,
                experiment=message.experiment,
                number=message.number,
                status=job.RUN_STATUS_QUEUED,
                why=message.why,
                spec=message.spec,
                queued_at=message.queued_at,
                tags=message.spec.tags,
                properties=message.spec.properties,
                parent_run_id=message.spec.parent_run_id,
                display_name=message.spec.display_name,
            )
        case job.RunOpened():
            run = job.Run(
                run_id=message.run_id,
                experiment=message.experiment,
                number=message.number,
                status=job.RUN_STATUS_RUNNING,
                queued_at=message.opened_at,
                started_at=message.opened_at,
                tags=message.tags,
                properties=message.properties,
                parent_run_id=message.parent_run_id,
                display_name=message.display_name,
                opened=True,
            )
            run.spec.source.CopyFrom(message.source)
        case job.RunRejected():
            run = job.Run(
                run_id=message.run_id,
                experiment=message.experiment,
                status=job.RUN_STATUS_REJECTED,
                failure=message.failure,
                why=message.failure.message,
                queued_at=_stamp(at),
                ended_at=_stamp(at),
            )
        case _:
            return None
    run.revision = 1
    story = Story(run, at, at)
    _turned(story, at)
    return story


def _evolve(story: Story, fact: Fact) -> None:
    run, message = story.run, fact.message
    run.revision += 1
    match message:
        case job.RunWarned():
            run.warnings.append(message.message)
        case job.RunTagged():
            for name in message.removed:
                run.tags.pop(name, None)
            run.tags.update(message.set)
        case job.RunPropertiesAdded():
            for name, value in message.properties.items():
                if _is_newer(story, ("property", name), name in run.properties, message.epoch):
                    run.properties[name] = value
        case job.RunFilesAdded():
            for file in message.files.files:
                if _is_newer(story, ("file", file.path), file.path in story.added, message.epoch):
                    story.added[file.path] = file
        case _ if story.ended:
            return
        case job.RunCompleted() | job.RunFailed() | job.RunCanceled():
            _end(story, message)
        case cluster.TaskPhase():
            if message.epoch == run.epoch and not story.silent and run.status != job.RUN_STATUS_CANCEL_REQUESTED:
                run.why = f"{message.phase}: {message.detail}" if message.detail else message.phase
        case cluster.OutputsUploaded():
            if message.epoch == run.epoch:
                story.uploaded = {**listed(message.restored), **story.uploaded, **listed(message.outputs)}
        case _:
            _move(story, message)
    _turned(story, fact.spot.at)


def _move(story: Story, message: Message) -> None:
    """On its way, or back."""
    run = story.run
    match message:
        case job.RunScaling():
            if not run.epoch or run.epoch <= story.lost_epoch:
                run.status = job.RUN_STATUS_PROVISIONING if message.nodes_wanted > message.nodes_now else job.RUN_STATUS_QUEUED
                run.why, run.position = message.why, message.position
        case job.RunCancelRequested():
            run.status, run.why = job.RUN_STATUS_CANCEL_REQUESTED, message.reason or "cancel was asked for"
        case job.RunRequeued() if message.lost_epoch >= run.epoch:
            story.lost_epoch = run.epoch = message.lost_epoch
            story.uploaded.clear()
            story.silent.clear()
            del run.agent_ids[:], run.members[:]
            run.restarts += message.restart
            run.position = 0
            run.ClearField("started_at")
            run.status, run.why = job.RUN_STATUS_QUEUED, message.why
        case job.RunPreparing() | job.GangFormed() | job.RunStarted() | job.RunFinalizing() if _counts(story, message.epoch):
            _attempt(story, message)
        case job.RunPreempted() | job.GangWaiting() if _counts(story, message.epoch):
            if run.status != job.RUN_STATUS_CANCEL_REQUESTED:
                run.why = message.why
        case job.RunNotResponding() if _counts(story, message.epoch):
            if not story.silent:
                story.before_silence = run.status
            story.silent.add(message.agent_id)
            run.status, run.why = job.RUN_STATUS_NOT_RESPONDING, f"{message.agent_id} is silent"
        case job.RunResponding() if _counts(story, message.epoch) and message.agent_id in story.silent:
            story.silent.discard(message.agent_id)
            if not story.silent and run.status == job.RUN_STATUS_NOT_RESPONDING:
                run.status = story.before_silence
            run.why = f"{message.agent_id} is heard again"


def _attempt(story: Story, message: job.RunPreparing | job.GangFormed | job.RunStarted | job.RunFinalizing) -> None:
    run = story.run
    known = story.attempts.get(message.epoch)
    if isinstance(message, job.GangFormed) and known is not None and message.round < known.rounds and known.rounds > 1:
        return
    if message.epoch > run.epoch:
        story.uploaded.clear()
    run.epoch = message.epoch
    if isinstance(message, job.GangFormed):
        run.members.clear()
        run.members.extend(message.members)
        run.agent_ids[:] = [member.agent_id for member in message.members]
    if run.status == job.RUN_STATUS_CANCEL_REQUESTED:
        return
    match message:
        case job.GangFormed():
            run.why = "starts" if message.round <= 1 else f"goes on in round {message.round} on {', '.join(run.agent_ids)}"
            return
        case job.RunPreparing():
            run.agent_ids[:] = message.agent_ids
            run.why = f"on {', '.join(message.agent_ids)}"
        case job.RunStarted():
            run.started_at.CopyFrom(message.started_at)
            run.why = f"the script runs on {', '.join(run.agent_ids)}"
        case job.RunFinalizing():
            run.why = "the outputs are copied"
    if story.silent:
        story.before_silence = _ATTEMPT[type(message)]
    else:
        run.status = _ATTEMPT[type(message)]


def _end(story: Story, message: job.RunCompleted | job.RunFailed | job.RunCanceled) -> None:
    run = story.run
    canceled = isinstance(message, job.RunCanceled)
    # A run that waits for its next attempt is canceled under the epoch of the lost one.
    if message.epoch < run.epoch or (not canceled and not _counts(story, message.epoch)):
        return
    run.status, run.epoch = _END[type(message)], message.epoch
    run.outputs.CopyFrom(message.outputs)
    run.ended_at.CopyFrom(message.ended_at)
    if isinstance(message, job.RunFailed):
        run.failure.CopyFrom(message.failure)
        run.why = headline(message.failure)
    elif not canceled:
        run.why = ""


def _counts(story: Story, epoch: int) -> bool:
    """Whether what speaks for that attempt is still to be heard."""
    return epoch >= story.run.epoch and not (story.lost_epoch and epoch <= story.lost_epoch)


def _is_newer(story: Story, what: tuple[str, str], is_known: bool, epoch: int) -> bool:
    """The first that was told counts, or a later attempt's where an attempt had made it; remembered as that attempt's then."""
    if is_known and not 0 < story.made_by.get(what, 0) < epoch:
        return False
    if epoch:
        story.made_by[what] = epoch
    return True


def _turned(story: Story, at: int) -> None:
    """Remembers a change of status or attempt."""
    run = story.run
    if run.status not in _WAITING:
        run.position = 0
    last = story.transitions[-1] if story.transitions else None
    if last is None or last.status != run.status or (last.epoch != run.epoch and run.status != job.RUN_STATUS_CANCEL_REQUESTED):
        story.transitions.append(Transition(status=run.status, epoch=run.epoch, why=run.why, at=_stamp(at)))


def _stamp(at: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMilliseconds(at)
    return stamp
