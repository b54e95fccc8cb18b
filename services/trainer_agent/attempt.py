"""One attempt at a run on this node, from the accepted lease to the saved outputs."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from services.trainer_agent import gang, script_environment
from services.trainer_agent.adapters.leftovers import end_leftovers
from services.trainer_agent.adapters.reserved_ports import Reservation
from services.trainer_agent.archive import MetricsFile
from services.trainer_agent.domain import Part
from services.trainer_agent.keeping import keep, keep_metrics
from services.trainer_agent.layout import Folders
from services.trainer_agent.local_ranks import LocalRanks
from services.trainer_agent.mirror import DEFAULT_FOLDER
from services.trainer_agent.node import Node
from services.trainer_agent.node_logs import NodeLogs, Phase, Processes, name_of
from services.trainer_agent.ports import PreparationFailed, Ring
from services.trainer_agent.prepare import Prepared, in_thread
from services.trainer_agent.reporter import Cause, as_record
from services.trainer_agent.restored import Placed
from services.trainer_agent.telemetry import BUILD_LOG, Attempt, LogStream
from trainyard._artifacts import count
from trainyard._errors import TrainyardException
from trainyard._gang import is_elastic
from trainyard._paths import below
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import Failure

log = structlog.get_logger()
_LAST_WORDS_SECONDS = 30.0


class Running:
    """An attempt as a task. `form`, `stop` and `discard` are what the scheduler's messages make of it."""

    def __init__(self, node: Node, offer: Any, cause: Cause, folders: Folders, release: Callable[[], None]) -> None:
        self.offer = offer
        self._node = node
        self._cause = cause
        self._folders = folders
        self._release = release
        self._attempt = Attempt(offer.run_id, offer.epoch, node.source, cause)
        name = name_of(node.me.agent_id, offer)
        self._says = NodeLogs(name, self._log)
        self._processes = Processes(offer, name, self._says)
        self._metrics = MetricsFile(folders.metrics)
        self._ranks = LocalRanks(node, offer, folders, self._attempt, self._metrics, self._processes, self._report, lambda: self._discarded)
        self._ring: Ring | None = None
        self._gang: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._newest: Any = None
        """GangFormed; there once `_gang` is done."""
        self._checkpoint_folder = folders.code / DEFAULT_FOLDER
        self._began_with: Mapping[Path, Placed] | None = {}
        """The files of the checkpoint; None while they are not all there."""
        self._stopping = asyncio.Event()
        self._leaving = False
        self._discarded = False
        # Not done before the last report lies in the log: heartbeats list the attempt until then.
        self.task = asyncio.create_task(self._run(), name=f"{offer.run_id}.{offer.epoch}")

    @property
    def part(self) -> Part:
        return Part(self.offer.epoch, self.offer.node_index)

    def form(self, gang: Any) -> None:
        """The ranks start; in a later round they are told who is there now."""
        if self._stopping.is_set():
            return
        self._newest = gang
        if not self._gang.done():
            self._gang.set_result(None)
            return
        if self._ring is not None:
            self._ring.formed(gang)
        self._ranks.number_anew(gang)

    def stop(self) -> None:
        """End the script, keep what it has written."""
        self._stopping.set()
        self._ranks.ending.begin()

    def leave(self) -> None:
        """End the script; of what it has written only a checkpoint is kept, and nothing else is told."""
        self._leaving = True
        self.stop()

    def discard(self) -> None:
        """End at once and say nothing more: the attempt is not ours any longer."""
        self._discarded = True
        self._stopping.set()
        self._ranks.ending.at_once()

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
            if not self._discarded and not self._leaving:
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
        offer = self.offer
        ports = self._node.ports.reserve(gang.ports_wanted(offer))
        try:
            secret = await self._open_ring(ports)
            warnings = [it[:3000] for it in prepared.python.warnings[:20]]
            self._report(cluster.TaskPrepared(address=self._node.address, ports=ports.numbers, secret=secret, warnings=warnings))
            for fact in prepared.materialized:
                self._node.reports.send(as_record("trainyard.datasets", fact.name, fact, self._node.source, self._cause))
            await self._unless_stopped(self._gang)
            if self._newest is None:
                return
            ports.open(*ports.numbers[: len(offer.ranks)])
            if self._ring is not None:
                self._ring.formed(self._newest)
            await self._ranks.run(self._newest, prepared, self._ring, self._checkpoint_folder)
        finally:
            if self._ring is not None:
                await self._ring.close()
            ports.close()

    async def _open_ring(self, ports: Reservation) -> str:
        """The secret of the rendezvous, where this node serves it. Raises PreparationFailed."""
        if not gang.is_horovod(self.offer.spec):
            return ""
        self._ring = self._node.make_ring(is_elastic(self.offer.spec.distribution))
        if not gang.serves_rendezvous(self.offer):
            return ""
        secret, port = secrets.token_hex(16), ports.numbers[-1]
        ports.open(port)
        try:
            await self._ring.start(self._node.address, port, secret)
        except OSError as error:
            what = f"The rendezvous cannot be served on {self._node.address}:{port}: {error}"
            raise PreparationFailed("NodeError", what, self._node.address) from error
        return secret

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
        try:
            prepared = await self._node.preparer.prepare(self.offer.spec, self._folders, self._step, self._build_log, self._say_preparing)
            for warning in prepared.python.warnings:
                self._say_preparing(f"warning: {warning}")
            try:
                await self._make_ready()
            except BaseException:
                prepared.python.release()
                raise
            return prepared
        except PreparationFailed as error:
            self._say_preparing(f"failed: {error}")
            raise
        finally:
            # What a thread has handed over is written before the log is closed.
            await asyncio.sleep(0)
            self._says.close(Phase.PREPARATION)

    async def _make_ready(self) -> None:
        """The folders that are kept, with what an earlier attempt has saved. Raises PreparationFailed."""
        for folder in ("logs", DEFAULT_FOLDER, self.offer.spec.checkpoint_folder or DEFAULT_FOLDER):
            try:
                self._checkpoint_folder = below(self._folders.code, folder)
                self._checkpoint_folder.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                what = f"The source folder has a file named {folder!r}; that is the name of the folder whose files are kept. Rename it."
                raise PreparationFailed("UserError", what, folder) from error
        checkpoint = self.offer.checkpoint
        if not count(checkpoint):
            return
        self._step("checkpoint", f"{count(checkpoint)} files", False)
        restore = self._node.checkpoints.restore
        self._began_with = None
        self._began_with = await in_thread(lambda stopped: restore(checkpoint, self._checkpoint_folder, stopped))
        self._step("checkpoint", f"{len(self._began_with)} files", True)

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
            kept = await keep(
                offer, self._node.outputs, self._folders, self._began_with, self._says, self._processes, lambda: self._discarded
            )
            report.outputs.CopyFrom(kept.outputs)
            if kept.restored is not None:
                report.restored.CopyFrom(kept.restored)
            report.warnings.extend(kept.warnings[:50])
            self._phase("outputs", f"{count(report.outputs) + count(report.restored)} files", True)
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

    def _log(self, name: str) -> LogStream:
        return LogStream(self._attempt, 0, name, self._folders.logs / name, self._node.telemetry)

    def _build_log(self) -> LogStream:
        """Nodes beside the first have theirs with their position in its name."""
        own = f"-{self.offer.node_index}" if self.offer.node_index else ""
        return self._log(f"{BUILD_LOG.removesuffix('.txt')}{own}.txt")

    def _say_preparing(self, what: str) -> None:
        self._says.say(Phase.PREPARATION, what)

    def _step(self, name: str, detail: str, done: bool) -> None:
        """Of the preparation."""
        self._say_preparing(f"{name}: {'done' if done else 'begins'}{detail and f', {detail}'}")
        self._phase(name, detail, done)

    def _phase(self, name: str, detail: str, done: bool) -> None:
        message = cluster.TaskPhase(phase=name, detail=detail[:1000], done=done)
        message.at.FromDatetime(datetime.now(UTC))
        self._report(message)

    def _report(self, message: Any) -> None:
        """Fenced: every report says which attempt and which process it comes from; a discarded attempt says nothing."""
        if self._discarded or (self._leaving and not isinstance(message, cluster.CheckpointSaved)):
            return
        message.run_id, message.epoch = self.offer.run_id, self.offer.epoch
        message.agent_id, message.incarnation = self._node.me.agent_id, self._node.me.incarnation
        self._node.reports.send(as_record("trainyard.tasks", self.offer.run_id, message, self._node.source, self._cause))
