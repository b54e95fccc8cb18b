"""Shell completion from the platform: ids and names. Quick, and silent where anything is amiss."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

_SECONDS = 1.0
_MOST = 50


def _quietly(ask: Callable[[Any], list[str]]) -> Callable[..., list[str]]:
    def complete(incomplete: str) -> list[str]:
        try:
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")
            from trainyard._grpc import Clients
            from trainyard._workspace import Workspace

            clients = Clients(Workspace.from_config()._stack["services"], retry_seconds=0.0)
            try:
                return [name for name in ask(clients) if name.startswith(incomplete) and name.isprintable()][:_MOST]
            finally:
                clients.close()
        except Exception:  # noqa: BLE001 - a shell that completes must hear nothing
            return []

    return complete


def _runs(clients: Any) -> list[str]:
    from trainyard.job.v1 import job_pb2

    return [run.run_id for run in clients.jobs.ListRuns(job_pb2.ListRunsRequest(limit=200), timeout=_SECONDS).runs]


def _pools(clients: Any) -> list[str]:
    from trainyard.cluster.v1 import cluster_pb2

    return [pool.name for pool in clients.compute.ListPools(cluster_pb2.ListPoolsRequest(), timeout=_SECONDS).pools]


def _models(clients: Any) -> list[str]:
    from trainyard.model.v1 import model_pb2

    return [it.model for it in clients.models.ListModelVersions(model_pb2.ListModelVersionsRequest(), timeout=_SECONDS).versions]


def _datasets(clients: Any) -> list[str]:
    from trainyard.dataset.v1 import dataset_pb2

    return [it.name for it in clients.datasets.ListDatasets(dataset_pb2.ListDatasetsRequest(), timeout=_SECONDS).datasets]


def _endpoints(clients: Any) -> list[str]:
    from trainyard.endpoint.v1 import endpoint_pb2

    return [it.endpoint for it in clients.endpoints.ListEndpoints(endpoint_pb2.ListEndpointsRequest(), timeout=_SECONDS).endpoints]


def _experiments(clients: Any) -> list[str]:
    from trainyard.history.v1 import history_pb2

    return [it.name for it in clients.history.ListExperiments(history_pb2.ListExperimentsRequest(), timeout=_SECONDS).experiments]


run_ids = _quietly(_runs)
pools = _quietly(_pools)
models = _quietly(_models)
datasets = _quietly(_datasets)
endpoints = _quietly(_endpoints)
experiments = _quietly(_experiments)
