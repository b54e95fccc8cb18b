"""What decisions look up in the runs, kept beside them and never counted anew: who waits in which order, and who holds what of which node.

Values only, like the state it is of: a change makes a new one and shares the rest, so a decision that is thought through and dropped
leaves nothing behind.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import fsum
from typing import TYPE_CHECKING, Any, NamedTuple

from immutables import Map

if TYPE_CHECKING:
    from services.scheduler.domain.state import Run


class Lane(NamedTuple):
    """Runs of one lane go in the order in which they came, whatever the policy."""

    priority: int
    experiment: str
    user: str


class Hold(NamedTuple):
    """What one run has of one node."""

    cpus: float
    memory_bytes: int
    gpus: tuple[int, ...]
    whole: bool
    """Nobody else may have anything of it."""


class Used(NamedTuple):
    """What all runs together have of one node."""

    runs: int
    cpus: float
    memory_bytes: int
    gpus: frozenset[int]
    whole: bool

    @classmethod
    def of(cls, holds: Iterable[Hold]) -> Used:
        there = tuple(holds)
        # The sum must not depend on the order in which a map lists its entries.
        cpus = fsum(hold.cpus for hold in there)
        gpus = frozenset(device for hold in there for device in hold.gpus)
        return cls(len(there), cpus, sum(hold.memory_bytes for hold in there), gpus, any(hold.whole for hold in there))


NOTHING = Used(0, 0.0, 0, frozenset(), False)


class _Heap(NamedTuple):
    """A leftist heap by (order, run id): two become one in logarithmic time, and both stay as they were."""

    rank: int
    order: int
    run_id: str
    left: _Heap | None
    right: _Heap | None


@dataclass(frozen=True)
class Queue:
    """Of one lane. Runs that do not wait any more stay in the heap until they come to its top."""

    heap: _Heap | None = None
    orders: Map[str, int] = field(default_factory=Map)
    """Run id -> its order, of those that wait."""

    def __len__(self) -> int:
        return len(self.orders)

    def __iter__(self) -> Iterator[str]:
        """Ids, first come first; what is not asked for costs nothing."""
        last = ""
        # The numbers tell apart what a run has left in the heap each time that it came back.
        numbers = itertools.count()
        open_: list[tuple[int, str, int, _Heap]] = []

        def push(heap: _Heap | None) -> None:
            if heap is not None:
                heapq.heappush(open_, (heap.order, heap.run_id, next(numbers), heap))

        push(self.heap)
        while open_:
            order, run_id, _, heap = heapq.heappop(open_)
            push(heap.left)
            push(heap.right)
            if run_id != last and self.orders.get(run_id) == order:
                last = run_id
                yield run_id

    def added(self, run_id: str, order: int) -> Queue:
        return Queue(_merged(self.heap, _Heap(1, order, run_id, None, None)), self.orders.set(run_id, order))

    def without(self, run_id: str) -> Queue:
        orders, heap = self.orders.delete(run_id), self.heap
        while heap is not None and orders.get(heap.run_id) != heap.order:
            heap = _merged(heap.left, heap.right)
        return Queue(heap, orders)


Lanes = Map[Lane, Queue]


@dataclass(frozen=True)
class Index:
    runs: Mapping[str, Run]
    """What it is of."""
    waiting: Map[str, Lanes] = field(default_factory=Map)
    """Compute target -> its lanes; none that is empty."""
    holds: Map[str, Map[str, Hold]] = field(default_factory=Map)
    """Agent id -> run id -> what that run has of the agent's node."""
    used: Map[str, Used] = field(default_factory=Map)
    """Agent id -> the sum of those."""
    attempts: Map[str, Any] = field(default_factory=Map)
    """Ids of the runs that have members -> what of them a placement looks at, beside what they hold."""
    children: Map[str, Map[str, None]] = field(default_factory=Map)
    """Run id -> ids of its children that have not ended."""

    @classmethod
    def of(cls, runs: Mapping[str, Run]) -> Index:
        index = cls({})
        for run in runs.values():
            index = index.after(None, run, runs)
        return replace(index, runs=runs)

    def after(self, old: Run | None, new: Run, runs: Mapping[str, Run]) -> Index:
        """`new` has taken the place of `old`."""
        waiting, holds, used, attempts, children = self.waiting, self.holds, self.used, self.attempts, self.children
        if (waits := new.waits_for_a_node) != (old is not None and old.waits_for_a_node):
            waiting = _joined(waiting, new) if waits else _left(waiting, new)
        before = old.members if old is not None and not old.is_terminal else ()
        now = () if new.is_terminal else new.members
        if before is not now:
            holds = _held(holds, new, before, now)
            if holds is not self.holds:
                used = _summed(used, self.holds, holds, {it.agent_id for part in (before, now) for it in part})
        if now:
            # When it began says when its nodes come back, if it has a limit at all.
            began = new.started_at if new.spec.HasField("max_duration") else None
            phase = (began, new.is_elastic and new.formed and not new.is_ending, new.deadline)
            if attempts.get(new.id) != phase:
                attempts = attempts.set(new.id, phase)
        elif new.id in attempts:
            attempts = attempts.delete(new.id)
        if new.parent_run_id and new.is_terminal != (old is None or old.is_terminal):
            children = _followed(children, new)
        return Index(runs, waiting, holds, used, attempts, children)

    def length(self, target: str) -> int:
        """Runs that wait for it."""
        return sum(len(queue) for queue in self.waiting.get(target, Map()).values())


def _followed(children: Map[str, Map[str, None]], run: Run) -> Map[str, Map[str, None]]:
    mine: Map[str, None] = children.get(run.parent_run_id, Map())
    mine = mine.delete(run.id) if run.is_terminal else mine.set(run.id, None)
    return children.set(run.parent_run_id, mine) if len(mine) else children.delete(run.parent_run_id)


def _joined(waiting: Map[str, Lanes], run: Run) -> Map[str, Lanes]:
    target, lane = run.spec.compute_target, _lane(run)
    lanes: Lanes = waiting.get(target, Map())
    return waiting.set(target, lanes.set(lane, lanes.get(lane, Queue()).added(run.id, run.order)))


def _left(waiting: Map[str, Lanes], run: Run) -> Map[str, Lanes]:
    target, lane = run.spec.compute_target, _lane(run)
    lanes = waiting[target]
    queue = lanes[lane].without(run.id)
    lanes = lanes.set(lane, queue) if len(queue) else lanes.delete(lane)
    return waiting.set(target, lanes) if len(lanes) else waiting.delete(target)


def _lane(run: Run) -> Lane:
    return Lane(run.spec.priority, run.experiment, run.spec.user)


def _held(holds: Map[str, Map[str, Hold]], run: Run, before: Sequence[Any], now: Sequence[Any]) -> Map[str, Map[str, Hold]]:
    if len(before) == len(now) and all(old is new or _has_the_same(old, new) for old, new in zip(before, now, strict=True)):
        return holds
    old, new = {it.agent_id: it for it in before}, {it.agent_id: it for it in now}
    for name in old.keys() - new.keys():
        left = holds[name].delete(run.id)
        holds = holds.set(name, left) if len(left) else holds.delete(name)
    whole = not run.spec.HasField("resources")
    for name, it in new.items():
        if name in old and (old[name].resources, old[name].gpus) == (it.resources, it.gpus):
            continue
        hold = Hold(it.resources.cpus, it.resources.memory_bytes, it.gpus, whole)
        holds = holds.set(name, holds.get(name, Map()).set(run.id, hold))
    return holds


def _has_the_same(old: Any, new: Any) -> bool:
    """Most reports change something else of a member."""
    return bool(old.agent_id == new.agent_id and old.resources is new.resources and old.gpus is new.gpus)


def _summed(
    used: Map[str, Used], before: Map[str, Map[str, Hold]], after: Map[str, Map[str, Hold]], names: Iterable[str]
) -> Map[str, Used]:
    for name in names:
        held = after.get(name)
        if held is before.get(name):
            continue
        used = used.delete(name) if held is None else used.set(name, Used.of(held.values()))
    return used


def _merged(one: _Heap | None, other: _Heap | None) -> _Heap | None:
    if one is None or other is None:
        return one or other
    first, second = (one, other) if (one.order, one.run_id) <= (other.order, other.run_id) else (other, one)
    right = _merged(first.right, second)
    ranks = (first.left.rank if first.left is not None else 0, right.rank if right is not None else 0)
    left, right = (first.left, right) if ranks[0] >= ranks[1] else (right, first.left)
    return _Heap(min(ranks) + 1, first.order, first.run_id, left, right)
