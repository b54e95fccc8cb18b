"""EnvironmentService over gRPC: a request is published as any client could, its answer is waited for and translated."""

from __future__ import annotations

from typing import Any

import grpc

from services.chassis.choices import close_to, told
from services.chassis.context import Context
from services.chassis.grpc_server import Code, Refused, refuse
from services.registry.domain import environments as rules
from services.registry.environment_handlers import TOPIC
from services.registry.environment_shelf import EnvironmentShelf
from trainyard.environment.v1 import environment_pb2, environment_pb2_grpc


def environments(server: grpc.aio.Server, context: Context) -> None:
    environment_pb2_grpc.add_EnvironmentServiceServicer_to_server(EnvironmentServicer(context), server)


class EnvironmentServicer(environment_pb2_grpc.EnvironmentServiceServicer):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def RegisterEnvironment(
        self, request: environment_pb2.RegisterEnvironment, call: grpc.aio.ServicerContext[Any, Any]
    ) -> environment_pb2.RegisterEnvironmentResponse:
        if why := rules.unanswerable(request):
            raise refuse(Code.INVALID_ARGUMENT, "UserError", f"The request cannot be taken: {why}.", "request")
        with self._context.store.reading() as documents:
            before = EnvironmentShelf(documents).latest(request.name)
        event_id = await self._context.request(TOPIC, request.name, request)
        answer = await self._context.answer(
            lambda documents: EnvironmentShelf(documents).answer(request.submission_id), call.time_remaining()
        )
        if answer is None:
            what = f"Submission {request.submission_id} is not answered yet. Ask again with the same submission id."
            raise refuse(Code.DEADLINE_EXCEEDED, "Unavailable", what, request.submission_id)
        if answer.failure is not None:
            raise Refused(Code.INVALID_ARGUMENT, answer.failure)
        repeated = answer.event_id != event_id or answer.version <= before
        return environment_pb2.RegisterEnvironmentResponse(
            environment=self._version(answer.name, answer.version), repeated_submission=repeated
        )

    async def GetEnvironment(
        self, request: environment_pb2.GetEnvironmentRequest, _: grpc.aio.ServicerContext[Any, Any]
    ) -> environment_pb2.GetEnvironmentResponse:
        return environment_pb2.GetEnvironmentResponse(environment=self._version(request.name, request.version))

    async def ListEnvironments(
        self, request: environment_pb2.ListEnvironmentsRequest, _: grpc.aio.ServicerContext[Any, Any]
    ) -> environment_pb2.ListEnvironmentsResponse:
        with self._context.store.reading() as documents:
            shelf = EnvironmentShelf(documents)
            found = shelf.versions(request.name) if request.name else shelf.latest_of_each()
        return environment_pb2.ListEnvironmentsResponse(environments=found)

    def _version(self, name: str, version: int) -> environment_pb2.EnvironmentVersion:
        """0: the latest. Refused with what there is."""
        with self._context.store.reading() as documents:
            shelf = EnvironmentShelf(documents)
            latest = shelf.latest(name)
            if not latest:
                names = shelf.names()
                what = f"There is no environment {name[:255]!r}; there is: {told(close_to(name, names), names)}."
                raise refuse(Code.NOT_FOUND, "EnvironmentNotFound", what, name)
            found = shelf.version(name, version or latest)
            if found is None:
                what = f"Environment {name!r} has no version {version}; its latest is {latest}."
                raise refuse(Code.NOT_FOUND, "EnvironmentNotFound", what, f"{name}:{version}")
            return found
