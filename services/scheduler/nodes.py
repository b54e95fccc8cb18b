"""Makes the running agents match the pools: level-triggered, so nothing that went wrong once stays wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from services.chassis.context import Context
from services.scheduler.domain import Pool
from services.scheduler.domain.providers import STATIC, kind_of
from services.scheduler.handlers import SchedulerHandler
from services.scheduler.pool_health import keeper_of
from services.scheduler.ports import NodeProvider, NodeRefused, NodeState, NodeStatus, ProviderTrouble
from trainyard.cluster.v1.cluster_pb2 import Provider

log = structlog.get_logger()
_LOOK_AGAIN_SECONDS = 5.0
# From the start of a process to its registration; imports and Kafka included, on a machine that is busy.
_START_SECONDS = 60.0
# Nodes of a pool that is gone are looked at so often; what is left then ends when it hears that no pool holds it.
_LAST_LOOKS = 12


class Reconciler:
    """Keeps the nodes of one provider: `keeper` names it, see keeper_of."""

    def __init__(self, handler: SchedulerHandler, provider: NodeProvider, keeper: str = "") -> None:
        self._handler = handler
        self._provider = provider
        self._keeper = keeper
        self._asked: dict[str, float] = {}
        self._known: set[str] = set()
        """Whom it has seen or wanted, and not seen to end."""

    async def run(self, context: Context) -> None:
        """For ever, or until its pool is gone and its nodes have ended."""
        last_looks = 0
        while last_looks < _LAST_LOOKS:
            seen = context.engine.revision
            wanted = self._wanted()
            await self.look(time.monotonic())
            if not self._is_needed():
                last_looks += 1
                if not self._known:
                    break
            await context.engine.until(
                lambda seen=seen, wanted=wanted: context.engine.revision != seen and self._wanted() != wanted,  # type: ignore[misc]
                _LOOK_AGAIN_SECONDS,
            )
        self._handler.health.forget(self._keeper)

    def _pools(self) -> Iterable[Pool]:
        return (pool for pool in self._handler.state.pools.values() if keeper_of(pool) == self._keeper)

    def _is_needed(self) -> bool:
        return not self._keeper or any(self._pools())

    def _wanted(self) -> frozenset[str]:
        return frozenset(name for pool in self._pools() for name in pool.agent_ids)

    async def look(self, now: float) -> None:
        """`now` is monotonic seconds."""
        try:
            broken, trouble = await self._look(now), ""
        except ProviderTrouble as error:
            log.warning("nodes cannot be started or stopped now", pool=self._keeper, reason=str(error))
            broken, trouble = {}, str(error)
        self._handler.health.told(self._keeper, broken, trouble)

    async def _look(self, now: float) -> dict[str, str]:
        """Whoever does not come up, and why."""
        wanted = self._wanted()
        self._known |= wanted
        states = await self._provider.states(frozenset(self._known), wanted & self._handler.state.agents.keys())
        self._known = set(states) | wanted
        broken = {name: states[name].why for name in wanted & states.keys() if states[name].state is NodeState.BROKEN}
        names = [*sorted(states.keys() - wanted), *sorted(wanted)]
        done = await asyncio.gather(*(self._look_at(name, name in wanted, states.get(name), now) for name in names), return_exceptions=True)
        self._asked = {name: since for name, since in self._asked.items() if name in self._known}
        for name, error in zip(names, done, strict=True):
            if isinstance(error, NodeRefused):
                log.warning("a node cannot be started or stopped", agent=name, reason=str(error))
                if name in wanted:
                    broken.setdefault(name, str(error))
            elif isinstance(error, BaseException):
                raise error
        return broken

    async def _look_at(self, name: str, wanted: bool, status: NodeStatus | None, now: float) -> None:
        state = status.state if status is not None else None
        if not wanted:
            if state is NodeState.UP or (state is NodeState.LEAVING and now - self._asked.setdefault(name, now) > _START_SECONDS):
                log.info("stops a node", agent=name)
                self._asked[name] = now
                await self._provider.stop(name)
        elif state not in (NodeState.UP, NodeState.LEAVING):
            log.info("starts a node", agent=name)
            await self._provider.start(name)
            self._asked[name] = now
        elif name in self._handler.state.agents:
            self._asked.pop(name, None)
        elif now - self._asked.setdefault(name, now) > _START_SECONDS:
            # It runs and does not speak: hung, stopped, or given up while it was.
            log.warning("ends a node that does not speak", agent=name)
            await self._provider.stop(name)
            self._asked[name] = now


class Nodes:
    """A reconciler for each provider that some pool has, so that one whose hosts do not answer holds up no other."""

    def __init__(self, handler: SchedulerHandler, local: NodeProvider | None, provider_of: Callable[[Pool], NodeProvider]) -> None:
        """`local` None: nobody here starts this machine's own nodes."""
        self._handler = handler
        self._local = local
        self._provider_of = provider_of
        self._kept: dict[str, _Kept] = {}

    async def run(self, context: Context) -> None:
        """For ever. Raises what broke one of the reconcilers."""
        if self._local is not None:
            self._keep("", self._local, Provider(), context)
        while True:
            self._match(context)
            known = self._handler.state.pools
            await context.engine.until(lambda known=known: self._handler.state.pools is not known, _LOOK_AGAIN_SECONDS)  # type: ignore[misc]

    def _match(self, context: Context) -> None:
        for keeper, kept in list(self._kept.items()):
            if kept.task.done():
                kept.task.result()
                del self._kept[keeper]
        for pool in self._handler.state.pools.values():
            keeper = keeper_of(pool)
            known = self._kept.get(keeper)
            if not keeper or kind_of(pool.provider) == STATIC or (known is not None and known.provider == pool.provider):
                continue
            if known is not None:
                # Another pool of that name: what the one before left running ends when it hears that no pool holds it.
                known.task.cancel()
            self._keep(keeper, self._provider_of(pool), pool.provider, context)

    def _keep(self, keeper: str, provider: NodeProvider, definition: Provider, context: Context) -> None:
        reconciler = Reconciler(self._handler, provider, keeper)
        self._kept[keeper] = _Kept(definition, asyncio.ensure_future(reconciler.run(context)))


@dataclass(frozen=True)
class _Kept:
    provider: Provider
    task: asyncio.Task[None]
