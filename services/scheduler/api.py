"""JobService and ComputeService: wire to requests and back. No rule lives here."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from services.chassis.context import Context
from services.chassis.grpc_server import Code, Refused, refuse
from services.chassis.store import Documents
from services.scheduler.domain import Pool, Run, State, labels, opened
from services.scheduler.domain.pools import users
from services.scheduler.domain.validate import POOL
from services.scheduler.handlers import NEWEST, NEWEST_OF, SchedulerHandler, load_run, refusal_of, warning_of
from trainyard._paths import RUN_ID
from trainyard.cluster.v1 import cluster_pb2, cluster_pb2_grpc
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.job.v1 import job_pb2, job_pb2_grpc

JOBS, AGENTS = "trainyard.jobs", "trainyard.agents"
_DEFAULT_PAGE, _LONGEST_PAGE = 100, 1000
_STATUS_OF = {
    "RunNotFound": Code.NOT_FOUND,
    opened.PARENT_ENDED: Code.FAILED_PRECONDITION,
    "RunHasAgents": Code.FAILED_PRECONDITION,
    labels.CONFLICT: Code.FAILED_PRECONDITION,
    labels.TAKEN: Code.ALREADY_EXISTS,
}
"""Any other code is INVALID_ARGUMENT."""


def jobs(handler: SchedulerHandler) -> Callable[[grpc.aio.Server, Context], None]:
    def register(server: grpc.aio.Server, context: Context) -> None:
        job_pb2_grpc.add_JobServiceServicer_to_server(JobServicer(context, handler), server)

    return register


def compute(handler: SchedulerHandler) -> Callable[[grpc.aio.Server, Context], None]:
    def register(server: grpc.aio.Server, context: Context) -> None:
        cluster_pb2_grpc.add_ComputeServiceServicer_to_server(ComputeServicer(context, handler), server)

    return register


class JobServicer(job_pb2_grpc.JobServiceServicer):
    def __init__(self, context: Context, handler: SchedulerHandler) -> None:
        self._context = context
        self._handler = handler

    async def SubmitRun(self, request: Any, _: object) -> Any:
        run, repeated = await self._make(request)
        return job_pb2.SubmitRunResponse(run=run_to_wire(run), repeated_submission=repeated)

    async def OpenRun(self, request: Any, _: object) -> Any:
        run, repeated = await self._make(request)
        return job_pb2.OpenRunResponse(run=run_to_wire(run), repeated_submission=repeated)

    async def CloseRun(self, request: Any, _: object) -> Any:
        run = self._run(request.run_id)
        await self._ask(request, None if run.is_terminal else opened.unclosable(run, request))
        return job_pb2.CloseRunResponse(run=run_to_wire(self._run(request.run_id)))

    async def TagRun(self, request: Any, _: object) -> Any:
        return job_pb2.TagRunResponse(run=run_to_wire(await self._label(request)))

    async def AddRunProperties(self, request: Any, _: object) -> Any:
        return job_pb2.AddRunPropertiesResponse(run=run_to_wire(await self._label(request)))

    async def AddRunFiles(self, request: Any, _: object) -> Any:
        return job_pb2.AddRunFilesResponse(run=run_to_wire(await self._label(request)))

    async def CancelRun(self, request: Any, _: object) -> Any:
        self._run(request.run_id)
        await self._context.request(JOBS, request.run_id, request)
        return job_pb2.CancelRunResponse(run=run_to_wire(self._run(request.run_id)))

    async def GetRun(self, request: Any, _: object) -> Any:
        run = self._run(request.run_id)
        await self._told_of(run)
        return job_pb2.GetRunResponse(run=run_to_wire(run))

    async def ListRuns(self, request: Any, _: object) -> Any:
        limit = min(request.limit or _DEFAULT_PAGE, _LONGEST_PAGE)
        if request.queue_of:
            return job_pb2.ListRunsResponse(runs=self._queue(request.queue_of)[:limit])
        with self._context.store.reading() as documents:
            kind = NEWEST_OF.format(request.experiment) if request.experiment else NEWEST
            found = [load_run(documents, content.decode()) for _, content in documents.newest(kind, limit)]
        return job_pb2.ListRunsResponse(runs=[run_to_wire(run, whole=False) for run in found if run is not None])

    def _queue(self, pool: str) -> list[Any]:
        waiting = (run for run in self._handler.state.runs.values() if run.waits_for_a_node and run.spec.compute_target == pool)
        wires = [run_to_wire(run) for run in sorted(waiting, key=lambda run: run.order)]
        for wire in wires:
            for large in ("source", "environment", "inputs"):
                wire.spec.ClearField(large)
        return sorted(wires, key=lambda wire: wire.position)

    async def WatchRun(self, request: Any, _: object) -> AsyncIterator[Any]:
        sent = -1
        while True:
            run = self._run(request.run_id)
            if run.revision > sent:
                sent = run.revision
                await self._told_of(run)
                yield job_pb2.WatchRunResponse(run=run_to_wire(run))
            if run.is_terminal:
                return
            await self._context.engine.until(lambda sent=sent: self._live_revision(request.run_id) != sent, 30.0)  # type: ignore[misc]

    async def _told_of(self, run: Run) -> None:
        """Whoever sees a run's end may ask another service about it, which knows what lies in the log."""
        if run.is_terminal:
            await self._context.told()

    def _live_revision(self, run_id: str) -> int | None:
        """From memory: asked after every event, heartbeats included, for everybody who watches. None: it has ended."""
        run = self._handler.state.runs.get(run_id)
        return None if run is None else run.revision

    async def _make(self, request: Any) -> tuple[Run, bool]:
        """The run that the submission id names, and whether it was there already."""
        request.submission_id = request.submission_id or f"run_{uuid.uuid4().hex}"
        if not RUN_ID.match(request.submission_id):
            what = f"submission_id {request.submission_id[:200]!r} is none: letters or digits first, then also - and _, at most 128."
            raise refuse(Code.INVALID_ARGUMENT, "UserError", what, "submission_id")
        event_id = await self._context.request(JOBS, request.submission_id, request)
        run = self._run(request.submission_id)
        if run.failure is not None and run.status == job_pb2.RUN_STATUS_REJECTED:
            raise _refused(run.failure)
        return run, run.submitted_by != event_id

    async def _label(self, request: Any) -> Run:
        run = self._run(request.run_id)
        if run.status == job_pb2.RUN_STATUS_REJECTED:
            raise refuse(Code.NOT_FOUND, "RunNotFound", f"{run.id} was rejected and never became a run.", run.id)
        await self._ask(request, labels.refusal(run, request))
        return self._run(request.run_id)

    async def _ask(self, request: Any, refusal: Failure | None) -> None:
        """A refusal is seen twice: before, and by what others asked meanwhile."""
        if refusal is not None:
            raise _refused(refusal)
        event_id = await self._context.request(JOBS, request.run_id, request)
        with self._context.store.reading() as documents:
            warned = warning_of(documents, event_id)
        if warned:
            raise refuse(Code.FAILED_PRECONDITION, "Conflict", warned, request.run_id)

    def _run(self, run_id: str) -> Run:
        with self._context.store.reading() as documents:
            run = load_run(documents, run_id)
            if run is not None:
                return run
            newest = ", ".join(content.decode() for _, content in documents.newest(NEWEST, 5))
        raise refuse(Code.NOT_FOUND, "RunNotFound", f"There is no run {run_id[:200]!r}; the newest are: {newest or 'none'}.", run_id)


class ComputeServicer(cluster_pb2_grpc.ComputeServiceServicer):
    def __init__(self, context: Context, handler: SchedulerHandler) -> None:
        self._context = context
        self._handler = handler

    async def CreatePool(self, request: Any, _: object) -> Any:
        if not POOL.match(request.name):
            what = f"{request.name[:100]!r} is no name of a compute target: a letter, then letters, digits and -, 2 to 32 in all."
            raise refuse(Code.INVALID_ARGUMENT, "UserError", what, "name")
        request.submission_id = request.submission_id or uuid.uuid4().hex
        await self._context.request(AGENTS, request.name, request)
        with self._context.store.reading() as documents:
            self._raise_refusal(documents, request)
        pool = self._pool(request.name)
        wire = pool_to_wire(pool, self._handler.state)
        return cluster_pb2.CreatePoolResponse(pool=wire, repeated_submission=pool.submission_id != request.submission_id)

    @staticmethod
    def _raise_refusal(documents: Documents, request: Any) -> None:
        failure = refusal_of(documents, request.submission_id)
        if failure is not None:
            raise Refused(Code.ALREADY_EXISTS if failure.code == "AlreadyExists" else Code.INVALID_ARGUMENT, failure)

    async def GetPool(self, request: Any, _: object) -> Any:
        return cluster_pb2.GetPoolResponse(pool=pool_to_wire(self._pool(request.name), self._handler.state))

    async def ListPools(self, request: Any, _: object) -> Any:
        state = self._handler.state
        return cluster_pb2.ListPoolsResponse(pools=[pool_to_wire(state.pools[name], state) for name in sorted(state.pools)])

    async def DeletePool(self, request: Any, _: object) -> Any:
        self._pool(request.name)
        await self._context.request(AGENTS, request.name, request)
        if request.name in self._handler.state.pools:
            used = ", ".join(users(self._handler.state, request.name)[:10])
            raise refuse(Code.FAILED_PRECONDITION, "InUse", f"{request.name} is used by runs that have not ended: {used}.", request.name)
        return cluster_pb2.DeletePoolResponse()

    def _pool(self, name: str) -> Pool:
        pool = self._handler.state.pools.get(name)
        if pool is None:
            there = ", ".join(sorted(self._handler.state.pools)) or "none"
            raise refuse(Code.NOT_FOUND, "ComputeTargetNotFound", f"There is no compute target {name[:100]!r}; there is: {there}.", name)
        return pool


def _refused(failure: Failure) -> Refused:
    return Refused(_STATUS_OF.get(failure.code, Code.INVALID_ARGUMENT), failure)


def run_to_wire(run: Run, *, whole: bool = True) -> Any:
    """Without its specification and outputs where a list is asked for."""
    wire = job_pb2.Run(
        run_id=run.id,
        experiment=run.experiment,
        number=run.number,
        status=run.status,  # type: ignore[arg-type]
        why=run.why,
        epoch=run.epoch,
        agent_ids=[member.agent_id for member in run.members],
        failure=run.failure,
        warnings=run.warnings,
        revision=run.revision,
        tags=run.tags,
        properties=run.properties,
        parent_run_id=run.parent_run_id,
        opened=run.opened,
        display_name=run.display_name,
    )
    if whole:
        wire.spec.CopyFrom(run.spec)
        wire.outputs.CopyFrom(run.all_files())
    wire.queued_at.FromDatetime(run.queued_at)
    if run.started_at is not None:
        wire.started_at.FromDatetime(run.started_at)
    if run.ended_at is not None:
        wire.ended_at.FromDatetime(run.ended_at)
    return wire


def pool_to_wire(pool: Pool, state: State) -> Any:
    busy = state.busy_agents()

    def node(agent_id: str) -> Any:
        run_id = busy.get(agent_id, "")
        node_state = "preparing" if agent_id not in state.agents else "running" if run_id else "idle"
        return cluster_pb2.PoolNode(agent_id=agent_id, state=node_state, run_id=run_id)

    wire = cluster_pb2.Pool(
        name=pool.name,
        vm_size=pool.vm_size,
        vm_priority=pool.vm_priority,
        min_nodes=pool.min_nodes,
        max_nodes=pool.max_nodes,
        idle_before_scaledown=Duration(seconds=int(pool.idle_seconds)),
        shape=pool.shape,
        note=pool.note,
        nodes=[node(agent_id) for agent_id in pool.agent_ids],
    )
    wire.created_at.FromDatetime(pool.created_at)
    return wire
