"""Which running runs are ended for one that goes before them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from services.scheduler.domain import gang
from services.scheduler.domain.facts import Fact, about_run
from services.scheduler.domain.need import Need
from services.scheduler.domain.placing.needs import Free, Node, devices_of, node_of, taken_devices, together
from services.scheduler.domain.placing.queue import Order
from services.scheduler.domain.state import Pool, Run, State
from trainyard.job.v1 import job_pb2 as job


class Room:
    """Whether a run would have its nodes, were some others gone. Looks only at nodes that one of those has something of."""

    def __init__(self, state: State, pool: Pool, need: Need, up: Free, avoided: Collection[str]) -> None:
        """`avoided`: nodes that count as they are, whoever goes: they are not heard, or were given away a moment ago."""
        self._state = state
        self._pool = pool
        self._need = need
        self._avoided = avoided
        self._nodes: dict[str, Node] = {node.name: node for node in up.fitting(need)}
        self._gone: set[str] = set()
        self._taken = taken_devices(state) if need.gpus else set()

    @property
    def is_enough(self) -> bool:
        return len(together(self._need, self._nodes.values(), self._need.fewest)) >= self._need.fewest

    def without(self, run: Run) -> None:
        self._gone.add(run.id)
        self._taken -= devices_of(self._state, run)
        self._look(run)

    def again_with(self, run: Run) -> None:
        self._gone.remove(run.id)
        self._taken |= devices_of(self._state, run)
        self._look(run)

    def _look(self, run: Run) -> None:
        for member in run.members:
            name, agent = member.agent_id, self._state.agents.get(member.agent_id)
            if agent is None or name in self._avoided:
                continue
            node = node_of(self._state, agent, self._pool, taken=self._taken, gone=self._gone)
            if node is not None and node.fits(self._need):
                self._nodes[name] = node
            else:
                self._nodes.pop(name, None)


def room_is_coming(room: Room, ending: Iterable[Run]) -> bool:
    """Once those that are ending are gone it fits: nobody else need go. They count as gone from now on."""
    for run in ending:
        room.without(run)
    return room.is_enough


def victims(room: Room, running: Iterable[Run], run: Run, order: Order) -> list[Run]:
    """As few as make room, the least important and youngest first; none where no choice would.

    Only runs of a lower priority, that would still go after it were they to wait again: or they would take their nodes back.
    """
    key, priority = order.key(run), run.spec.priority
    lower = [it for it in running if it.spec.priority < priority and not it.is_ending and order.key_of_running(it) > key]
    return _fewest(lower, room.without, room.again_with, lambda: room.is_enough)


def lent(
    state: State, givers: Iterable[tuple[Pool, int]], can_serve: Callable[[str], bool], running: Iterable[Run], lacking: int
) -> list[Run]:
    """The runs to end so that pools of low priority give back `lacking` nodes: the youngest first; none where no choice would do, or
    where those that are ending are enough. `givers`: with how many nodes each has to give."""
    spare = {name: (pool.name, most) for pool, most in givers for name in pool.agent_ids if state.is_busy(name) and can_serve(name)}
    holders = {name: frozenset(state.index.holds[name]) for name in spare}
    there = [run for run in running if any(it.agent_id in spare for it in run.members)]
    gone = {run.id for run in there if run.is_ending}

    def is_enough() -> bool:
        left = dict(spare.values())
        count = 0
        for name, runs in holders.items():
            giver = spare[name][0]
            if left[giver] > 0 and runs <= gone:
                left[giver] -= 1
                count += 1
        return count >= lacking

    if is_enough():
        return []
    staying = [run for run in there if run.id not in gone]
    return _fewest(staying, lambda it: gone.add(it.id), lambda it: gone.remove(it.id), is_enough)


def _fewest(
    candidates: Iterable[Run], remove: Callable[[Run], None], restore: Callable[[Run], None], is_enough: Callable[[], bool]
) -> list[Run]:
    chosen: list[Run] = []
    for run in sorted(candidates, key=lambda it: (it.spec.priority, -it.order)):
        remove(run)
        chosen.append(run)
        if is_enough():
            break
    else:
        return []
    # Of those that were taken on the way some may turn out not to be needed: the most important are spared first.
    for run in reversed(chosen[:-1]):
        restore(run)
        if is_enough():
            chosen.remove(run)
        else:
            remove(run)
    return chosen


def end_for(run: Run, by: Run, why: str) -> Iterator[Fact]:
    """Ends one attempt, and has it save what it has written."""
    yield about_run(job.RunPreempted(run_id=run.id, epoch=run.epoch, why=why, by=by.id))
    yield from gang.revoke(run, [it for it in run.members if not it.revoked and not it.uploaded], why, save_outputs=True)
