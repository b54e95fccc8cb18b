"""HistoryService over gRPC: waits until history knows what the caller wrote, looks, translates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import sqlalchemy as sa

from services.chassis.choices import close_to, told
from services.chassis.grpc_server import Code, refuse
from services.chassis.records import LogReader
from services.history import asking, model_views, pool_views, telemetry, views
from services.history.applying import Applied, Applier
from services.history.databases import Databases
from services.history.domain.lineage import label_of
from services.history.domain.moment import Moment, Spot
from services.history.following import Following
from services.history.projecting import story_of
from services.history.reading import clean
from services.history.rebuilding import AlreadyRebuilding, Rebuilder, Step
from services.history.waiting import Freshness
from trainyard.history.v1 import history_pb2 as pb
from trainyard.history.v1 import history_pb2_grpc
from trainyard.job.v1.telemetry_pb2 import MetricBatch

Call = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class History:
    """What the servicer works with."""

    applied: Applied
    applier: Applier
    databases: Databases
    reader: LogReader
    freshness: Freshness
    rebuilder: Rebuilder
    following: Following
    looks: ThreadPoolExecutor

    async def look(self, action: Callable[[sa.Connection], T]) -> T:
        """On a thread of its own: databases block."""

        def act() -> T:
            with self.applier.reading() as connection:
                return action(connection)

        return await asyncio.get_running_loop().run_in_executor(self.looks, act)

    async def moment(self, request: Any, call: Call) -> Moment | None:
        """What the request is of; returns once history knows all of it."""
        as_of = request.as_of if request.HasField("as_of") else pb.AsOf()
        which = as_of.WhichOneof("moment")
        at = asking.time_of(as_of) if which == "time" else 0
        spot = await self._spot(as_of) if which == "place" else None
        await self.freshness.caught_up(call.time_remaining())
        if which is None:
            return None
        return Moment(at) if spot is None else asking.moment_of(spot)

    async def _spot(self, as_of: pb.AsOf) -> Spot:
        place, offset = asking.place_of(as_of)
        end = (await asyncio.to_thread(self.reader.ends, [place.topic]))[place]
        record = None
        if offset < end:
            record = await asyncio.to_thread(lambda: next(iter(self.reader.read(place, offset, offset + 1)), None))
        if record is None:
            raise asking.no_such_record(place, offset, end)
        return Spot(record.timestamp, record.topic, record.partition, record.offset)


class HistoryServicer(history_pb2_grpc.HistoryServiceServicer):
    def __init__(self, history: History) -> None:
        self._history = history

    async def GetRun(self, request: pb.GetRunRequest, call: Call) -> pb.GetRunResponse:
        moment = await self._history.moment(request, call)
        run_id = clean(request.run_id)
        view = await self._history.look(lambda connection: views.run_view(connection, run_id, moment))
        if view is None:
            raise await self._no_run(run_id, moment)
        return pb.GetRunResponse(run=view)

    async def ListRuns(self, request: pb.ListRunsRequest, call: Call) -> pb.ListRunsResponse:
        size = asking.page_size(request.page_size, 100, 1000)
        before = asking.read_token(request.page_token, int, str)
        asking.no_more(request.tags, asking.LABELS, "tags")
        asking.no_more(request.properties, asking.LABELS, "properties")
        asking.no_more(request.statuses, asking.NUMBERS, "statuses")
        asking.no_more(request.text, asking.TEXT, "text")
        wish = views.Wish(
            experiment=clean(request.experiment),
            parent=clean(request.parent_run_id),
            roots_only=request.roots_only,
            statuses=list(request.statuses),
            tags={clean(name): clean(value) for name, value in request.tags.items()},
            properties={clean(name): clean(value) for name, value in request.properties.items()},
            text=clean(request.text),
        )
        moment = await self._history.moment(request, call)
        age = (before[0], clean(before[1])) if before else None
        found = await self._history.look(lambda connection: views.list_runs(connection, wish, moment, age, size + 1))
        answer = pb.ListRunsResponse()
        room = asking.PAGE_BYTES
        for index, (run, _) in enumerate(found):
            room -= run.ByteSize()
            if index == size or (room < 0 and index):
                answer.next_page_token = asking.token(*found[index - 1][1])
                break
            answer.runs.append(run)
        return answer

    async def ListExperiments(self, request: pb.ListExperimentsRequest, call: Call) -> pb.ListExperimentsResponse:
        size = asking.page_size(request.page_size, 100, 1000)
        after = asking.read_token(request.page_token, str)
        moment = await self._history.moment(request, call)
        name = clean(after[0]) if after else ""
        found = await self._history.look(lambda connection: views.experiments(connection, name, moment, size + 1))
        more = asking.token(found[size - 1].name) if len(found) > size else ""
        return pb.ListExperimentsResponse(experiments=found[:size], next_page_token=more)

    async def GetMetrics(self, request: pb.GetMetricsRequest, call: Call) -> pb.GetMetricsResponse:
        size = asking.page_size(request.page_size, 10_000, 100_000)
        after = asking.read_token(request.page_token, str, int, int, int, int)
        asking.no_more(request.ranks, asking.NUMBERS, "ranks")
        moment = await self._history.moment(request, call)
        run_id = clean(request.run_id)
        answer = await self._history.look(lambda connection: _metrics(connection, run_id, request, moment, size, after))
        if answer is None:
            raise await self._no_run(run_id, moment)
        return answer

    async def ReadLog(self, request: pb.ReadLogRequest, call: Call) -> AsyncIterator[pb.ReadLogResponse]:
        if request.follow and request.HasField("as_of"):
            raise asking.wrong("A log as it was does not go on: leave follow out, or as_of.", "follow")
        moment = None
        if request.follow:
            await self._history.freshness.caught_up(None)
        else:
            moment = await self._history.moment(request, call)
        async for answer in self._history.following.lines(request, self._history.look, moment):
            yield answer

    async def GetLineage(self, request: pb.GetLineageRequest, call: Call) -> pb.GetLineageResponse:
        moment = await self._history.moment(request, call)
        return await self._history.look(lambda connection: _lineage(connection, request, moment))

    async def GetPool(self, request: pb.GetPoolRequest, call: Call) -> pb.GetPoolResponse:
        moment = await self._history.moment(request, call)
        found = await self._history.look(lambda connection: pool_views.pool_view(connection, clean(request.name), moment))
        if found is None:
            there = told(await self._history.look(pool_views.pool_names), [])
            when = " at that moment" if moment is not None else ""
            what = f"There is no pool {request.name[:100]!r}{when}; there was: {there}."
            raise refuse(Code.NOT_FOUND, "ComputeTargetNotFound", what, request.name[:100])
        return found

    async def ListPools(self, request: pb.ListPoolsRequest, call: Call) -> pb.ListPoolsResponse:
        moment = await self._history.moment(request, call)
        return await self._history.look(lambda connection: pool_views.pools_view(connection, moment))

    async def GetModel(self, request: pb.GetModelRequest, call: Call) -> pb.GetModelResponse:
        moment = await self._history.moment(request, call)
        asked = pb.ModelRef(model=clean(request.model.model), version=request.model.version, alias=request.model.alias)
        found = await self._history.look(lambda connection: model_views.model_view(connection, asked, moment))
        if found is None:
            raise await self._no_such("model", _told(asked), asked.model, moment, "ModelNotFound")
        return found

    async def ListModels(self, request: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        after = asking.read_token(request.page_token, str, int)
        moment = await self._history.moment(request, call)
        name = clean(request.model)
        return await self._history.look(
            lambda connection: model_views.models_view(connection, name, moment, after, newest_only=request.newest_only)
        )

    async def GetEndpoint(self, request: pb.GetEndpointRequest, call: Call) -> pb.GetEndpointResponse:
        moment = await self._history.moment(request, call)
        name = clean(request.name)
        found = await self._history.look(lambda connection: model_views.endpoint_view(connection, name, moment))
        if found is None:
            raise await self._no_such("endpoint", name, name, moment, "EndpointNotFound")
        return found

    async def ListEndpoints(self, request: pb.ListEndpointsRequest, call: Call) -> pb.ListEndpointsResponse:
        moment = await self._history.moment(request, call)
        return await self._history.look(lambda connection: model_views.endpoints_view(connection, moment))

    async def GetPolicy(self, request: pb.GetPolicyRequest, call: Call) -> pb.GetPolicyResponse:
        moment = await self._history.moment(request, call)
        return await self._history.look(lambda connection: pool_views.policy_view(connection, moment))

    async def GetHistoryStatus(self, _: pb.GetHistoryStatusRequest, __: Call) -> pb.GetHistoryStatusResponse:
        ends = await self._history.freshness.ends()
        positions = dict(self._history.applied.positions)
        applied = [
            pb.GetHistoryStatusResponse.Applied(
                topic=place.topic,
                partition=place.partition,
                next_offset=positions.get(place, 0),
                end_offset=max(end, positions.get(place, 0)),
            )
            for place, end in sorted(ends.items())
        ]
        return pb.GetHistoryStatusResponse(
            applied=applied,
            events=sum(positions.values()),
            database=self._history.databases.name,
            rebuilding=self._history.rebuilder.going_on,
        )

    async def RebuildHistory(self, _: pb.RebuildHistoryRequest, __: Call) -> AsyncIterator[pb.RebuildHistoryResponse]:
        """It goes on to its end even where the caller goes away."""
        steps: asyncio.Queue[Step | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(step: Step | None) -> None:
            loop.call_soon_threadsafe(steps.put_nowait, step)

        def rebuild() -> None:
            try:
                self._history.rebuilder.run(tell)
            finally:
                tell(None)

        work = loop.run_in_executor(self._history.looks, rebuild)
        try:
            while (step := await steps.get()) is not None:
                yield pb.RebuildHistoryResponse(events=step.events, of=step.of, done=step.done)
            await work
        except AlreadyRebuilding:
            what = "A rebuild is going on already; see its progress in GetHistoryStatus."
            raise refuse(Code.FAILED_PRECONDITION, "AlreadyRebuilding", what) from None

    async def _no_such(self, kind: str, asked: str, name: str, moment: Moment | None, code: str) -> Exception:
        names = await self._history.look(lambda connection: model_views.names_in(connection, kind))
        when = " at that moment" if moment is not None else ""
        what = f"There is no {kind} {asked[:300]!r}{when}; there was: {told(close_to(name, names), names)}."
        return refuse(Code.NOT_FOUND, code, what, asked[:300])

    async def _no_run(self, run_id: str, moment: Moment | None) -> Exception:
        close = await self._history.look(lambda connection: views.close_runs(connection, run_id))
        when = " at that moment" if moment is not None else ""
        return refuse(Code.NOT_FOUND, "RunNotFound", f"There is no run {run_id[:255]!r}{when}; alike are: {told(close, [])}.", run_id)


def _metrics(
    connection: sa.Connection, run_id: str, request: pb.GetMetricsRequest, moment: Moment | None, size: int, after: list[Any] | None
) -> pb.GetMetricsResponse | None:
    if story_of(connection, run_id, moment) is None:
        return None
    runs = views.family(connection, run_id, moment) if request.recursive else [run_id]
    start = telemetry.At()
    epoch: int | None = None
    if after is not None:
        if after[0] not in runs:
            raise asking.wrong("page_token is none that this call gave.", "page_token")
        runs = runs[runs.index(after[0]) :]
        epoch, start = after[1], telemetry.At(*after[2:])
    answer = pb.GetMetricsResponse()
    room, count = asking.PAGE_BYTES, 0
    for run in runs:
        epoch = telemetry.newest_epoch(connection, run, moment) if epoch is None else epoch
        of_run = answer.runs.add(run_id=run)
        preferred = telemetry.preferred_ranks(connection, run, moment) if request.preferred_ranks else None
        wanted = None if request.all_epochs else epoch
        found = telemetry.parts(connection, run, moment, wanted, list(request.ranks), request.name, start, preferred)
        last = start
        for part in found:
            fits = _fitting(part.batch, size - count, room, at_least=0 if count else 1)
            if fits:
                of_run.batches.append(part.batch if fits == len(part.numbers) else part.first(fits))
                last = telemetry.At(part.partition, part.offset, part.numbers[fits - 1])
            if fits < len(part.numbers):
                answer.next_page_token = asking.token(run, epoch, last.partition, last.offset, last.index)
                return answer
            room, count = room - part.batch.ByteSize(), count + fits
        epoch, start = None, telemetry.At()
    return answer


def _fitting(batch: MetricBatch, most: int, room: int, at_least: int) -> int:
    """How many of its points have a place on a page that takes so many more, and so many bytes."""
    if len(batch.points) <= most and batch.ByteSize() <= room:
        return len(batch.points)
    fits = 0
    for point in batch.points[:most]:
        room -= point.ByteSize()
        if room < 0 and fits >= at_least:
            break
        fits += 1
    return fits


def _lineage(connection: sa.Connection, request: pb.GetLineageRequest, moment: Moment | None) -> pb.GetLineageResponse:
    which = request.WhichOneof("of")
    if which is None:
        raise asking.wrong("Name a run, a model or a dataset.", "of")
    if which == "run_id":
        start = f"run:{clean(request.run_id)}"
    elif which == "model" and request.model.alias:
        asked = pb.ModelRef(model=clean(request.model.model), alias=request.model.alias)
        start = f"model:{asked.model}:{model_views.model_number(connection, asked, moment) or f'@{asked.alias}'}"
    else:
        name, version = (
            (request.model.model, request.model.version) if which == "model" else (request.dataset.name, request.dataset.version)
        )
        latest = version or views.latest_version(connection, which, clean(name), moment)
        start = f"{which}:{clean(name)}:{latest}"
    if not views.exists(connection, start, moment):
        raise refuse(
            Code.NOT_FOUND, "NotFound", f"There is no {start.replace(':', ' ', 1)[:300]}{' at that moment' if moment else ''}.", start
        )
    nodes, edges = views.lineage(connection, start, moment)
    return pb.GetLineageResponse(
        nodes=[pb.GetLineageResponse.Node(id=node, kind=node.partition(":")[0], label=label or label_of(node)) for node, label in nodes],
        edges=[pb.GetLineageResponse.Edge(source=source, target=target, how=how) for source, target, how in edges],
    )


def _told(asked: pb.ModelRef) -> str:
    if asked.alias:
        return f"{asked.model}@{asked.alias}"
    return f"{asked.model}:{asked.version}" if asked.version else str(asked.model)
