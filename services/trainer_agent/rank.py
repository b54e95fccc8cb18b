"""One rank: its process, its ears for what the script says, and the report of its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.trainer_agent.adapters.ranks import RankProcess
from services.trainer_agent.metrics import Metrics
from services.trainer_agent.node_logs import Process
from services.trainer_agent.ports import PreparationFailed
from services.trainer_agent.script_socket import Requests, ScriptSocket
from services.trainer_agent.telemetry import LogStream
from trainyard.cluster.v1 import cluster_pb2 as cluster


class Ending:
    """Set for all ranks of a node at once: by the scheduler's word, or by the first rank that fails."""

    def __init__(self, grace_seconds: float) -> None:
        self.grace_seconds = grace_seconds
        self._event = asyncio.Event()

    def begin(self) -> None:
        self._event.set()

    def at_once(self) -> None:
        self.grace_seconds = 0.0
        self._event.set()

    @property
    def has_begun(self) -> bool:
        return self._event.is_set()

    async def begun(self) -> None:
        await self._event.wait()


class Rank:
    """`name`: of the script, for people. `metrics` and `output` are tagged with the rank; `report` takes what goes to the scheduler, and
    `story` is the node's own word of it."""

    def __init__(
        self,
        name: str,
        metrics: Metrics,
        output: LogStream,
        requests: Requests,
        report: Callable[[Any], None],
        story: Process,
        ending: Ending,
    ) -> None:
        self.ended_badly_ns = 0
        """When it ended with another code than 0, in nanoseconds of the epoch; 0 = it did not."""
        self._name = name
        self._metrics = metrics
        self._output = output
        self._ears = ScriptSocket(metrics, requests)
        self._report = report
        self._story = story
        self._ending = ending

    @property
    def number(self) -> int:
        return self._metrics.rank

    @number.setter
    def number(self, rank: int) -> None:
        self._metrics.rank = rank

    async def run(self, argv: Sequence[str], given: Mapping[str, str], folder: Path, socket: Path, limit: float | None) -> None:
        """Starts the script, listens to it, and reports its end. Raises PreparationFailed where it cannot be started."""
        await self._ears.listen(socket)
        self._story.starts(self.number, argv)
        try:
            process = await RankProcess.start(argv, given, folder, self._output)
        except OSError as error:
            self._story.cannot_start(self.number, error)
            await self._ears.close()
            self._output.close()
            raise PreparationFailed("ScriptNotStarted", f"{self._name} cannot be started: {error}", self._name) from error
        self._story.runs(self.number, process.pid, argv)
        started = cluster.TaskStarted(rank=self.number)
        started.started_at.FromDatetime(datetime.now(UTC))
        self._report(started)
        end = cluster.TaskExited()
        try:
            await self._until_end(process, limit, end)
        finally:
            await self._ears.close()
            self._output.close()
        self._story.ended(self.number, end)
        end.rank = self.number
        end.last_lines.extend(self._output.last_lines)
        end.exited_at.FromDatetime(process.ended_at or datetime.now(UTC))
        self._report(end)

    def close(self) -> None:
        """Of one that may never have run; a second time does nothing."""
        self._output.close()

    async def _until_end(self, process: RankProcess, limit: float | None, told: Any) -> None:
        """Tells how it ended. The first that fails takes the others along: they would wait for it."""
        end, stop = asyncio.ensure_future(process.wait()), asyncio.ensure_future(self._ending.begun())
        try:
            done, _ = await asyncio.wait([end, stop], timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            told.timed_out = not done
            told.stopped = stop in done and end not in done
            if told.timed_out:
                self._ending.begin()
            if end not in done:
                await process.stop(self._ending.grace_seconds)
            told.exit_code = await end
            if told.exit_code:
                self.ended_badly_ns = time.time_ns()
                self._ending.begin()
        finally:
            stop.cancel()
