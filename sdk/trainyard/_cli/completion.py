"""Shell completion from the platform: ids and names. Quick, and silent where anything is amiss."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

_SECONDS = 1.0
_MOST = 50


def _quietly(ask: Callable[[Any, str], Iterator[str]]) -> Callable[..., list[str]]:
    """`ask` is given the clients and what was typed. What was found in time counts, whatever comes after."""

    def complete(incomplete: str) -> list[str]:
        found: list[str] = []
        # A shell that completes must hear nothing.
        with suppress(Exception):
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")
            from trainyard._grpc import Clients
            from trainyard._workspace import Workspace

            clients = Clients(Workspace.from_config()._stack["services"], retry_seconds=0.0)
            try:
                fitting = (name for name in ask(clients, incomplete) if name.startswith(incomplete) and name.isprintable())
                # Where a later page does not come, what came before stays in the list.
                found.extend(islice(fitting, _MOST))
            finally:
                clients.close()
        return found

    return complete


def _listed(method: Any, request: Any, items: str) -> Iterator[Any]:
    """Of every page; all of them together have a second."""
    deadline = time.monotonic() + _SECONDS
    while True:
        answer = method(request, timeout=max(0.0, deadline - time.monotonic()))
        yield from getattr(answer, items)
        if not getattr(answer, "next_page_token", ""):
            return
        request.page_token = answer.next_page_token


def _runs(clients: Any, typed: str) -> Iterator[str]:
    from trainyard.history.v1 import history_pb2

    request = history_pb2.ListRunsRequest(text=typed[:1000], page_size=200)
    return (run.run_id for run in _listed(clients.history.ListRuns, request, "runs"))


def _pools(clients: Any, _: str) -> Iterator[str]:
    from trainyard.cluster.v1 import cluster_pb2

    return (pool.name for pool in _listed(clients.compute.ListPools, cluster_pb2.ListPoolsRequest(), "pools"))


def _models(clients: Any, _: str) -> Iterator[str]:
    from trainyard.model.v1 import model_pb2

    return (it.model for it in _listed(clients.models.ListModelVersions, model_pb2.ListModelVersionsRequest(), "versions"))


def _datasets(clients: Any, _: str) -> Iterator[str]:
    from trainyard.dataset.v1 import dataset_pb2

    return (it.name for it in _listed(clients.datasets.ListDatasets, dataset_pb2.ListDatasetsRequest(), "datasets"))


def _endpoints(clients: Any, _: str) -> Iterator[str]:
    from trainyard.endpoint.v1 import endpoint_pb2

    return (it.endpoint for it in _listed(clients.endpoints.ListEndpoints, endpoint_pb2.ListEndpointsRequest(), "endpoints"))


def _experiments(clients: Any, _: str) -> Iterator[str]:
    from trainyard.history.v1 import history_pb2

    request = history_pb2.ListExperimentsRequest(page_size=1000)
    return (it.name for it in _listed(clients.history.ListExperiments, request, "experiments"))


run_ids = _quietly(_runs)
pools = _quietly(_pools)
models = _quietly(_models)
datasets = _quietly(_datasets)
endpoints = _quietly(_endpoints)
experiments = _quietly(_experiments)
