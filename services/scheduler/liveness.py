"""Who is silent. Judged by the order of records in one partition, never by a clock: the scheduler counts its own pulses there.

While the scheduler cannot hear itself it declares nobody lost; a broker that was away makes nobody look dead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from services.scheduler.domain import Tick

_DECLINED_PULSES = 5


class Liveness:
    """Pulses since each agent's last heartbeat, since each open offer, and since each gang began to form. Kept in memory: a new scheduler gives all a fresh start."""

    def __init__(self, suspect_after: int, lost_after: int, overdue_after: int = 30, unformed_after: int = 1800) -> None:
        """All are counts of pulses."""
        self._suspect_after = max(1, suspect_after)
        self._lost_after = max(self._suspect_after + 1, lost_after)
        self._overdue_after = max(1, overdue_after)
        self._unformed_after = max(1, unformed_after)
        self._missed: dict[tuple[str, str], int] = {}
        self._open: dict[tuple[str, int], int] = {}
        self._forming: dict[tuple[str, int], int] = {}
        self._declined: dict[str, int] = {}
        self._silent: frozenset[str] = frozenset()
        """Asked for with every event, and changed by few."""

    def snapshot(self) -> Callable[[], None]:
        """Returns what puts all counts back as they are now."""
        missed, declined = self._missed.copy(), self._declined.copy()
        others = self._open, self._forming, self._silent

        def restore() -> None:
            self._missed, self._declined = missed, declined
            self._open, self._forming, self._silent = others

        return restore

    def beat(self, agent_id: str, incarnation: str) -> None:
        self._missed[agent_id, incarnation] = 0
        if agent_id in self._silent:
            self._silent = self._now_silent()

    def declined(self, agent_id: str) -> None:
        self._declined[agent_id] = _DECLINED_PULSES

    def declining(self) -> frozenset[str]:
        """Who has declined an offer a few pulses ago, and is not asked again yet."""
        return frozenset(self._declined)

    def silent(self) -> frozenset[str]:
        return self._silent

    def _now_silent(self) -> frozenset[str]:
        return frozenset(name for (name, _), missed in self._missed.items() if missed >= self._suspect_after)

    def pulse(
        self,
        registered: Mapping[str, str],
        offers: Collection[tuple[str, int]] = (),
        forming: Collection[tuple[str, int]] = (),
    ) -> Tick:
        """One pulse was heard. `registered` maps the known agents to their incarnation, `offers` are open and gangs `forming`:
        (run id, epoch)."""
        self._open = {offer: self._open.get(offer, 0) + 1 for offer in offers}
        self._forming = {gang: self._forming.get(gang, 0) + 1 for gang in forming}
        self._declined = {name: left - 1 for name, left in self._declined.items() if left > 1}
        known = set(registered.items())
        self._missed = {key: missed + 1 for key, missed in self._missed.items() if key in known}
        for key in known - self._missed.keys():
            self._missed[key] = 0
        self._silent = self._now_silent()
        return Tick(
            silent=self._names(range(self._suspect_after, self._lost_after)),
            heard=tuple(sorted(name for (name, _), missed in self._missed.items() if missed <= 1)),
            given_up=tuple(sorted(name for (name, _), missed in self._missed.items() if missed >= self._lost_after)),
            overdue=tuple(sorted(offer for offer, waited in self._open.items() if waited >= self._overdue_after)),
            unformed=tuple(sorted(gang for gang, waited in self._forming.items() if waited >= self._unformed_after)),
        )

    def _names(self, missed: Collection[int]) -> tuple[str, ...]:
        return tuple(sorted(name for (name, _), count in self._missed.items() if count in missed))
