"""Attempts that their agent has accepted and does not hold any more, by what its heartbeats list. Counted in heartbeats, never in time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.scheduler.domain.state import State

# An agent lists an attempt until its last report lies in the log, so what may still be on its way here is the reading of it:
# reports and heartbeats come by different topics, and a partition that stands still is fetched after two seconds.
MISSES = 10


@dataclass(frozen=True)
class Unheld:
    """The process that accepted the attempt goes on without it: nothing more will be told of it."""

    run_id: str
    epoch: int
    agent_id: str
    incarnation: str


@dataclass(frozen=True)
class Holding:
    """Heartbeats in a row that did not list an attempt, by attempt and process; nothing where the last one did."""

    misses: Mapping[Unheld, int] = field(default_factory=dict)

    def heard(self, state: State, beat: Any) -> tuple[Holding, list[Unheld]]:
        """After one more heartbeat, and the attempts that count as lost now."""
        listed = {(it.run_id, it.epoch) for it in beat.held}
        missed = {
            Unheld(run.id, run.epoch, beat.agent_id, beat.incarnation)
            for run in state.runs_on(beat.agent_id)
            if (member := run.member(beat.agent_id, beat.incarnation)) is not None
            and member.accepted
            and not member.uploaded
            and (run.id, run.epoch) not in listed
        }
        others = {attempt: count for attempt, count in self.misses.items() if attempt.agent_id != beat.agent_id}
        counted = {attempt: self.misses.get(attempt, 0) + 1 for attempt in missed}
        lost = sorted((attempt for attempt, count in counted.items() if count >= MISSES), key=lambda it: it.run_id)
        kept = {attempt: count for attempt, count in counted.items() if count < MISSES}
        return Holding({**others, **kept}), lost
