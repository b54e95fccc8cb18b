"""One decision: every pool's queue from its head, with what is free, what can be started, and what may be taken from others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any

from services.scheduler.domain import elastic
from services.scheduler.domain.facts import Fact
from services.scheduler.domain.need import Need
from services.scheduler.domain.placing import preempting
from services.scheduler.domain.placing.growing import Nodes, gives_way, is_lent, is_local
from services.scheduler.domain.placing.needs import Free, Node, Shares, Where, in_order, node_of, together
from services.scheduler.domain.placing.offering import offer
from services.scheduler.domain.placing.queue import Line, Order
from services.scheduler.domain.placing.quotas import Quotas
from services.scheduler.domain.placing.reserving import Reservation
from services.scheduler.domain.placing.telling import Teller
from services.scheduler.domain.state import Pool, Run, State, World
from trainyard import _gang
from trainyard.job.v1 import job_pb2 as job

# Of those that cannot start, so many are looked at: a gap that none of them fits stays until the next change.
_LOOKED_AT = 50
# Of one lane, so that a long one of runs which ask for what is not there does not hide the others.
_OF_A_LANE = 20
# What asks the same as one that could not start, in vain, costs nearly nothing.
_PASSED = 150


def may_place(before: State, after: State) -> bool:
    """Something has changed that a placement depends on. Most reports change nothing of it, and a run that comes to the end of a long
    line changes nothing for those before it."""
    if before is after:
        return False
    if before.pools is not after.pools or before.agents is not after.agents or before.policy is not after.policy:
        return True
    old, new = before.index, after.index
    if old.holds is not new.holds or old.attempts is not new.attempts:
        return True
    return old.waiting is not new.waiting and not _only_a_line_grew(before, after)


def _only_a_line_grew(before: State, after: State) -> bool:
    """Where nothing else has changed than who waits."""
    changed = [name for name, lanes in after.index.waiting.items() if before.index.waiting.get(name) is not lanes]
    if len(changed) != 1 or len(before.index.waiting) != len(after.index.waiting) or changed[0] not in before.index.waiting:
        return False
    old, new = before.index.waiting[changed[0]], after.index.waiting[changed[0]]
    grown = [lane for lane, queue in new.items() if old.get(lane) is not queue]
    return len(grown) == 1 and grown[0] in old and _OF_A_LANE < len(old[grown[0]]) < len(new[grown[0]])


def place(state: State, world: World) -> list[Fact]:
    """Offers, growth, preemptions, and reasons for runs that go on waiting. Says nothing that was said already."""
    plan = _Plan(state, world)
    for name in plan.targets():
        if name in state.pools:
            plan.pool(name)
        else:
            plan.gone(name)
    plan.nodes.up_to_minimum()
    return plan.nodes.resizes() + plan.facts


class _Plan:
    """Scratch paper."""

    def __init__(self, state: State, world: World) -> None:
        self.facts: list[Fact] = []
        self.nodes = Nodes(state, world)
        self._state = state
        self._world = world
        self._shares = Shares(state)
        self._order = Order(state, self._shares, world.now)
        self._quotas = Quotas(state, self._shares)
        self._offered: set[str] = set()
        self._running: dict[str, list[Run]] = {}
        self._elastic: dict[str, list[Run]] = {}
        for run in state.attempts():
            self._running.setdefault(run.spec.compute_target, []).append(run)
            if run.is_elastic and elastic.goes_on(run):
                self._elastic.setdefault(run.spec.compute_target, []).append(run)
        self._teller = Teller(self.facts, state, world, self.nodes, self._running)

    def targets(self) -> list[str]:
        """Pools for which something is to be done: whoever's first run goes first, and nodes that are lent last."""
        state = self._state

        def first(name: str) -> tuple[bool, Any]:
            pool = state.pools.get(name)
            head = next(iter(Line(state, name, self._order)), None)
            return (pool is not None and is_lent(pool), (1,) if head is None else (0, head.order))

        return sorted({*state.index.waiting, *self._elastic}, key=lambda name: (*first(name), name))

    def gone(self, name: str) -> None:
        for place, run in enumerate(islice(Line(self._state, name, self._order), _LOOKED_AT), 1):
            self._teller.tell(run, f"the compute target {name} is gone", place)

    def pool(self, name: str) -> None:
        pool = self.nodes.pools[name]
        up = Free(self.nodes.up(pool))
        gangs = sorted(self._elastic.get(name, ()), key=lambda run: run.order)
        for run in gangs:
            if run.deadline is not None:
                self._widen(run, pool, up)
        blocked = self._queue(pool, up)
        if not blocked:
            for run in gangs:
                if run.deadline is None:
                    self._widen(run, pool, up)

    def _queue(self, pool: Pool, up: Free) -> bool:
        """True where somebody waits."""
        # Those that were promised to somebody who waits for the rest of his gang are not promised twice.
        coming: Free | None = None
        reservation: Reservation | None = None
        first: Run | None = None
        # Of those that go on waiting; no longer known once runs of a lane are left out.
        place, is_counted = 0, True
        in_vain: set[tuple[Need, bool]] = set()
        looked_at, passed = 0, 0
        of_lane: Counter[Any] = Counter()
        line = Line(self._state, pool.name, self._order)
        for run in line:
            if looked_at > _LOOKED_AT or passed > _PASSED:
                break
            need = run.need
            why = self._quotas.over(run, pool, need)
            open_ = up if reservation is None else reservation.open_to(run)
            if not why and (need, open_ is up) not in in_vain:
                if self._start(run, pool, need, open_):
                    (reservation or up).given()
                    continue
                looked_at += 1
                coming = Free(self._coming(pool)) if coming is None else coming
                if self._bring_up(run, pool, need, open_, coming, place + 1 if is_counted else 0):
                    place += run.id not in self._offered
                    (reservation or up).given()
                    coming.given()
                    continue
                in_vain.add((need, open_ is up))
                if reservation is None:
                    reservation, first = Reservation(self._state, pool, need, up, self._running.get(pool.name, ()), self._world.now), run
                    place += 1
                    giving = self._preempt(run, pool, need, up, coming)
                    self._teller.cannot_start(run, pool, need, place, coming, giving)
                    if self._state.policy.no_backfill:
                        return True
            passed += 1
            lane = (run.spec.priority, run.experiment, run.spec.user)
            of_lane[lane] += 1
            if of_lane[lane] > _OF_A_LANE:
                line.drop_lane()
            if run is first:
                continue
            place += 1
            if passed <= _LOOKED_AT:
                if why:
                    self._teller.tell(run, why, place if is_counted else 0)
                elif first is not None and coming is not None:
                    self._teller.comes_later(run, pool, need, place if is_counted else 0, up, coming, first)
            is_counted = is_counted and of_lane[lane] <= _OF_A_LANE
        return passed > 0 or looked_at > 0

    def _start(self, run: Run, pool: Pool, need: Need, up: Free) -> bool:
        """On nodes that are up: all of its gang, or of an elastic one as many as there are."""
        chosen = together(need, up.fitting(need), self._quotas.most(run, pool, need, need.nodes))
        if len(chosen) < need.fewest:
            return False
        self._offer(run, pool, need, chosen)
        return True

    def _bring_up(self, run: Run, pool: Pool, need: Need, up: Free, coming: Free, place: int) -> bool:
        """With nodes that start, could be started, or are idle in other pools. What it is promised nobody else gets meanwhile."""
        within = self._within_room(pool, in_order(need, [*up.fitting(need), *coming.fitting(need)]))
        chosen = together(need, within, self._quotas.most(run, pool, need, need.nodes))
        if len(chosen) < need.fewest:
            return False
        have = len(self.nodes.pools[pool.name].agent_ids)
        fresh = [node for node in chosen if node.where is Where.FRESH]
        starting = [node for node in chosen if node.where in (Where.STARTING, Where.FRESH)]
        for node in chosen:
            self._take(pool, node, f"run {run.id} waits")
        there = [node for node in chosen if node.where is Where.UP]
        if len(there) >= need.fewest:
            self._offer(run, pool, need, there)
            return True
        for node in chosen:
            self.nodes.give(node, need)
        if fresh:
            why = f"{pool.name} grows from {have} to {have + len(fresh)} of at most {pool.max_nodes} nodes"
            self._teller.tell(run, why, place, have, have + len(fresh))
        elif starting and run.status != job.RUN_STATUS_PROVISIONING:
            which = "a node" if len(starting) == 1 else f"{len(starting)} nodes"
            what = f"waits for {which} of {pool.name} that {'is' if len(starting) == 1 else 'are'} starting"
            self._teller.tell(run, what, place, have - len(starting), have)
        return True

    def _take(self, pool: Pool, node: Node, why: str) -> None:
        if node.where in (Where.ELSEWHERE, Where.FRESH):
            self.nodes.take(pool, node, why)
            node.where = Where.STARTING if node.where is Where.FRESH else Where.UP

    def _coming(self, pool: Pool) -> list[Node]:
        return [*self.nodes.starting(pool), *self.nodes.fresh(pool), *self.nodes.elsewhere(pool)]

    def _within_room(self, pool: Pool, nodes: Iterable[Node]) -> list[Node]:
        """Of those that are not the pool's yet, no more than it has room for."""
        room = self.nodes.room(pool)
        kept: list[Node] = []
        for node in nodes:
            outside = node.where in (Where.ELSEWHERE, Where.FRESH)
            if not outside or room > 0:
                kept.append(node)
                room -= outside
        return kept

    def _offer(self, run: Run, pool: Pool, need: Need, nodes: list[Node]) -> None:
        self._order.begins(run)
        self._offered.add(run.id)
        self._teller.begins(run, [node.name for node in nodes])
        for index, node in enumerate(nodes):
            given, gpus = self.nodes.give(node, need)
            self._shares.add(run, given, node.capacity)
            assert node.agent is not None, "only nodes that are up are offered to"
            self.facts.append(offer(run, pool, node.agent, given, gpus, epoch=run.epoch + 1, index=index, nodes=len(nodes)))

    def _widen(self, run: Run, pool: Pool, up: Free) -> None:
        """One more node for a gang that goes on with fewer than it may have, or several. To get back to its size the pool may grow."""
        staying = [it for it in run.members if not it.is_leaving and not it.uploaded]
        held = {it.agent_id for it in run.members}
        need = run.need
        count = len(staying)
        most = count + self._quotas.most(run, pool, need, _gang.most_nodes(run.spec.distribution) - count)
        for node in together(need, (node for node in up.fitting(need) if node.name not in held), most - count):
            self._join(run, pool, need, node, run.next_index + count - len(staying), count + 1)
            count += 1
        up.given()
        lacking = min(most, _gang.node_count(run.spec.distribution)) - count
        if lacking <= 0:
            return
        coming = self._within_room(pool, in_order(need, [node for node in self._coming(pool) if node.fits(need)]))
        for node in together(need, coming, lacking):
            self._take(pool, node, f"run {run.id} goes on with too few nodes")
            if node.where is Where.UP:
                self._join(run, pool, need, node, run.next_index + count - len(staying), count + 1)
                count += 1

    def _join(self, run: Run, pool: Pool, need: Need, node: Node, index: int, nodes: int) -> None:
        given, gpus = self.nodes.give(node, need)
        self._shares.add(run, given, node.capacity)
        assert node.agent is not None, "only nodes that are up are offered to"
        self.facts.append(offer(run, pool, node.agent, given, gpus, epoch=run.epoch, index=index, nodes=nodes, joins=True))

    # -- whoever cannot start

    def _preempt(self, run: Run, pool: Pool, need: Need, up: Free, coming: Free) -> list[Run]:
        """Those that are about to end so that it can start, in the order in which they came."""
        chosen: list[Run] = []
        why = f"run {run.id}, of priority {run.spec.priority}, needs its nodes"
        running = self._running.get(pool.name, [])
        ending = [it for it in running if it.is_ending]
        # Nodes that are too many for the pool go to nobody.
        if len(pool.agent_ids) <= pool.max_nodes:
            room = preempting.Room(self._state, pool, need, up, self.nodes.shunned | self.nodes.given)
            if preempting.room_is_coming(room, ending):
                return ending
            if not self._state.policy.no_preemption:
                chosen = preempting.victims(room, running, run, self._order)
        if not chosen:
            chosen, ending = self._lent(pool, need, up, coming)
            why = f"run {run.id} of {pool.name} needs the node, which was lent"
        for victim in chosen:
            self.facts += preempting.end_for(victim, run, why)
        return sorted([*chosen, *ending], key=lambda it: it.order)

    def _lent(self, pool: Pool, need: Need, up: Free, coming: Free) -> tuple[list[Run], list[Run]]:
        """Runs on nodes that other pools of this machine have on loan: (to end, ending already)."""
        givers = [it for it in self.nodes.pools.values() if it.name != pool.name and gives_way(it, pool)]
        there = self._within_room(pool, in_order(need, [*up.fitting(need), *coming.fitting(need)]))
        lacking = need.fewest - len(there)
        room = self.nodes.room(pool) - sum(it.where in (Where.FRESH, Where.ELSEWHERE) for it in there)
        if not is_local(pool) or lacking > room:
            return [], []

        def can_serve(name: str) -> bool:
            agent = self._state.agents.get(name)
            if agent is None or name in self.nodes.shunned | self.nodes.given:
                return False
            node = node_of(self._state, agent, pool, gone=self._state.index.holds[name])
            return node is not None and node.fits(need)

        running = [run for giver in givers for run in self._running.get(giver.name, ())]
        chosen = preempting.lent(self._state, [(it, self.nodes.spare(it)) for it in givers], can_serve, running, lacking)
        return chosen, [it for it in running if it.is_ending]
