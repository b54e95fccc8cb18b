"""The platform's services in memory behind one real gRPC port: what the client's tests talk to."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from trainyard import Workspace, _file_lists
from trainyard._errors import FAILURE_KEY
from trainyard._objects import MemoryObjects
from trainyard.cluster.v1 import cluster_pb2, cluster_pb2_grpc
from trainyard.dataset.v1 import dataset_pb2, dataset_pb2_grpc
from trainyard.endpoint.v1 import endpoint_pb2, endpoint_pb2_grpc
from trainyard.environment.v1 import environment_pb2, environment_pb2_grpc
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.history.v1 import history_pb2, history_pb2_grpc
from trainyard.job.v1 import job_pb2, job_pb2_grpc, telemetry_pb2
from trainyard.model.v1 import model_pb2, model_pb2_grpc

SERVICES = ("scheduler", "dataset", "registry", "serving", "history")


@dataclass
class Platform:
    """What it holds may be set by a test; `asked` is every request as it came, newest last."""

    runs: dict[str, history_pb2.RunView] = field(default_factory=dict)
    metrics: dict[str, list[telemetry_pb2.MetricPoint]] = field(default_factory=dict)
    log_lines: dict[str, list[str]] = field(default_factory=dict)
    pools: dict[str, cluster_pb2.Pool] = field(default_factory=dict)
    policy: cluster_pb2.Policy = field(default_factory=cluster_pb2.Policy)
    datasets: dict[str, list[dataset_pb2.Dataset]] = field(default_factory=dict)
    models: dict[str, list[model_pb2.ModelVersion]] = field(default_factory=dict)
    endpoints: dict[str, endpoint_pb2.Endpoint] = field(default_factory=dict)
    awake: dict[str, endpoint_pb2.Endpoint] = field(default_factory=dict)  # what those that sleep are once somebody wakes them
    environments: dict[str, environment_pb2.EnvironmentVersion] = field(default_factory=dict)
    events: list[history_pb2.Event] = field(default_factory=list)
    lineage: history_pb2.GetLineageResponse = field(default_factory=history_pb2.GetLineageResponse)
    history: history_pb2.GetHistoryStatusResponse = field(default_factory=history_pb2.GetHistoryStatusResponse)
    asked: list[Any] = field(default_factory=list)
    refusals: dict[str, tuple[grpc.StatusCode, str]] = field(default_factory=dict)
    objects: MemoryObjects = field(default_factory=MemoryObjects)
    news: queue.Queue[history_pb2.Event] = field(default_factory=queue.Queue)
    subscribed: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    def config(self) -> dict[str, Any]:
        """As config.json says it."""
        services = dict.fromkeys(SERVICES, self.address)
        store = {"endpoint": "127.0.0.1:1", "access_key": "a", "secret_key": "s", "bucket": "b"}
        stack = {"home": "h", "services": services, "kafka_bootstrap": "127.0.0.1:1", "object_store": store}
        return {"workspace_name": "tests", "subscription_id": "s", "resource_group": "r", "trainyard": stack}

    def workspace(self) -> Workspace:
        made = Workspace.from_dict(self.config())
        made.__dict__["_objects"] = self.objects
        return made

    def last(self, kind: type[Any]) -> Any:
        """The newest request of that type."""
        return next(request for request in reversed(self.asked) if isinstance(request, kind))


def refuse(context: grpc.ServicerContext, status: grpc.StatusCode, code: str, message: str) -> Any:
    context.set_trailing_metadata(((FAILURE_KEY, Failure(code=code, message=message).SerializeToString()),))
    context.abort(status, message)


@contextmanager
def running() -> Iterator[Platform]:
    platform = Platform()
    server = grpc.server(futures.ThreadPoolExecutor(16), interceptors=[_Note(platform)])
    job_pb2_grpc.add_JobServiceServicer_to_server(_Jobs(platform), server)
    history_pb2_grpc.add_HistoryServiceServicer_to_server(_History(platform), server)
    history_pb2_grpc.add_EventServiceServicer_to_server(_Events(platform), server)
    cluster_pb2_grpc.add_ComputeServiceServicer_to_server(_Compute(platform), server)
    dataset_pb2_grpc.add_DatasetServiceServicer_to_server(_Datasets(platform), server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(_Models(platform), server)
    endpoint_pb2_grpc.add_EndpointServiceServicer_to_server(_Endpoints(platform), server)
    environment_pb2_grpc.add_EnvironmentServiceServicer_to_server(_Environments(platform), server)
    health = grpc.unary_unary_rpc_method_handler(lambda request, context: b"\x08\x01")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": health}),))
    platform.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield platform
    finally:
        server.stop(None).wait()


class _Note(grpc.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """Keeps each request, and refuses the methods that a test names: "GetRun", or "HistoryService/GetRun"."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        handler = continuation(details)
        if handler is None:
            return None
        name, whole = details.method.rpartition("/")[2], details.method.rpartition(".")[2]

        def noting(behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
            def call(request: Any, context: grpc.ServicerContext) -> Any:
                self._platform.asked.append(request)
                refused = next((it for it in (name, whole) if it in self._platform.refusals), "")
                if refused:
                    status, code = self._platform.refusals[refused]
                    refuse(context, status, code, f"{name} was refused")
                return behaviour(request, context)

            return call

        options = {"request_deserializer": handler.request_deserializer, "response_serializer": handler.response_serializer}
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(noting(handler.unary_stream), **options)
        return grpc.unary_unary_rpc_method_handler(noting(handler.unary_unary), **options)


class _Part:
    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    def run(self, run_id: str, context: Any) -> history_pb2.RunView:
        if run_id not in self.platform.runs:
            refuse(context, grpc.StatusCode.NOT_FOUND, "RunNotFound", f"There is no run {run_id!r}.")
        return self.platform.runs[run_id]


class _Jobs(_Part, job_pb2_grpc.JobServiceServicer):
    def GetRun(self, request: Any, context: Any) -> Any:
        return job_pb2.GetRunResponse(run=self.run(request.run_id, context).run)

    def ListRuns(self, request: Any, context: Any) -> Any:
        found = [view.run for view in self.platform.runs.values()]
        if request.queue_of:
            found = sorted((it for it in found if it.spec.compute_target == request.queue_of), key=lambda it: it.position)
        return job_pb2.ListRunsResponse(runs=found[: request.limit or 100])

    def WatchRun(self, request: Any, context: Any) -> Iterator[Any]:
        yield job_pb2.WatchRunResponse(run=self.run(request.run_id, context).run)

    def SubmitRun(self, request: Any, context: Any) -> Any:
        run = job_pb2.Run(run_id=request.submission_id, experiment=request.experiment, spec=request.spec, status=job_pb2.RUN_STATUS_QUEUED)
        self.platform.runs[run.run_id] = history_pb2.RunView(run=run)
        return job_pb2.SubmitRunResponse(run=run)

    def CancelRun(self, request: Any, context: Any) -> Any:
        run = self.run(request.run_id, context).run
        run.status = job_pb2.RUN_STATUS_CANCEL_REQUESTED
        return job_pb2.CancelRunResponse(run=run)

    def TagRun(self, request: Any, context: Any) -> Any:
        run = self.run(request.run_id, context).run
        run.tags.update(request.set)
        for name in request.removed:
            run.tags.pop(name, None)
        return job_pb2.TagRunResponse(run=run)


class _History(_Part, history_pb2_grpc.HistoryServiceServicer):
    def GetRun(self, request: Any, context: Any) -> Any:
        return history_pb2.GetRunResponse(run=self.run(request.run_id, context))

    def ListRuns(self, request: Any, context: Any) -> Any:
        found = [
            view.run
            for view in reversed(self.platform.runs.values())
            if request.experiment in ("", view.run.experiment)
            and request.parent_run_id in ("", view.run.parent_run_id)
            and (not request.statuses or view.run.status in request.statuses)
            and all(view.run.tags.get(name) == value or (not value and name in view.run.tags) for name, value in request.tags.items())
        ]
        first, size = int(request.page_token or 0), request.page_size or 100
        more = str(first + size) if first + size < len(found) else ""
        return history_pb2.ListRunsResponse(runs=found[first : first + size], next_page_token=more)

    def ListExperiments(self, request: Any, context: Any) -> Any:
        counts: dict[str, int] = {}
        for view in self.platform.runs.values():
            counts[view.run.experiment] = counts.get(view.run.experiment, 0) + 1
        return history_pb2.ListExperimentsResponse(
            experiments=[history_pb2.Experiment(name=name, runs=number) for name, number in sorted(counts.items())]
        )

    def GetMetrics(self, request: Any, context: Any) -> Any:
        self.run(request.run_id, context)
        points = [point for point in self.platform.metrics.get(request.run_id, []) if request.name in ("", point.name)]
        batch = telemetry_pb2.MetricBatch(run_id=request.run_id, epoch=1, points=points)
        return history_pb2.GetMetricsResponse(runs=[history_pb2.RunMetrics(run_id=request.run_id, batches=[batch])])

    def ReadLog(self, request: Any, context: Any) -> Iterator[Any]:
        self.run(request.run_id, context)
        lines = [
            history_pb2.LogLine(number=number, text=text) for number, text in enumerate(self.platform.log_lines.get(request.run_id, []))
        ]
        chosen = [line for line in lines if line.number >= request.first_line and request.contains.lower() in line.text.lower()]
        for line in chosen[: request.most_lines or None]:
            yield history_pb2.ReadLogResponse(lines=[line], epoch=1)

    def GetLineage(self, request: Any, context: Any) -> Any:
        return self.platform.lineage

    def GetModel(self, request: Any, context: Any) -> Any:
        version = self.platform.models[request.model.model][(request.model.version or 1) - 1]
        answer = history_pb2.GetModelResponse(version=version, turns=[history_pb2.Turn(what="StageChanged", why="Production")])
        answer.services.add(endpoint="web", deployment=3)
        return answer

    def ListModels(self, request: Any, context: Any) -> Any:
        """A version a page."""
        found = [version for versions in self.platform.models.values() for version in versions]
        first = int(request.page_token or 0)
        more = str(first + 1) if first + 1 < len(found) else ""
        return history_pb2.ListModelsResponse(versions=found[first : first + 1], next_page_token=more)

    def GetPool(self, request: Any, context: Any) -> Any:
        made = cluster_pb2.PoolCreated(name=request.name, max_nodes=4, vm_size="LOCAL")
        turns = [history_pb2.Turn(what="PoolCreated"), history_pb2.Turn(what="PoolResized", why="one waits")]
        return history_pb2.GetPoolResponse(created=made, agent_ids=["agent-0"], turns=turns)

    def ListPools(self, request: Any, context: Any) -> Any:
        made = [cluster_pb2.PoolCreated(name=name, max_nodes=4) for name in ("cpu", "gpu")]
        return history_pb2.ListPoolsResponse(pools=[history_pb2.GetPoolResponse(created=it) for it in made])

    def GetEndpoint(self, request: Any, context: Any) -> Any:
        ended, goes_on = history_pb2.Service(deployment=1), history_pb2.Service(deployment=2)
        ended.until.FromSeconds(2)
        for service in (ended, goes_on):
            service.models.add(model="digits", version=service.deployment)
        turns = [history_pb2.Turn(what="EndpointStarting"), history_pb2.Turn(what="EndpointLive", why="deployment 2")]
        return history_pb2.GetEndpointResponse(services=[ended, goes_on], turns=turns)

    def ListEndpoints(self, request: Any, context: Any) -> Any:
        found = self.GetEndpoint(request, context)
        there = [history_pb2.EndpointThen(name=name, last=found.turns[1], services=found.services[1:]) for name in ("digits", "words")]
        return history_pb2.ListEndpointsResponse(endpoints=there)

    def GetPolicy(self, request: Any, context: Any) -> Any:
        return history_pb2.GetPolicyResponse(policy=self.platform.policy)

    def GetHistoryStatus(self, request: Any, context: Any) -> Any:
        return self.platform.history

    def RebuildHistory(self, request: Any, context: Any) -> Iterator[Any]:
        for events in (50, 100):
            yield history_pb2.RebuildHistoryResponse(events=events, of=100, done=events == 100)


class _Events(_Part, history_pb2_grpc.EventServiceServicer):
    def Subscribe(self, request: Any, context: Any) -> Iterator[Any]:
        if self.platform.events:
            yield history_pb2.SubscribeResponse(events=self.platform.events)
        self.platform.subscribed.set()
        while request.follow and context.is_active():
            try:
                yield history_pb2.SubscribeResponse(events=[self.platform.news.get(timeout=0.1)])
            except queue.Empty:
                continue


class _Compute(_Part, cluster_pb2_grpc.ComputeServiceServicer):
    def CreatePool(self, request: Any, context: Any) -> Any:
        pool = cluster_pb2.Pool(
            name=request.name,
            vm_size=request.vm_size,
            vm_priority=request.vm_priority,
            min_nodes=request.min_nodes,
            max_nodes=request.max_nodes,
            idle_before_scaledown=request.idle_before_scaledown,
            nodes=[cluster_pb2.PoolNode(agent_id=f"agent-{number}", state="idle") for number in range(request.min_nodes)],
            provider=request.provider,
            strict=request.strict,
        )
        self.platform.pools[request.name] = pool
        return cluster_pb2.CreatePoolResponse(pool=pool)

    def GetPool(self, request: Any, context: Any) -> Any:
        if request.name not in self.platform.pools:
            refuse(context, grpc.StatusCode.NOT_FOUND, "ComputeTargetNotFound", f"There is no pool {request.name!r}.")
        return cluster_pb2.GetPoolResponse(pool=self.platform.pools[request.name])

    def ListPools(self, request: Any, context: Any) -> Any:
        return cluster_pb2.ListPoolsResponse(pools=[self.platform.pools[name] for name in sorted(self.platform.pools)])

    def GetPolicy(self, request: Any, context: Any) -> Any:
        return cluster_pb2.GetPolicyResponse(policy=self.platform.policy)

    def SetPolicy(self, request: Any, context: Any) -> Any:
        self.platform.policy.CopyFrom(request.policy)
        return cluster_pb2.SetPolicyResponse(policy=self.platform.policy)

    def UpdatePool(self, request: Any, context: Any) -> Any:
        pool = self.platform.pools[request.name]
        for bound in ("min_nodes", "max_nodes"):
            if request.HasField(bound):
                setattr(pool, bound, getattr(request, bound))
        return cluster_pb2.UpdatePoolResponse(pool=pool)

    def DrainAgent(self, request: Any, context: Any) -> Any:
        return cluster_pb2.DrainAgentResponse()

    def DeletePool(self, request: Any, context: Any) -> Any:
        self.platform.pools.pop(request.name, None)
        return cluster_pb2.DeletePoolResponse()


class _Datasets(_Part, dataset_pb2_grpc.DatasetServiceServicer):
    def RegisterDataset(self, request: Any, context: Any) -> Any:
        versions = self.platform.datasets.setdefault(request.name, [])
        files = [
            dataset_pb2.SourceFile(url=url, path=url.replace("://", "/"), size_bytes=3)
            for url in _file_lists.urls_of(self.platform.objects, request)
        ]
        versions.append(dataset_pb2.Dataset(name=request.name, version=len(versions) + 1, description=request.description, files=files))
        versions[-1].tags.update(request.tags)
        return dataset_pb2.RegisterDatasetResponse(dataset=versions[-1])

    def GetDataset(self, request: Any, context: Any) -> Any:
        if request.name not in self.platform.datasets:
            refuse(context, grpc.StatusCode.NOT_FOUND, "DatasetNotFound", f"There is no dataset {request.name!r}.")
        return dataset_pb2.GetDatasetResponse(dataset=self.platform.datasets[request.name][(request.version or 0) - 1])

    def ListDatasets(self, request: Any, context: Any) -> Any:
        return dataset_pb2.ListDatasetsResponse(datasets=[self.platform.datasets[name][-1] for name in sorted(self.platform.datasets)])


class _Models(_Part, model_pb2_grpc.ModelServiceServicer):
    def RegisterModelVersion(self, request: Any, context: Any) -> Any:
        versions = self.platform.models.setdefault(request.model, [])
        made = model_pb2.ModelVersion(
            model=request.model,
            version=len(versions) + 1,
            digest="d" * 64,
            artifacts=request.files,
            lineage=model_pb2.Lineage(run_id=request.run_id, datasets=request.datasets),
            framework=request.framework,
            framework_version=request.framework_version,
            description=request.description,
            tags=request.tags,
            properties=request.properties,
            requirements=request.requirements if request.HasField("requirements") else None,
        )
        made.registered_at.seconds = 1_767_225_600 + sum(len(each) for each in self.platform.models.values())
        versions.append(made)
        return model_pb2.RegisterModelVersionResponse(version=made)

    def GetModelVersion(self, request: Any, context: Any) -> Any:
        versions = self.platform.models.get(request.model, [])
        version = next((it.version for it in versions if request.alias in it.aliases), 0) if request.alias else request.version
        if not versions or version > len(versions) or (request.alias and not version):
            refuse(context, grpc.StatusCode.NOT_FOUND, "ModelNotFound", f"There is no model {request.model!r}; there is: none.")
        return model_pb2.GetModelVersionResponse(version=versions[version - 1])

    def SetAlias(self, request: Any, context: Any) -> Any:
        versions = self.platform.models[request.model]
        for it in versions:
            it.aliases[:] = [alias for alias in it.aliases if alias != request.alias]
        if request.version:
            versions[request.version - 1].aliases.append(request.alias)
        return model_pb2.SetAliasResponse(version=versions[request.version - 1])

    def SetStage(self, request: Any, context: Any) -> Any:
        version = self.platform.models[request.model][request.version - 1]
        version.stage = request.stage
        return model_pb2.SetStageResponse(version=version)

    def UpdateModelVersion(self, request: Any, context: Any) -> Any:
        version = self.platform.models[request.model][request.version - 1]
        for name in request.remove_tags:
            version.tags.pop(name, None)
        version.tags.MergeFrom(request.tags)
        version.properties.MergeFrom(request.properties)
        if request.HasField("description"):
            version.description = request.description
        if request.HasField("requirements"):
            version.requirements.CopyFrom(request.requirements)
        version.lineage.datasets.extend(request.datasets)
        return model_pb2.UpdateModelVersionResponse(version=version)

    def DeleteModelVersion(self, request: Any, context: Any) -> Any:
        return model_pb2.DeleteModelVersionResponse()

    def ListModelVersions(self, request: Any, context: Any) -> Any:
        if request.model:
            return model_pb2.ListModelVersionsResponse(versions=reversed(self.platform.models.get(request.model, [])))
        newest = [versions[-1] for versions in self.platform.models.values()]
        return model_pb2.ListModelVersionsResponse(versions=reversed(newest))


class _Endpoints(_Part, endpoint_pb2_grpc.EndpointServiceServicer):
    def DeployEndpoint(self, request: Any, context: Any) -> Any:
        made = endpoint_pb2.Endpoint(
            endpoint=request.endpoint,
            model=request.model,
            version=request.version,
            deployment=1,
            state=endpoint_pb2.ENDPOINT_STATE_HEALTHY,
            alias=request.alias,
            more_models=request.more_models,
            has_code=request.HasField("scoring"),
            limits=request.limits,
            # As if its model asked for two cores and 1 GiB.
            bounds=endpoint_pb2.Limits(cpu_cores=request.limits.cpu_cores or 2, memory_bytes=request.limits.memory_bytes or 1 << 30),
            settings=endpoint_pb2.EndpointSettings(
                authentication=request.authentication,
                tags=request.tags.values,
                properties=request.properties.values,
                description=request.description,
                sample_rate=request.sample_rate,
            ),
        )
        self.platform.endpoints[request.endpoint] = made
        return endpoint_pb2.DeployEndpointResponse(endpoint=made)

    def UpdateEndpoint(self, request: Any, context: Any) -> Any:
        made = self.platform.endpoints[request.endpoint]
        if request.HasField("tags"):
            made.settings.tags.clear()
            made.settings.tags.update(request.tags.values)
        made.settings.properties.update(request.properties.values)
        made.settings.authentication = request.authentication or made.settings.authentication
        if request.HasField("sample_rate"):
            made.settings.sample_rate = request.sample_rate
        made.deployment += bool(request.models or request.HasField("scoring") or request.HasField("limits"))
        return endpoint_pb2.UpdateEndpointResponse(endpoint=made)

    def RollBackEndpoint(self, request: Any, context: Any) -> Any:
        made = self.platform.endpoints[request.endpoint]
        made.deployment += 1
        return endpoint_pb2.RollBackEndpointResponse(endpoint=made)

    def WakeEndpoint(self, request: Any, context: Any) -> Any:
        self.platform.endpoints[request.endpoint] = self.platform.awake[request.endpoint]
        return endpoint_pb2.WakeEndpointResponse()

    def KeepCertificate(self, request: Any, context: Any) -> Any:
        return endpoint_pb2.KeepCertificateResponse()

    def GetEndpointKeys(self, request: Any, context: Any) -> Any:
        return endpoint_pb2.GetEndpointKeysResponse(primary="one", secondary="two")

    def RegenerateEndpointKey(self, request: Any, context: Any) -> Any:
        return endpoint_pb2.RegenerateEndpointKeyResponse()

    def GetEndpointToken(self, request: Any, context: Any) -> Any:
        made = endpoint_pb2.GetEndpointTokenResponse(token="signed")
        made.expires_at.FromSeconds(1000)
        made.refresh_after.FromSeconds(900)
        return made

    def GetEndpoint(self, request: Any, context: Any) -> Any:
        if request.endpoint not in self.platform.endpoints:
            refuse(context, grpc.StatusCode.NOT_FOUND, "EndpointNotFound", f"There is no endpoint {request.endpoint!r}.")
        return endpoint_pb2.GetEndpointResponse(endpoint=self.platform.endpoints[request.endpoint])

    def ListEndpoints(self, request: Any, context: Any) -> Any:
        return endpoint_pb2.ListEndpointsResponse(endpoints=self.platform.endpoints.values())

    def GetEndpointLogs(self, request: Any, context: Any) -> Any:
        return endpoint_pb2.GetEndpointLogsResponse(lines=["started", "\x1b]0;owned\x07ready"])

    def DeleteEndpoint(self, request: Any, context: Any) -> Any:
        self.platform.endpoints.pop(request.endpoint, None)
        return endpoint_pb2.DeleteEndpointResponse()


class _Environments(_Part, environment_pb2_grpc.EnvironmentServiceServicer):
    def GetEnvironment(self, request: Any, context: Any) -> Any:
        if request.name not in self.platform.environments:
            refuse(context, grpc.StatusCode.NOT_FOUND, "EnvironmentNotFound", f"There is no environment {request.name!r}.")
        return environment_pb2.GetEnvironmentResponse(environment=self.platform.environments[request.name])

    def ListEnvironments(self, request: Any, context: Any) -> Any:
        return environment_pb2.ListEnvironmentsResponse(environments=self.platform.environments.values())
