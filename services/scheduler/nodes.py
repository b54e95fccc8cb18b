"""Makes the running agents match the pools: level-triggered, so nothing that went wrong once stays wrong."""

from __future__ import annotations

import time

import structlog

from services.chassis.context import Context
from services.scheduler.handlers import SchedulerHandler
from services.scheduler.ports import NodeProvider, NodeState, ProviderTrouble

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
        for name in sorted(states.keys() - wanted):
            if states[name] is NodeState.UP:
                log.info("stops a node", agent=name)
                await self._provider.stop(name)
        self._handler.broken_agents = frozenset(name for name in wanted if states.get(name) is NodeState.BROKEN)
        self._asked = {name: since for name, since in self._asked.items() if name in wanted}
        for name in sorted(wanted):
            if states.get(name) not in (NodeState.UP, NodeState.LEAVING):
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
