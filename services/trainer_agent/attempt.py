"""One attempt at a run on this node, from the accepted lease to the saved outputs."""

from __future__ import annotations

import asyncio
import os
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from services.trainer_agent import script_environment
from services.trainer_agent.adapters.leftovers import MARK, end_leftovers
from services.trainer_agent.adapters.outputs import OutputStore
from services.trainer_agent.adapters.ranks import RankProcess
from services.trainer_agent.archive import MetricsFile
from services.trainer_agent.domain import Me
from services.trainer_agent.keeping import keep, keep_metrics
from services.trainer_agent.layout import Folders
from services.trainer_agent.metrics import Metrics
from services.trainer_agent.node_logs import NodeLogs, Phase, Processes, how_it_ended
from services.trainer_agent.on_behalf import Log, OnBehalf
from services.trainer_agent.ports import PreparationFailed
from services.trainer_agent.prepare import Prepared, Preparer
from services.trainer_agent.reporter import Cause, Reporter, as_record
from services.trainer_agent.script_environment import RunToken
from services.trainer_agent.script_socket import ScriptSocket
from services.trainer_agent.telemetry import BUILD_LOG, DRIVER_LOG, Attempt, LogStream
from trainyard._artifacts import count
from trainyard._errors import TrainyardException
from trainyard._objects import Objects
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import Failure

log = structlog.get_logger()
_LAST_WORDS_SECONDS = 30.0


@dataclass(frozen=True)
class Node:
    """What every attempt on this node shares."""

    me: Me
    address: str
    mark: str
    source: str
    grace_seconds: float
    preparer: Preparer
    outputs: OutputStore
    reports: Reporter
    telemetry: Reporter
    objects: Objects
    log: Log


class Running:
    """An attempt as a task. `start`, `stop` and `discard` are what the scheduler's messages make of it."""

    def __init__(self, node: Node, offer: Any, cause: Cause, folders: Folders, release: Callable[[], None]) -> None:
        self.offer = offer
        self._node = node
        self._cause = cause
        self._folders = folders
        self._release = release
        self._attempt = Attempt(offer.run_id, offer.epoch, node.source, cause)
        self._on_behalf = OnBehalf(offer, folders, node.log, node.objects, node.telemetry.flush)
        self._says = NodeLogs(node.me.agent_id, lambda name: self._log(0, name))
        self._metrics = MetricsFile(folders.metrics)
        self._processes = Processes(offer, node.me.agent_id)
        self._gang: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._stopping = asyncio.Event()
        self._discarded = False
        # Not done before the last report lies in the log: heartbeats list the attempt until then.
        self.task = asyncio.create_task(self._run(), name=f"{offer.run_id}.{offer.epoch}")

    def start(self, gang: Any) -> None:
        if not self._gang.done():
            self._gang.set_result(gang)

    def stop(self) -> None:
        """End the script, keep what it has written."""
        self._stopping.set()

    def discard(self) -> None:
        """End at once and say nothing more: the attempt is not ours any longer."""
        self._discarded = True
        self._stopping.set()

    # -- the life

    async def _run(self) -> None:
        offer = self.offer
        log.info("takes a run", run=offer.run_id, epoch=offer.epoch)
        try:
            self._report(cluster.LeaseAccepted())
            try:
                await self._work()
            except PreparationFailed as error:
                log.info("cannot prepare a run", run=offer.run_id, reason=str(error))
                self._report(cluster.TaskFailed(failure=error.failure))
            except Exception as error:
                log.exception("an attempt broke", run=offer.run_id)
                why = Failure(code="NodeError", message=f"The agent failed: {type(error).__name__}: {error}"[:3000])
                self._report(cluster.TaskFailed(failure=why))
            if not self._discarded:
                await self._save()
        finally:
            self._says.close()
            self._metrics.close()
            await asyncio.to_thread(self._clean_up)
            self._release()
        if not self._discarded:
            await self._node.reports.flush()

    def _clean_up(self) -> None:
        """Of the script, that is: also what left its process group to outlive it."""
        end_leftovers(self._node.mark, script_environment.identity(self.offer))
        self._folders.remove()

    async def _work(self) -> None:
        prepared = await self._unless_stopped(self._prepare())
        if prepared is None:
            return
        try:
            await self._prepared(prepared)
        finally:
            prepared.python.release()

    async def _prepared(self, prepared: Prepared) -> None:
        """Ready: told, and when the whole gang is, the ranks run to their end."""
        self._report(cluster.TaskPrepared(address=self._node.address, warnings=[it[:3000] for it in prepared.python.warnings[:20]]))
        for fact in prepared.materialized:
            self._node.reports.send(as_record("trainyard.datasets", fact.name, fact, self._node.source, self._cause))
        gang = await self._unless_stopped(self._gang)
        if gang is None:
            return
        ranks = next(it.ranks for it in gang.members if it.incarnation == self._node.me.incarnation)
        token = RunToken.new(time.time(), self._limit())
        await asyncio.gather(*(self._rank(rank, prepared, token) for rank in ranks))

    async def _unless_stopped(self, work: Any) -> Any:
        """The result, or None when the attempt was stopped first; then the work is cancelled."""
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            task.cancel()
            await asyncio.wait([task])
            return None
        finally:
            stop.cancel()

    async def _prepare(self) -> Prepared:
        def build_log() -> LogStream:
            return self._log(0, BUILD_LOG)

        def say(what: str) -> None:
            self._says.say(Phase.PREPARATION, what)

        def phase(name: str, detail: str, done: bool) -> None:
            say(f"{name}: {'done' if done else 'begins'}{detail and f', {detail}'}")
            self._phase(name, detail, done)

        try:
            prepared = await self._node.preparer.prepare(self.offer.spec, self._folders, phase, build_log, say)
            for warning in prepared.python.warnings:
                say(f"warning: {warning}")
            return prepared
        except PreparationFailed as error:
            say(f"failed: {error}")
            raise
        finally:
            # What a thread has handed over is written before the log is closed.
            await asyncio.sleep(0)
            self._says.close(Phase.PREPARATION)

    async def _rank(self, rank: int, prepared: Prepared, token: RunToken) -> None:
        """Starts the script, listens to it, and reports its end."""
        spec = self.offer.spec
        self._make_results()
        output = self._log(rank, DRIVER_LOG)
        ears = ScriptSocket(Metrics(self._attempt, rank, self._node.telemetry, output, self._metrics), self._on_behalf)
        socket = self._folders.sockets / f"{rank}.sock"
        await ears.listen(socket)
        given = script_environment.variables(
            os.environ,
            self.offer,
            python=prepared.python,
            inputs=prepared.inputs,
            socket=socket,
            temporary=self._folders.temporary,
            spool=self._folders.spool,
            marks={MARK: self._node.mark},
            token=token,
        )
        command = list(script_environment.argv(prepared.python, self.offer, prepared.inputs, given))
        self._says.say(Phase.EXECUTION, f"rank {rank}: starts {shlex.join(command)}")
        try:
            process = await RankProcess.start(command, given, self._folders.code, output)
        except OSError as error:
            self._says.say(Phase.EXECUTION, f"rank {rank}: cannot be started: {error}")
            await ears.close(0)
            output.close()
            what = spec.entry_script or spec.command[0]
            raise PreparationFailed("ScriptNotStarted", f"{what} cannot be started: {error}", what) from error
        self._says.say(Phase.EXECUTION, f"rank {rank}: is process {process.pid}")
        self._processes.started(rank, process.pid, command)
        started = cluster.TaskStarted(rank=rank)
        started.started_at.FromDatetime(datetime.now(UTC))
        self._report(started)
        try:
            code, timed_out = await self._until_end(process, self._limit())
        finally:
            await ears.close()
            output.close()
        status, words = how_it_ended(code, timed_out=timed_out, stopped=self._stopping.is_set())
        self._processes.ended(rank, status, code)
        self._says.say(Phase.EXECUTION, f"rank {rank}: {words}")
        self._report(cluster.TaskExited(rank=rank, exit_code=code, last_lines=list(output.last_lines), timed_out=timed_out))

    def _limit(self) -> float | None:
        """Seconds that the script may take."""
        spec = self.offer.spec
        return float(spec.max_duration.ToTimedelta().total_seconds()) if spec.HasField("max_duration") else None

    def _make_results(self) -> None:
        """Raises PreparationFailed where the source has taken the names of the folders that are copied at the end."""
        for name in ("outputs", "logs"):
            try:
                (self._folders.code / name).mkdir(exist_ok=True)
            except FileExistsError as error:
                what = f"The source folder has a file named {name!r}; that is the name of the folder whose files are kept. Rename it."
                raise PreparationFailed("UserError", what, name) from error

    async def _until_end(self, process: RankProcess, limit: float | None) -> tuple[int, bool]:
        """(exit code, was it the time limit)"""
        end, stop = asyncio.ensure_future(process.wait()), asyncio.ensure_future(self._stopping.wait())
        try:
            done, _ = await asyncio.wait([end, stop], timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if end not in done:
                await process.stop(0 if self._discarded else self._node.grace_seconds)
            return await end, not done
        finally:
            stop.cancel()

    async def _save(self) -> None:
        self._phase("outputs", "", False)
        offer = self.offer
        report = cluster.OutputsUploaded()
        try:
            archived, trouble = await keep_metrics(
                offer, self._node.me.agent_id, self._node.outputs, self._metrics, lambda: self._discarded
            )
            if archived is not None:
                report.metrics.CopyFrom(archived)
            report.warnings.extend(trouble)
            saved, warnings = await keep(offer, self._node.outputs, self._folders, self._says, self._processes, lambda: self._discarded)
            report.outputs.CopyFrom(saved)
            report.warnings.extend(warnings[:50])
            self._phase("outputs", f"{count(saved)} files", True)
        except Exception as error:
            # Whatever it is: a run of which no end is told would hold its node for ever.
            if not isinstance(error, TrainyardException | OSError):
                log.exception("outputs were not saved", run=offer.run_id)
            report.failure.CopyFrom(Failure(code="OutputsLost", message=f"The outputs could not be saved: {error}"[:3000]))
            self._says.say(Phase.AFTERWARDS, f"failed: {report.failure.message}")
        self._says.close()
        # Whoever sees the run end has seen all that it said; a broker that is away delays the end only so long.
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self._node.telemetry.flush()
        except TimeoutError:
            log.warning("ends a run whose last lines are not in the log yet", run=offer.run_id)
        # First free, then told: whoever hears of it may offer the next run at once.
        self._release()
        self._report(report)

    # -- telling

    def _log(self, rank: int, name: str) -> LogStream:
        return LogStream(self._attempt, rank, name, self._folders.logs / name, self._node.telemetry)

    def _phase(self, name: str, detail: str, done: bool) -> None:
        message = cluster.TaskPhase(phase=name, detail=detail[:1000], done=done)
        message.at.FromDatetime(datetime.now(UTC))
        self._report(message)

    def _report(self, message: Any) -> None:
        """Fenced: every report says which attempt and which process it comes from; a discarded attempt says nothing."""
        if self._discarded:
            return
        message.run_id, message.epoch = self.offer.run_id, self.offer.epoch
        message.agent_id, message.incarnation = self._node.me.agent_id, self._node.me.incarnation
        self._node.reports.send(as_record("trainyard.tasks", self.offer.run_id, message, self._node.source, self._cause))
