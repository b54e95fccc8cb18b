"""Long lists of models and datasets: in pages, each entry once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from services.dataset.api import DatasetServicer
from services.dataset.handlers import TOPIC as DATASETS
from services.dataset.handlers import DatasetHandler
from services.dataset.shelf import ANSWER as DATASET_ANSWER
from services.dataset.shelf import LATEST as DATASET_LATEST
from services.dataset.shelf import PROBE, UNREGISTERED
from services.dataset.shelf import VERSION as DATASET_VERSION
from services.registry.api import ModelServicer
from services.registry.handlers import JOBS, TOPIC, RegistryHandler
from services.registry.shelf import ANSWER, LATEST, REGISTER, RUN, VERSION
from tests.unit.on_memory import OnMemory
from trainyard._grpc import Clients
from trainyard.dataset.v1.dataset_pb2 import DatasetUnregistered, DatasetVersionRegistered, ListDatasetsRequest
from trainyard.model.v1.model_pb2 import ListModelVersionsRequest, ModelVersionRegistered

LARGE = "x" * 1_200_000
"""Two of them fit an answer."""


def pages(method: Any, request: Any) -> list[Any]:
    found = []
    while True:
        found.append(asyncio.run(method(request, None)))
        if not found[-1].next_page_token:
            return found
        request.page_token = found[-1].next_page_token


def test_versions_of_a_model_and_the_latest_of_all_come_newest_first_and_once() -> None:
    service = OnMemory("registry", RegistryHandler, [TOPIC, JOBS], [ANSWER, LATEST, REGISTER, RUN, VERSION])
    for number in range(1, 6):
        for model in ("many", f"m{number}"):
            version = number if model == "many" else 1
            fact = ModelVersionRegistered(submission_id=f"{model}-{number}", model=model, version=version, description=LARGE)
            # Two of them in one moment.
            fact.registered_at.seconds = 1 + number // 2
            service.publish(TOPIC, model, fact)
    models = ModelServicer(SimpleNamespace(store=service.store))  # type: ignore[arg-type]

    of_one = pages(models.ListModelVersions, ListModelVersionsRequest(model="many"))
    of_all = pages(models.ListModelVersions, ListModelVersionsRequest())
    service.close()

    assert [[it.version for it in answer.versions] for answer in of_one] == [[5, 4], [3, 2], [1]]
    assert [[it.model for it in answer.versions] for answer in of_all] == [["many", "m5"], ["m4", "m3"], ["m2", "m1"]]


def test_datasets_come_by_name_and_once_without_those_that_are_given_up() -> None:
    service = OnMemory("dataset", DatasetHandler, [DATASETS], [DATASET_ANSWER, DATASET_LATEST, PROBE, UNREGISTERED, DATASET_VERSION])
    for name in ("c", "a", "e", "d", "b", "gone"):
        service.publish(DATASETS, name, DatasetVersionRegistered(submission_id=name, name=name, version=1, description=LARGE))
    service.publish(DATASETS, "gone", DatasetUnregistered(submission_id="off", name="gone", latest_version=1))
    datasets = DatasetServicer(SimpleNamespace(store=service.store))  # type: ignore[arg-type]

    found = pages(datasets.ListDatasets, ListDatasetsRequest())
    service.close()

    assert [[it.name for it in answer.datasets] for answer in found] == [["a", "b"], ["c", "d"], ["e"]]


def test_a_client_asks_for_every_page(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def method(request: Any, *, timeout: float) -> Any:
        asked.append(request.page_token)
        return SimpleNamespace(next_page_token={"": "1", "1": "2"}.get(request.page_token, ""))

    assert len(list(Clients({}).pages(method, ListDatasetsRequest()))) == 3
    assert asked == ["", "1", "2"]
