"""JobService and ComputeService: wire to requests and back. No rule lives here."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from services.chassis.context import Context
from services.chassis.grpc_server import Code, Refused, refuse
from services.scheduler.domain import Pool, Run, fencing, gang, labels, opened, policy, pools
from services.scheduler.domain.pools import users
from services.scheduler.domain.validate import POOL
from services.scheduler.handlers import NEWEST, NEWEST_OF, SchedulerHandler, load_run, refusal_of, warning_of
from services.scheduler.pool_wire import pool_to_wire
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
    fencing.OVER: Code.FAILED_PRECONDITION,
}
"""Any other code is INVALID_ARGUMENT."""
_STATUS_OF_POOL = {"AlreadyExists": Code.ALREADY_EXISTS, "ComputeTargetNotFound": Code.NOT_FOUND}


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
        return job_pb2.SubmitRunResponse(run=self._wire(run), repeated_submission=repeated)

    async def OpenRun(self, request: Any, _: object) -> Any:
        run, repeated = await self._make(request)
        return job_pb2.OpenRunResponse(run=self._wire(run), repeated_submission=repeated)

    async def CloseRun(self, request: Any, _: object) -> Any:
        run = self._run(request.run_id)
        await self._ask(request, None if run.is_terminal else opened.unclosable(run, request))
        return job_pb2.CloseRunResponse(run=self._wire(self._run(request.run_id)))

    async def TagRun(self, request: Any, _: object) -> Any:
        return job_pb2.TagRunResponse(run=self._wire(await self._label(request)))

    async def AddRunProperties(self, request: Any, _: object) -> Any:
        return job_pb2.AddRunPropertiesResponse(run=self._wire(await self._label(request)))

    async def AddRunFiles(self, request: Any, _: object) -> Any:
        return job_pb2.AddRunFilesResponse(run=self._wire(await self._label(request)))

    async def CancelRun(self, request: Any, _: object) -> Any:
        self._run(request.run_id)
        await self._context.request(JOBS, request.run_id, request)
        return job_pb2.CancelRunResponse(run=self._wire(self._run(request.run_id)))

    async def GetRun(self, request: Any, _: object) -> Any:
        run = self._run(request.run_id)
        await self._told_of(run)
        return job_pb2.GetRunResponse(run=self._wire(run))

    async def ListRuns(self, request: Any, _: object) -> Any:
        limit = min(request.limit or _DEFAULT_PAGE, _LONGEST_PAGE)
        if request.queue_of:
            return job_pb2.ListRunsResponse(runs=self._queue(request.queue_of, limit))
        with self._context.store.reading() as documents:
            kind = NEWEST_OF.format(request.experiment) if request.experiment else NEWEST
            found = [load_run(documents, content.decode()) for _, content in documents.newest(kind, limit)]
        return job_pb2.ListRunsResponse(runs=[self._wire(run, whole=False) for run in found if run is not None])

    def _queue(self, pool: str, limit: int) -> list[Any]:
        wires = [run_to_wire(run, at, why) for run, at, why in itertools.islice(self._handler.queue(pool), limit)]
        for wire in wires:
            for large in ("source", "environment", "inputs"):
                wire.spec.ClearField(large)
        return wires

    async def WatchRun(self, request: Any, _: object) -> AsyncIterator[Any]:
        sent = -1
        while True:
            run = self._run(request.run_id)
            if run.revision > sent:
                sent = run.revision
                await self._told_of(run)
                yield job_pb2.WatchRunResponse(run=self._wire(run))
            if run.is_terminal:
                return
            await self._context.engine.until(lambda sent=sent: self._live_revision(request.run_id) != sent, 30.0)  # type: ignore[misc]

    def _wire(self, run: Run, *, whole: bool = True) -> Any:
        position, why = self._handler.explain(run)
        return run_to_wire(run, position, why, whole=whole)

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
        await self._ask(request.name, request)
        pool = self._pool(request.name)
        return cluster_pb2.CreatePoolResponse(pool=self._wire(pool), repeated_submission=pool.submission_id != request.submission_id)

    async def GetPool(self, request: Any, _: object) -> Any:
        return cluster_pb2.GetPoolResponse(pool=self._wire(self._pool(request.name)))

    async def ListPools(self, request: Any, _: object) -> Any:
        known = self._handler.state.pools
        return cluster_pb2.ListPoolsResponse(pools=[self._wire(known[name]) for name in sorted(known)])

    async def UpdatePool(self, request: Any, _: object) -> Any:
        pool = self._pool(request.name)
        if (wrong := pools.unchangeable(pool, request)) is not None:
            raise Refused(Code.INVALID_ARGUMENT, wrong)
        await self._ask(request.name, request)
        return cluster_pb2.UpdatePoolResponse(pool=self._wire(self._pool(request.name)))

    async def DrainAgent(self, request: Any, _: object) -> Any:
        state = self._handler.state
        if request.agent_id not in state.agents:
            there = ", ".join(sorted(state.agents)[:20]) or "none"
            what = f"There is no agent {request.agent_id[:100]!r}; there is: {there}."
            raise refuse(Code.NOT_FOUND, "AgentNotFound", what, request.agent_id)
        if (pool := pools.keeper(state, request.agent_id)) is not None:
            what = (
                f"{request.agent_id} belongs to {pool.name}, which would start it anew; give {pool.name} a lower max_nodes, or delete it."
            )
            raise refuse(Code.FAILED_PRECONDITION, "InUse", what, request.agent_id)
        await self._ask(request.agent_id, request)
        return cluster_pb2.DrainAgentResponse()

    async def SetPolicy(self, request: Any, _: object) -> Any:
        request.submission_id = request.submission_id or uuid.uuid4().hex
        await self._ask(policy.NAME, request)
        return cluster_pb2.SetPolicyResponse(policy=self._handler.state.policy)

    async def GetPolicy(self, request: Any, _: object) -> Any:
        return cluster_pb2.GetPolicyResponse(policy=self._handler.state.policy)

    async def _ask(self, key: str, request: Any) -> None:
        event_id = await self._context.request(AGENTS, key, request)
        with self._context.store.reading() as documents:
            failure = refusal_of(documents, getattr(request, "submission_id", "") or event_id)
        if failure is not None:
            raise Refused(_STATUS_OF_POOL.get(failure.code, Code.INVALID_ARGUMENT), failure)

    def _wire(self, pool: Pool) -> Any:
        return pool_to_wire(pool, self._handler.state, self._handler.health)

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


def run_to_wire(run: Run, position: int, why: str, *, whole: bool = True) -> Any:
    """Without its specification and outputs where a list is asked for. `position` and `why` are of the moment: events tell a position when it has changed much."""
    wire = job_pb2.Run(
        run_id=run.id,
        experiment=run.experiment,
        number=run.number,
        status=run.status,  # type: ignore[arg-type]
        why=why,
        position=position,
        epoch=run.epoch,
        restarts=run.restarts,
        agent_ids=[member.agent_id for member in gang.in_order(run.members)],
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
        wire.members.extend(gang.to_wire(it, it.ranks) for it in gang.in_order(run.members))
    wire.queued_at.FromDatetime(run.queued_at)
    if run.started_at is not None:
        wire.started_at.FromDatetime(run.started_at)
    if run.ended_at is not None:
        wire.ended_at.FromDatetime(run.ended_at)
    return wire
