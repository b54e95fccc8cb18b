"""ModelService over gRPC: a request is published as any client could, its answer is waited for and translated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import grpc

from services.chassis.choices import close_to, told
from services.chassis.context import Context
from services.chassis.grpc_server import Code, Refused, refuse
from services.chassis.pages import number_of, page
from services.registry.domain import objections, registration
from services.registry.domain.model import Request
from services.registry.domain.registration import Answer
from services.registry.handlers import TOPIC
from services.registry.shelf import Shelf
from trainyard._times import order
from trainyard.model.v1 import model_pb2, model_pb2_grpc

_STATUS = {
    "UserError": Code.INVALID_ARGUMENT,
    "ModelRefused": Code.INVALID_ARGUMENT,
    "RunNotFound": Code.NOT_FOUND,
    "ModelNotFound": Code.NOT_FOUND,
    "ModelPathNotFound": Code.NOT_FOUND,
}
R = TypeVar("R", model_pb2.SetAliasResponse, model_pb2.SetStageResponse, model_pb2.UpdateModelVersionResponse)


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
        return model_pb2.GetModelVersionResponse(version=self._version(request.model, request.version, request.alias))

    async def ListModelVersions(
        self, request: model_pb2.ListModelVersionsRequest, _: grpc.aio.ServicerContext[Any, Any]
    ) -> model_pb2.ListModelVersionsResponse:
        with self._context.store.reading() as documents:
            shelf = Shelf(documents)
            if request.model:
                before = number_of(request.page_token) if request.page_token else None
                found, token = page(_standing(shelf.versions(request.model, before), request.stage), lambda it: str(it.version))
            else:
                at, _slash, model = request.page_token.partition("/")
                age = (number_of(at), model) if request.page_token else None
                newest = shelf.latest_of_each(age)
                found, token = page(_standing(newest, request.stage), lambda it: f"{order(it.registered_at)}/{it.model}")
        return model_pb2.ListModelVersionsResponse(versions=found, next_page_token=token)

    async def SetAlias(self, request: model_pb2.SetAlias, call: grpc.aio.ServicerContext[Any, Any]) -> model_pb2.SetAliasResponse:
        return self._shown(model_pb2.SetAliasResponse, await self._changed(request, call))

    async def SetStage(self, request: model_pb2.SetStage, call: grpc.aio.ServicerContext[Any, Any]) -> model_pb2.SetStageResponse:
        return self._shown(model_pb2.SetStageResponse, await self._changed(request, call))

    async def UpdateModelVersion(
        self, request: model_pb2.UpdateModelVersion, call: grpc.aio.ServicerContext[Any, Any]
    ) -> model_pb2.UpdateModelVersionResponse:
        return self._shown(model_pb2.UpdateModelVersionResponse, await self._changed(request, call))

    async def DeleteModelVersion(
        self, request: model_pb2.DeleteModelVersion, call: grpc.aio.ServicerContext[Any, Any]
    ) -> model_pb2.DeleteModelVersionResponse:
        _, repeated = await self._changed(request, call)
        return model_pb2.DeleteModelVersionResponse(repeated_submission=repeated)

    async def _changed(self, request: Request, call: grpc.aio.ServicerContext[Any, Any]) -> tuple[Answer, bool]:
        """(what it led to, whether an earlier request with its submission id did). Raises Refused."""
        if why := objections.unanswerable(request):
            raise refuse(Code.INVALID_ARGUMENT, "UserError", f"The request cannot be taken: {why}.", "request")
        event_id = await self._context.request(TOPIC, request.model, request)
        answer = await self._context.answer(lambda documents: Shelf(documents).change(request.submission_id), call.time_remaining())
        if answer is None:
            what = f"Submission {request.submission_id} is not decided yet. Ask again with the same submission id."
            raise refuse(Code.DEADLINE_EXCEEDED, "Unavailable", what, request.submission_id)
        if answer.failure is not None:
            raise Refused(_STATUS.get(answer.failure.code, Code.FAILED_PRECONDITION), answer.failure)
        return answer, answer.event_id != event_id

    def _shown(self, kind: type[R], changed: tuple[Answer, bool]) -> R:
        """The version as it is now; what a repeat asks for again may be gone by then."""
        answer, repeated = changed
        with self._context.store.reading() as documents:
            return kind(version=Shelf(documents).version(answer.model, answer.version), repeated_submission=repeated)

    async def _answer(self, submission_id: str, seconds: float | None) -> Answer:
        found = await self._context.answer(lambda documents: Shelf(documents).answer(submission_id), seconds)
        if found is None:
            what = f"The run's files of submission {submission_id} are still being checked. Ask again with the same submission id."
            raise refuse(Code.DEADLINE_EXCEEDED, "Unavailable", what, submission_id)
        return found

    def _version(self, model: str, version: int, alias: str = "") -> model_pb2.ModelVersion:
        """0: the latest. Refused with what there is."""
        with self._context.store.reading() as documents:
            shelf = Shelf(documents)
            newest = shelf.newest(model)
            if newest is None:
                names = shelf.models()
                what = f"There is no model {model[:255]!r}; there is: {told(close_to(model, names), names)}."
                raise refuse(Code.NOT_FOUND, "ModelNotFound", what, model)
            if alias:
                aliases = shelf.aliases(model)
                if alias not in aliases:
                    what = f"Model {model!r} has no alias {alias[:100]!r}; its aliases are: {told(close_to(alias, aliases), aliases)}."
                    raise refuse(Code.NOT_FOUND, "ModelNotFound", what, f"{model}@{alias[:100]}")
                version = aliases[alias]
            found = newest if version in (0, newest.version) else shelf.version(model, version)
            if found is None:
                was = "was deleted" if shelf.stored(model, version) is not None else "is not there"
                what = f"Version {version} of model {model!r} {was}; the latest is {newest.version}."
                raise refuse(Code.NOT_FOUND, "ModelNotFound", what, f"{model}:{version}")
            return found


def _standing(versions: Iterator[model_pb2.ModelVersion], stage: int) -> Iterator[model_pb2.ModelVersion]:
    return (version for version in versions if not stage or version.stage == stage)
