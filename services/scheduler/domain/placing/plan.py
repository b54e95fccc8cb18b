"""One decision: every pool's queue from its head, with what is free, what can be started, and what may be taken from others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from services.scheduler.domain import elastic
from services.scheduler.domain.facts import Fact
from services.scheduler.domain.placing import preempting, queue, words
from services.scheduler.domain.placing.growing import Nodes, gives_way, is_local
from services.scheduler.domain.placing.needs import Free, Need, Node, Shares, Where, in_order, share_of
from services.scheduler.domain.placing.offering import offer
from services.scheduler.domain.placing.reserving import Reservation
from services.scheduler.domain.providers import STATIC, kind_of
from services.scheduler.domain.state import Pool, Run, State, World
from trainyard import _gang
from trainyard.cluster.v1.resources_pb2 import Resources
from trainyard.job.v1 import job_pb2 as job

# Behind the first that cannot start, so many are looked at: a gap that nobody of them fits stays until the next change.
_LOOKED_AT = 50


def may_place(before: State, after: State) -> bool:
    """Something has changed that a placement depends on. Most reports change nothing of it, and a run that comes to the end of a long
    line changes nothing for those before it."""
    if _only_a_line_grew(before, after):
        return False
    return (
        before.pools is not after.pools
        or before.agents is not after.agents
        or before.policy is not after.policy
        or before.index.waiting is not after.index.waiting
        or before.index.holds is not after.index.holds
    )


def _only_a_line_grew(before: State, after: State) -> bool:
    if before.pools is not after.pools or before.agents is not after.agents or before.index.holds is not after.index.holds:
        return False
    changed = [name for name, lanes in after.index.waiting.items() if before.index.waiting.get(name) is not lanes]
    if len(changed) != 1 or before.index.waiting.keys() != after.index.waiting.keys():
        return False
    old, new = before.index.waiting[changed[0]], after.index.waiting[changed[0]]
    grown = [lane for lane, queue in new.items() if old.get(lane) is not queue]
    return len(grown) == 1 and grown[0] in old and _LOOKED_AT < len(old[grown[0]]) < len(new[grown[0]])


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
        self._elastic: dict[str, list[Run]] = {}
        for name in state.index.attempts:
            run = state.runs[name]
            if run.is_elastic and elastic.goes_on(run):
                self._elastic.setdefault(run.spec.compute_target, []).append(run)

    def targets(self) -> list[str]:
        """Pools for which something is to be done: whoever's first run goes first, and nodes that are lent last."""
        state = self._state

        def first(name: str) -> tuple[bool, Any]:
            pool = state.pools.get(name)
            head = next(queue.in_order(state, name, self._shares, self._world.now), None)
            lent = pool is not None and pool.vm_priority == "lowpriority"
            return (lent, (1,) if head is None else (0, head.order))

        return sorted({*state.index.waiting, *self._elastic}, key=lambda name: (*first(name), name))

    def gone(self, name: str) -> None:
        for run in queue.in_order(self._state, name, self._shares, self._world.now):
            self.facts += words.waits(run, f"the compute target {name} is gone", 0, 0)

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
        looked_at = 0
        for run in queue.in_order(self._state, pool.name, self._shares, self._world.now):
            if looked_at > _LOOKED_AT:
                break
            need = Need.of(run.spec)
            if why := self._over_quota(run, pool, need):
                self.facts += words.waits(run, why, 0, 0)
                looked_at += 1
                continue
            open_ = up if reservation is None else reservation.open_to(run)
            if self._start(run, need, open_):
                (reservation or up).given()
                continue
            looked_at += 1
            coming = Free(self._coming(pool)) if coming is None else coming
            if self._bring_up(run, pool, need, open_, coming):
                (reservation or up).given()
                coming.given()
                continue
            if reservation is None:
                reservation = Reservation(self._state, pool, need, up, self._world.now)
                self._preempt(run, pool, need, up)
                if self._state.policy.no_backfill:
                    break
            self._tell_why(run, pool, need)
        return looked_at > 0

    def _start(self, run: Run, need: Need, up: Free) -> bool:
        """On nodes that are up: all of its gang, or of an elastic one as many as there are."""
        for count in range(need.nodes, need.fewest - 1, -1):
            chosen = up.choose(need, count)
            if chosen is not None:
                self._offer(run, need, chosen, count)
                return True
        return False

    def _bring_up(self, run: Run, pool: Pool, need: Need, up: Free, coming: Free) -> bool:
        """With nodes that start, could be started, or are idle in other pools. What it is promised nobody else gets meanwhile."""
        chosen = in_order(need, [*up.fitting(need), *coming.fitting(need)])[: need.nodes]
        if len(chosen) < need.nodes:
            return False
        have = len(self.nodes.pools[pool.name].agent_ids)
        fresh = [node for node in chosen if node.where is Where.FRESH]
        starting = [node for node in chosen if node.where in (Where.STARTING, Where.FRESH)]
        for node in chosen:
            if node.where in (Where.ELSEWHERE, Where.FRESH):
                self.nodes.take(pool, node, f"run {run.id} waits")
                node.where = Where.STARTING if node.where is Where.FRESH else Where.UP
        if not starting:
            self._offer(run, need, chosen, need.nodes)
        else:
            for node in chosen:
                node.give(need)
        if fresh:
            why = f"{pool.name} grows from {have} to {have + len(fresh)} of at most {pool.max_nodes} nodes"
            self.facts += words.waits(run, why, have, have + len(fresh))
        elif starting and run.status != job.RUN_STATUS_PROVISIONING:
            which = "a node" if len(starting) == 1 else f"{len(starting)} nodes"
            what = f"waits for {which} of {pool.name} that {'is' if len(starting) == 1 else 'are'} starting"
            self.facts += words.waits(run, what, have - len(starting), have)
        coming.nodes = self._within_room(coming.nodes, pool)
        return True

    def _coming(self, pool: Pool) -> list[Node]:
        return [*self.nodes.starting(pool), *self.nodes.fresh(pool), *self.nodes.elsewhere(pool)]

    def _within_room(self, nodes: Iterable[Node], pool: Pool) -> list[Node]:
        """Of those that are not the pool's yet, no more than it has room for."""
        room = self.nodes.room(pool)
        kept: list[Node] = []
        for node in nodes:
            outside = node.where in (Where.ELSEWHERE, Where.FRESH)
            if not outside or room > 0:
                kept.append(node)
                room -= outside
        return kept

    def _offer(self, run: Run, need: Need, nodes: Iterable[Node], count: int) -> None:
        for index, node in enumerate(nodes):
            given, gpus = node.give(need)
            self._shares.add(run, given, node.capacity)
            assert node.agent is not None, "only nodes that are up are offered to"
            self.facts.append(offer(run, node.agent, given, gpus, epoch=run.epoch + 1, index=index, nodes=count))

    def _widen(self, run: Run, pool: Pool, up: Free) -> None:
        """One more node for a gang that goes on with fewer than it may have, or several. To get back to its size the pool may grow."""
        staying = [it for it in run.members if not it.is_leaving and not it.uploaded]
        wanted = _gang.most_nodes(run.spec.distribution) - len(staying)
        held = {it.agent_id for it in run.members}
        need = Need.of(run.spec)
        index = run.next_index
        count = len(staying)
        for node in [node for node in up.fitting(need) if node.name not in held][:wanted]:
            given, gpus = node.give(need)
            self._shares.add(run, given, node.capacity)
            assert node.agent is not None, "only nodes that are up are offered to"
            self.facts.append(offer(run, node.agent, given, gpus, epoch=run.epoch, index=index, nodes=count + 1, joins=True))
            index, count = index + 1, count + 1
        up.given()
        lacking = _gang.node_count(run.spec.distribution) - count
        if lacking > 0:
            coming = self._coming(pool)
            self._bring_some_up(run, pool, need, coming, lacking)

    def _bring_some_up(self, run: Run, pool: Pool, need: Need, coming: Sequence[Node], lacking: int) -> None:
        for node in sorted((it for it in coming if it.fits(need)), key=lambda it: it.where)[:lacking]:
            if node.where is Where.FRESH:
                self.nodes.take(pool, node, f"run {run.id} goes on with too few nodes")

    # -- whoever cannot start

    def _over_quota(self, run: Run, pool: Pool, need: Need) -> str:
        quotas = self._state.policy.quotas
        share = share_of(self._state, run)
        if share not in quotas:
            return ""
        quota, held = quotas[share], self._shares.held(share)
        each = pool.shape if need.whole else Resources(cpus=need.cpus, memory_bytes=need.memory_bytes, gpus=need.gpus)
        asked = (
            (each.cpus, held.cpus, quota.cpus),
            (each.memory_bytes, held.memory_bytes, quota.memory_bytes),
            (each.gpus, held.gpus, quota.gpus),
        )
        over = any(most and now + one * need.fewest > most for one, now, most in asked)
        return words.over_quota(share, quota) if over else ""

    def _preempt(self, run: Run, pool: Pool, need: Need, up: Free) -> None:
        if self._state.policy.no_preemption or preempting.room_is_coming(self._state, pool, need, up):
            return
        chosen = preempting.victims(self._state, self._world, pool, run, need, up, self._shares)
        why = f"run {run.id}, of priority {run.spec.priority}, needs its nodes"
        if not chosen and is_local(pool) and self.nodes.room(pool):
            lacking = need.fewest - len(up.fitting(need))
            lowly = any(gives_way(it, pool) for it in self._state.pools.values())
            chosen = preempting.of_lowpriority(self._state, pool, lacking) if lowly and pool.vm_priority != "lowpriority" else []
            why = f"run {run.id} of {pool.name} needs the node, which was lent"
        for victim in chosen:
            self.facts += preempting.end_for(victim, run, why)

    def _tell_why(self, run: Run, pool: Pool, need: Need) -> None:
        have = len(pool.agent_ids)
        broken = self.nodes.broken(pool)
        if broken:
            why = self._world.broken_why.get(broken[0], f"see logs/{broken[0]}.log")
            self.facts += words.waits(run, f"waits for {broken[0]} of {pool.name}, whose process does not come up: {why}", 0, 1)
            return
        is_static = kind_of(pool.provider) == STATIC
        room = self.nodes.room(pool)
        why = words.full(pool, need, room, self._world.node_slots, is_local=is_local(pool), is_static=is_static)
        self.facts += words.waits(run, why, have, have)
