"""DatasetService over gRPC: a request is published as any client could, its answer is waited for and translated."""

from __future__ import annotations

from typing import Any

import grpc

from services.chassis.choices import close_to, told
from services.chassis.context import Context
from services.chassis.grpc_server import Code, Refused, refuse
from services.chassis.pages import page
from services.dataset import domain
from services.dataset.domain import Answer
from services.dataset.handlers import TOPIC
from services.dataset.shelf import Shelf
from trainyard.dataset.v1 import dataset_pb2, dataset_pb2_grpc

_STATUS = {"UserError": Code.INVALID_ARGUMENT, "AlreadyExists": Code.ALREADY_EXISTS, "DatasetNotFound": Code.NOT_FOUND}


def datasets(server: grpc.aio.Server, context: Context) -> None:
    dataset_pb2_grpc.add_DatasetServiceServicer_to_server(DatasetServicer(context), server)


class DatasetServicer(dataset_pb2_grpc.DatasetServiceServicer):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def RegisterDataset(
        self, request: dataset_pb2.RegisterDataset, call: grpc.aio.ServicerContext[Any, Any]
    ) -> dataset_pb2.RegisterDatasetResponse:
        if why := domain.unanswerable(request):
            raise refuse(Code.INVALID_ARGUMENT, "UserError", f"The request cannot be taken: {why}.", "request")
        event_id = await self._context.request(TOPIC, request.name, request)
        answer = await self._answer(request.submission_id, call.time_remaining())
        if answer.failure is not None:
            raise Refused(_STATUS.get(answer.failure.code, Code.FAILED_PRECONDITION), answer.failure)
        return dataset_pb2.RegisterDatasetResponse(
            dataset=self._version(answer.name, answer.version), repeated_submission=answer.event_id != event_id
        )

    async def GetDataset(
        self, request: dataset_pb2.GetDatasetRequest, _: grpc.aio.ServicerContext[Any, Any]
    ) -> dataset_pb2.GetDatasetResponse:
        return dataset_pb2.GetDatasetResponse(dataset=self._version(request.name, request.version))

    async def UnregisterDataset(
        self, request: dataset_pb2.UnregisterDataset, call: grpc.aio.ServicerContext[Any, Any]
    ) -> dataset_pb2.UnregisterDatasetResponse:
        if why := domain.unanswerable(request):
            raise refuse(Code.INVALID_ARGUMENT, "UserError", f"The request cannot be taken: {why}.", "request")
        await self._context.request(TOPIC, request.name, request)
        answer = await self._answer(request.submission_id, call.time_remaining())
        if answer.failure is not None:
            raise Refused(_STATUS.get(answer.failure.code, Code.FAILED_PRECONDITION), answer.failure)
        return dataset_pb2.UnregisterDatasetResponse()

    async def ListDatasets(
        self, request: dataset_pb2.ListDatasetsRequest, _: grpc.aio.ServicerContext[Any, Any]
    ) -> dataset_pb2.ListDatasetsResponse:
        with self._context.store.reading() as documents:
            found, token = page(Shelf(documents).latest_of_each(after=request.page_token), lambda dataset: dataset.name)
        return dataset_pb2.ListDatasetsResponse(datasets=found, next_page_token=token)

    async def _answer(self, submission_id: str, seconds: float | None) -> Answer:
        found = await self._context.answer(lambda documents: Shelf(documents).answer(submission_id), seconds)
        if found is None:
            what = f"The sources of submission {submission_id} are still being read. Ask again with the same submission id."
            raise refuse(Code.DEADLINE_EXCEEDED, "Unavailable", what, submission_id)
        return found

    def _version(self, name: str, version: int) -> dataset_pb2.Dataset:
        """0: the latest. Refused with what there is."""
        with self._context.store.reading() as documents:
            shelf = Shelf(documents)
            latest = shelf.latest(name)
            # A version by its number is found after its name has left the lists: runs name it so.
            if not latest or (not version and shelf.is_unregistered(name)):
                names = shelf.names()
                what = f"There is no dataset {name[:255]!r}; there is: {told(close_to(name, names), names)}."
                raise refuse(Code.NOT_FOUND, "DatasetNotFound", what, name)
            found = shelf.version(name, version or latest)
            if found is None:
                what = f"Dataset {name!r} has no version {version}; its latest is {latest}."
                raise refuse(Code.NOT_FOUND, "DatasetNotFound", what, f"{name}:{version}")
            return found
