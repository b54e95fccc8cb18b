"""The attempts of a run, each with its gang, its outcome and the first cause of its failure. Total, like the run itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from trainyard._errors import headline
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.history.v1.history_pb2 import Attempt
from trainyard.job.v1 import job_pb2 as job

RANK_REPORTS: tuple[type[Message], ...] = (cluster.TaskStarted, cluster.TaskExited)
_SHOWN_RANKS = 1_000
_END: dict[type[Message], Attempt.Outcome] = {
    job.RunCompleted: Attempt.OUTCOME_COMPLETED,
    job.RunFailed: Attempt.OUTCOME_FAILED,
    job.RunCanceled: Attempt.OUTCOME_CANCELED,
}


@dataclass(frozen=True)
class Report:
    """What an agent said of a rank, and when it came, in milliseconds since 1970."""

    at: int
    message: Message


def note(attempts: dict[int, Attempt], message: Message, at: int, lost_epoch: int) -> None:
    """What a fact about the run says of its attempts; `lost_epoch` is the newest that may no longer write."""
    if isinstance(message, job.RunRequeued):
        for epoch, attempt in attempts.items():
            if epoch <= message.lost_epoch:
                _end(attempt, _outcome_of(attempt, message), message.why, at)
        return
    epoch = getattr(message, "epoch", 0)
    if not epoch or epoch <= lost_epoch or type(message) not in _SAYS:
        return
    known = attempts.get(epoch)
    if known is None:
        if isinstance(message, job.RunPreparing | job.GangFormed | job.RunStarted):
            attempts[epoch] = known = Attempt(epoch=epoch)
            known.began_at.FromMilliseconds(at)
        else:
            return
    if not known.HasField("ended_at"):
        _evolve(known, message, at)


def _evolve(attempt: Attempt, message: Message, at: int) -> None:
    match message:
        case job.RunPreparing():
            if not attempt.rounds:
                del attempt.members[:]
                attempt.members.extend(Attempt.Member(agent_id=agent_id) for agent_id in message.agent_ids)
        case job.GangFormed():
            if message.round >= attempt.rounds:
                attempt.rounds = max(1, message.round)
                del attempt.members[:]
                attempt.members.extend(
                    Attempt.Member(agent_id=member.agent_id, address=member.address, ranks=member.ranks) for member in message.members
                )
                attempt.why = ""
        case job.RunStarted():
            attempt.started_at.CopyFrom(message.started_at)
        case job.RunPreempted():
            attempt.outcome, attempt.why = Attempt.OUTCOME_PREEMPTED, message.why
        case job.GangWaiting():
            attempt.why = message.why
        case job.RunCompleted() | job.RunFailed() | job.RunCanceled():
            failed = isinstance(message, job.RunFailed)
            _end(attempt, _END[type(message)], headline(message.failure) if failed else "", at)  # type: ignore[union-attr]
            if isinstance(message, job.RunFailed):
                attempt.failure.CopyFrom(message.failure)


_SAYS = frozenset((job.RunPreparing, job.GangFormed, job.RunStarted, job.RunPreempted, job.GangWaiting, *_END))


def _outcome_of(attempt: Attempt, message: job.RunRequeued) -> Attempt.Outcome:
    if message.restart:
        return Attempt.OUTCOME_RESTARTED
    return Attempt.OUTCOME_PREEMPTED if attempt.outcome == Attempt.OUTCOME_PREEMPTED else Attempt.OUTCOME_LOST


def _end(attempt: Attempt, outcome: Attempt.Outcome, why: str, at: int) -> None:
    if not attempt.HasField("ended_at"):
        attempt.outcome, attempt.why = outcome, why
        attempt.ended_at.FromMilliseconds(at)


def add_ranks(attempt: Attempt, reports: Iterable[Report]) -> None:
    """What became of its processes. Reports that came after its end are void, whoever sent them."""
    end = attempt.ended_at.ToMilliseconds() if attempt.HasField("ended_at") else None
    ranks: dict[tuple[int, str], Attempt.RankRun] = {}
    exits: list[cluster.TaskExited] = []
    for report in reports:
        message = report.message
        if end is not None and report.at > end or not isinstance(message, cluster.TaskStarted | cluster.TaskExited):
            continue
        rank = ranks.setdefault((message.rank, message.agent_id), Attempt.RankRun(rank=message.rank, agent_id=message.agent_id))
        if isinstance(message, cluster.TaskStarted):
            rank.started_at.CopyFrom(message.started_at)
            continue
        rank.exit_code, rank.stopped, rank.timed_out = message.exit_code, message.stopped, message.timed_out
        rank.exited_at.CopyFrom(message.exited_at if message.HasField("exited_at") else _stamp(report.at))
        exits.append(message)
    attempt.ranks.extend(ranks[place] for place in sorted(ranks)[:_SHOWN_RANKS])
    if attempt.outcome == Attempt.OUTCOME_RESTARTED and (cause := first_cause(exits)) is not None:
        attempt.failure.CopyFrom(
            Failure(code="ScriptFailed", message=attempt.why, last_lines=cause.last_lines, rank=cause.rank, exit_code=cause.exit_code)
        )


def first_cause(exits: Sequence[cluster.TaskExited]) -> cluster.TaskExited | None:
    """The rank that failed first by its agent's clock. One that the platform ended has not failed."""
    failed = [it for it in exits if it.exit_code and not it.stopped]
    return min(failed, key=lambda it: (it.exited_at.seconds, it.exited_at.nanos, it.rank), default=None)


def _stamp(at: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMilliseconds(at)
    return stamp
