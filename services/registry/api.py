"""ModelService over gRPC: a request is published as any client could, its answer is waited for and translated."""

from __future__ import annotations

from typing import Any

import grpc

from services.chassis.choices import close_to, told
from services.chassis.context import Context
from services.chassis.grpc_server import Code, Refused, refuse
from services.chassis.pages import number_of, page
from services.registry.domain import registration
from services.registry.domain.registration import Answer
from services.registry.handlers import TOPIC
from services.registry.shelf import Shelf
from trainyard._times import order
from trainyard.model.v1 import model_pb2, model_pb2_grpc

_STATUS = {"UserError": Code.INVALID_ARGUMENT, "RunNotFound": Code.NOT_FOUND, "ModelPathNotFound": Code.NOT_FOUND}


def models(server: grpc.aio.Server, context: Context) -> None:
    model_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(context), server)


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def RegisterModelVersion(
        self, request: model_pb2.RegisterModelVersion, call: grpc.aio.ServicerContext[Any, Any]
    ) -> model_pb2.RegisterModelVersionResponse:
        if why := registration.unanswerable(request):
            raise refuse(Code.INVALID_ARGUMENT, "UserError", f"The request cannot be taken: {why}.", "request")
        event_id = await self._context.request(TOPIC, request.model, request)
        answer = await self._answer(request.submission_id, call.time_remaining())
        if answer.failure is not None:
            raise Refused(_STATUS.get(answer.failure.code, Code.FAILED_PRECONDITION), answer.failure)
        return model_pb2.RegisterModelVersionResponse(
            version=self._version(answer.model, answer.version), repeated_submission=answer.event_id != event_id
        )

    async def GetModelVersion(
        self, request: model_pb2.GetModelVersionRequest, _: grpc.aio.ServicerContext[Any, Any]
    ) -> model_pb2.GetModelVersionResponse:
        return model_pb2.GetModelVersionResponse(version=self._version(request.model, request.version))

    async def ListModelVersions(
        self, request: model_pb2.ListModelVersionsRequest, _: grpc.aio.ServicerContext[Any, Any]
    ) -> model_pb2.ListModelVersionsResponse:
        with self._context.store.reading() as documents:
            shelf = Shelf(documents)
            if request.model:
                before = number_of(request.page_token) if request.page_token else None
                found, token = page(shelf.versions(request.model, before), lambda it: str(it.version))
            else:
                at, _slash, model = request.page_token.partition("/")
                age = (number_of(at), model) if request.page_token else None
                found, token = page(shelf.latest_of_each(age), lambda it: f"{order(it.registered_at)}/{it.model}")
        return model_pb2.ListModelVersionsResponse(versions=found, next_page_token=token)

    async def _answer(self, submission_id: str, seconds: float | None) -> Answer:
        found = await self._context.answer(lambda documents: Shelf(documents).answer(submission_id), seconds)
        if found is None:
            what = f"The run's files of submission {submission_id} are still being checked. Ask again with the same submission id."
            raise refuse(Code.DEADLINE_EXCEEDED, "Unavailable", what, submission_id)
        return found

    def _version(self, model: str, version: int) -> model_pb2.ModelVersion:
        """0: the latest. Refused with what there is."""
        with self._context.store.reading() as documents:
            shelf = Shelf(documents)
            latest = shelf.latest(model)
            if not latest:
                names = shelf.models()
                what = f"There is no model {model[:255]!r}; there is: {told(close_to(model, names), names)}."
                raise refuse(Code.NOT_FOUND, "ModelNotFound", what, model)
            found = shelf.version(model, version or latest)
            if found is None:
                what = f"Model {model!r} has no version {version}; its latest is {latest}."
                raise refuse(Code.NOT_FOUND, "ModelNotFound", what, f"{model}:{version}")
            return found
