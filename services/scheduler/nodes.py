"""Makes the running agents match the pools: level-triggered, so nothing that went wrong once stays wrong."""

from __future__ import annotations

import time

import structlog

from services.chassis.context import Context
from services.scheduler.handlers import SchedulerHandler
from services.scheduler.ports import NodeProvider, NodeRefused, NodeState, ProviderTrouble

log = structlog.get_logger()
_LOOK_AGAIN_SECONDS = 5.0
# From the start of a process to its registration; imports and Kafka included, on a machine that is busy.
_START_SECONDS = 60.0


class Reconciler:
    def __init__(self, handler: SchedulerHandler, provider: NodeProvider) -> None:
        self._handler = handler
        self._provider = provider
        self._asked: dict[str, float] = {}

    async def run(self, context: Context) -> None:
        while True:
            seen = context.engine.revision
            wanted = self._wanted()
            try:
                await self.look(time.monotonic())
            except ProviderTrouble as trouble:
                log.warning("nodes cannot be started or stopped now", reason=str(trouble))
            await context.engine.until(
                lambda seen=seen, wanted=wanted: context.engine.revision != seen and self._wanted() != wanted,  # type: ignore[misc]
                _LOOK_AGAIN_SECONDS,
            )

    def _wanted(self) -> frozenset[str]:
        return frozenset(name for pool in self._handler.state.pools.values() for name in pool.agent_ids)

    async def look(self, now: float) -> None:
        """`now` is monotonic seconds."""
        states, wanted = await self._provider.states(), self._wanted()
        broken = {name for name in wanted if states.get(name) is NodeState.BROKEN}
        try:
            for name in (*sorted(states.keys() - wanted), *sorted(wanted)):
                try:
                    await self._look_at(name, name in wanted, states.get(name), now)
                except NodeRefused as refused:
                    log.warning("a node cannot be started or stopped", agent=name, reason=str(refused))
                    broken |= {name} & wanted
        finally:
            self._handler.broken_agents = frozenset(broken)
        self._asked = {name: since for name, since in self._asked.items() if name in wanted}

    async def _look_at(self, name: str, wanted: bool, state: NodeState | None, now: float) -> None:
        if not wanted:
            if state is NodeState.UP:
                log.info("stops a node", agent=name)
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
