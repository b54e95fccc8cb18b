"""Runs as this service has folded them, once it has read as far as the log goes."""

from __future__ import annotations

from services.chassis.context import Context
from services.registry.domain.runs import Run
from services.registry.handlers import JOBS
from services.registry.shelf import Shelf

# The scheduler tells its callers of an end as soon as it knows; the event may reach the log a moment later.
_END_ON_ITS_WAY_SECONDS = 3.0


class FoldedRuns:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def read(self, run_id: str, *, ended: bool) -> Run | None:
        await self._context.caught_up(JOBS, run_id)
        if ended and (run := self._now(run_id)) is not None and not run.has_ended:
            await self._context.engine.until(lambda: self._has_ended(run_id), _END_ON_ITS_WAY_SECONDS)
        return self._now(run_id)

    def _has_ended(self, run_id: str) -> bool:
        run = self._now(run_id)
        return run is not None and run.has_ended

    def _now(self, run_id: str) -> Run | None:
        with self._context.store.reading() as documents:
            return Shelf(documents).run(run_id)
