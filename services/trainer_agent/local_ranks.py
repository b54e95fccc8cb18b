"""The ranks of one node: started together when their gang is formed, ended together when one fails."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from services.trainer_agent import gang, mirror, script_environment
from services.trainer_agent.adapters.leftovers import MARK
from services.trainer_agent.archive import MetricsFile
from services.trainer_agent.layout import Folders
from services.trainer_agent.metrics import Metrics
from services.trainer_agent.mirror import Mirror
from services.trainer_agent.node import Node
from services.trainer_agent.node_logs import Processes
from services.trainer_agent.on_behalf import OnBehalf
from services.trainer_agent.ports import Ring
from services.trainer_agent.prepare import Prepared
from services.trainer_agent.rank import Ending, Rank
from services.trainer_agent.script_environment import RunToken
from services.trainer_agent.telemetry import Attempt, LogStream
from trainyard._gang import Task
from trainyard.cluster.v1 import cluster_pb2 as cluster


class LocalRanks:
    def __init__(
        self,
        node: Node,
        offer: Any,
        folders: Folders,
        attempt: Attempt,
        metrics: MetricsFile,
        processes: Processes,
        report: Callable[[Any], None],
        is_discarded: Callable[[], bool],
    ) -> None:
        self.ending = Ending(node.grace_seconds)
        self._node = node
        self._offer = offer
        self._folders = folders
        self._attempt = attempt
        self._metrics = metrics
        self._processes = processes
        self._report = report
        self._is_discarded = is_discarded
        self._on_behalf = OnBehalf(offer, folders, node.log, node.objects, node.telemetry.flush, is_discarded)
        self._ranks: list[Rank] = []
        self._checkpoint_folder = folders.code
        self._mirror: Mirror | None = None
        self._mirroring: asyncio.Task[None] | None = None
        self._checkpoints = 0

    async def run(self, formed: Any, prepared: Prepared, ring: Ring | None, checkpoint_folder: Path) -> None:
        """To the end of all. Raises PreparationFailed where one cannot be started; then the others are ended too."""
        mine = self._mine(formed)
        here = gang.tasks_here(self._offer, mine.ranks, len(formed.members))
        self._ranks = [self._rank(local, task) for local, task in enumerate(here)]
        self._checkpoint_folder = checkpoint_folder
        self._mirror_what_rank_0_saves(mine)
        tasks = [
            asyncio.ensure_future(self._start(rank, formed, task, here, prepared, ring))
            for rank, task in zip(self._ranks, here, strict=True)
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            self.ending.begin()
            await asyncio.gather(*tasks, return_exceptions=True)
            for rank in self._ranks:
                rank.close()
            await self._last_look()

    def number_anew(self, formed: Any) -> None:
        """A later round of an elastic gang: the same processes, other ranks."""
        mine = self._mine(formed)
        for rank, number in zip(self._ranks, mine.ranks, strict=False):
            rank.number = number
        if self._ranks and not self.ending.has_begun:
            self._mirror_what_rank_0_saves(mine)

    def _mine(self, formed: Any) -> Any:
        return next(it for it in formed.members if it.incarnation == self._node.me.incarnation)

    def _rank(self, local: int, task: Task) -> Rank:
        offer = self._offer
        number = gang.log_number(offer, local, task)
        name = gang.log_name(offer, number, task)
        output = LogStream(self._attempt, number, name, self._folders.logs / name, self._node.telemetry)
        metrics = Metrics(self._attempt, task.rank, self._node.telemetry, output, self._metrics)
        script = offer.spec.entry_script or next(iter(offer.spec.command), "")
        return Rank(script, metrics, output, self._on_behalf, self._report, self._processes.add(), self.ending)

    async def _start(self, rank: Rank, formed: Any, task: Task, here: Sequence[Task], prepared: Prepared, ring: Ring | None) -> None:
        spec, folders = self._offer.spec, self._folders
        limit = spec.max_duration.ToTimedelta().total_seconds() if spec.HasField("max_duration") else None
        socket = folders.sockets / f"{task.rank}.sock"
        given = script_environment.variables(
            os.environ,
            self._offer,
            python=prepared.python,
            inputs=prepared.inputs,
            socket=socket,
            temporary=folders.temporary,
            spool=folders.spool,
            marks={MARK: self._node.mark},
            token=RunToken.new(time.time(), limit),
            gang=gang.variables(self._offer, formed, task, here) | (dict(ring.variables(formed, task.rank)) if ring else {}),
            threads=gang.threads(spec, len(here)),
        )
        argv = script_environment.argv(prepared.python, self._offer, prepared.inputs, given)
        await rank.run(argv, given, folders.code, socket, limit)

    # -- checkpoints

    def _mirror_what_rank_0_saves(self, mine: Any) -> None:
        if self._mirroring is not None or 0 not in mine.ranks or not mirror.is_wanted(self._offer):
            return
        prefix = f"runs/{self._offer.run_id}/{self._offer.epoch}/checkpoints"
        self._mirror = Mirror(
            self._node.checkpoints, prefix, self._checkpoint_folder, self._folders.staging, self._tell, self._is_discarded
        )
        self._mirroring = asyncio.create_task(self._mirror.run(self._node.checkpoint_seconds))

    async def _last_look(self) -> None:
        if self._mirror is not None and self._mirroring is not None:
            self._mirror.end(max((rank.ended_badly_ns for rank in self._ranks), default=0) or None)
            await self._mirroring

    def _tell(self, checkpoint: Any) -> None:
        self._checkpoints += 1
        self._report(cluster.CheckpointSaved(number=self._checkpoints, checkpoint=checkpoint))
