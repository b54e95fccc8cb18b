"""EndpointService over gRPC: a request is published as any client could, its answer is waited for and translated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import grpc

from services.chassis.choices import close_to, told
from services.chassis.context import Context
from services.chassis.grpc_server import Code, Refused, refuse
from services.chassis.store import Documents
from services.serving.adapters.endpoint_certificates import BadCertificate, EndpointCertificates
from services.serving.adapters.endpoint_keys import REFRESH_AFTER, TOKEN_LASTS, EndpointKeys
from services.serving.domain import asking
from services.serving.domain.asking import Request
from services.serving.domain.endpoint import Endpoint
from services.serving.handlers import TOPIC
from services.serving.ports import Logs
from services.serving.shelf import Answer, Shelf
from services.serving.shown import Door, shown
from trainyard.endpoint.v1 import endpoint_pb2, endpoint_pb2_grpc

_STATUS = {
    "UserError": Code.INVALID_ARGUMENT,
    "ModelNotFound": Code.NOT_FOUND,
    "AliasNotFound": Code.NOT_FOUND,
    "EndpointNotFound": Code.NOT_FOUND,
    "AlreadyExists": Code.ALREADY_EXISTS,
    "NotASavedModel": Code.FAILED_PRECONDITION,
    "EndpointDeleted": Code.ABORTED,
}
_LINES, _MOST_LINES = 200, 20_000
# gRPC's clients take 4 MiB unless told otherwise.
_MOST_BYTES = 3 << 20


def endpoints(logs: Logs, keys: EndpointKeys, certificates: EndpointCertificates, door: Door) -> Callable[[grpc.aio.Server, Context], None]:
    def register(server: grpc.aio.Server, context: Context) -> None:
        endpoint_pb2_grpc.add_EndpointServiceServicer_to_server(EndpointServicer(context, logs, keys, certificates, door), server)

    return register


class EndpointServicer(endpoint_pb2_grpc.EndpointServiceServicer):
    def __init__(self, context: Context, logs: Logs, keys: EndpointKeys, certificates: EndpointCertificates, door: Door) -> None:
        self._context = context
        self._logs = logs
        self._keys = keys
        self._certificates = certificates
        self._door = door

    async def DeployEndpoint(
        self, request: endpoint_pb2.DeployEndpoint, call: grpc.aio.ServicerContext[Any, Any]
    ) -> endpoint_pb2.DeployEndpointResponse:
        endpoint, repeated = await self._asked(request, call)
        return endpoint_pb2.DeployEndpointResponse(endpoint=endpoint, repeated_submission=repeated)

    async def UpdateEndpoint(
        self, request: endpoint_pb2.UpdateEndpoint, call: grpc.aio.ServicerContext[Any, Any]
    ) -> endpoint_pb2.UpdateEndpointResponse:
        endpoint, repeated = await self._asked(request, call)
        return endpoint_pb2.UpdateEndpointResponse(endpoint=endpoint, repeated_submission=repeated)

    async def RollBackEndpoint(
        self, request: endpoint_pb2.RollBackEndpoint, call: grpc.aio.ServicerContext[Any, Any]
    ) -> endpoint_pb2.RollBackEndpointResponse:
        endpoint, repeated = await self._asked(request, call)
        return endpoint_pb2.RollBackEndpointResponse(endpoint=endpoint, repeated_submission=repeated)

    async def UpdateTraffic(
        self, request: endpoint_pb2.UpdateTraffic, call: grpc.aio.ServicerContext[Any, Any]
    ) -> endpoint_pb2.UpdateTrafficResponse:
        if not self._door.is_open:
            what = "Calls are split by the door, and there is none: set serving.door_grpc_port and serving.door_rest_port."
            raise refuse(Code.FAILED_PRECONDITION, "NothingToSplit", what, request.endpoint)
        endpoint, repeated = await self._asked(request, call)
        return endpoint_pb2.UpdateTrafficResponse(endpoint=endpoint, repeated_submission=repeated)

    async def WakeEndpoint(
        self, request: endpoint_pb2.WakeEndpoint, _: grpc.aio.ServicerContext[Any, Any]
    ) -> endpoint_pb2.WakeEndpointResponse:
        if self._endpoint(request.endpoint).asleep:
            await self._context.request(TOPIC, request.endpoint, request)
        return endpoint_pb2.WakeEndpointResponse()

    async def DeleteEndpoint(
        self, request: endpoint_pb2.DeleteEndpoint, _: grpc.aio.ServicerContext[Any, Any]
    ) -> endpoint_pb2.DeleteEndpointResponse:
        if self._endpoint(request.endpoint).deleted:
            raise self._unknown(request.endpoint)
        await self._context.request(TOPIC, request.endpoint, request)
        return endpoint_pb2.DeleteEndpointResponse()

    async def GetEndpoint(
        self, request: endpoint_pb2.GetEndpointRequest, _: grpc.aio.ServicerContext[Any, Any]
    ) -> endpoint_pb2.GetEndpointResponse:
        return endpoint_pb2.GetEndpointResponse(endpoint=self._shown(self._endpoint(request.endpoint)))

    async def ListEndpoints(
        self, _request: endpoint_pb2.ListEndpointsRequest, _: grpc.aio.ServicerContext[Any, Any]
    ) -> endpoint_pb2.ListEndpointsResponse:
        with self._context.store.reading() as documents:
            shelf = Shelf(documents)
            found = [shown(endpoint, self._door, shelf.versions(endpoint.latest)) for endpoint in shelf.endpoints()]
        return endpoint_pb2.ListEndpointsResponse(endpoints=found)

    async def GetEndpointLogs(
        self, request: endpoint_pb2.GetEndpointLogsRequest, _: grpc.aio.ServicerContext[Any, Any]
    ) -> endpoint_pb2.GetEndpointLogsResponse:
        name = self._endpoint(request.endpoint).name
        lines = await asyncio.to_thread(self._logs.tail, name, min(request.last_lines or _LINES, _MOST_LINES))
        return endpoint_pb2.GetEndpointLogsResponse(lines=_last(lines, _MOST_BYTES))

    async def GetEndpointKeys(
        self, request: endpoint_pb2.GetEndpointKeysRequest, _: grpc.aio.ServicerContext[Any, Any]
    ) -> endpoint_pb2.GetEndpointKeysResponse:
        primary, secondary = self._keys.keys(self._asking_for(request.endpoint, endpoint_pb2.AUTHENTICATION_KEY, "key"))
        return endpoint_pb2.GetEndpointKeysResponse(primary=primary, secondary=secondary)

    async def RegenerateEndpointKey(
        self, request: endpoint_pb2.RegenerateEndpointKey, _: grpc.aio.ServicerContext[Any, Any]
    ) -> endpoint_pb2.RegenerateEndpointKeyResponse:
        self._asking_for(request.endpoint, endpoint_pb2.AUTHENTICATION_KEY, "key")
        if request.key not in (endpoint_pb2.KEY_PRIMARY, endpoint_pb2.KEY_SECONDARY):
            raise refuse(Code.INVALID_ARGUMENT, "UserError", "There are a primary and a secondary key; name one.", "key")
        await self._context.request(TOPIC, request.endpoint, request)
        self._keys.keep(self._endpoint(request.endpoint))
        return endpoint_pb2.RegenerateEndpointKeyResponse()

    async def KeepCertificate(
        self, request: endpoint_pb2.KeepCertificateRequest, _: grpc.aio.ServicerContext[Any, Any]
    ) -> endpoint_pb2.KeepCertificateResponse:
        tls = endpoint_pb2.Tls(certificate_pem=request.certificate_pem, cname=request.cname)
        if fault := asking.tls_fault(tls) if request.certificate_pem else ("certificate", "The PEM text has no certificate."):
            raise refuse(Code.INVALID_ARGUMENT, "UserError", fault[1], fault[0])
        try:
            await asyncio.to_thread(self._certificates.keep, tls, request.key_pem, self._certificates_in_use())
        except BadCertificate as error:
            raise refuse(Code.INVALID_ARGUMENT, "UserError", f"TLS cannot be had: {error}.", "certificate") from error
        return endpoint_pb2.KeepCertificateResponse()

    def _certificates_in_use(self) -> list[endpoint_pb2.Tls]:
        with self._context.store.reading() as documents:
            return [tls for endpoint in Shelf(documents).endpoints() for tls in endpoint.certificates]

    async def GetEndpointToken(
        self, request: endpoint_pb2.GetEndpointTokenRequest, _: grpc.aio.ServicerContext[Any, Any]
    ) -> endpoint_pb2.GetEndpointTokenResponse:
        token, ends = self._keys.token(self._asking_for(request.endpoint, endpoint_pb2.AUTHENTICATION_TOKEN, "token"), datetime.now(UTC))
        answer = endpoint_pb2.GetEndpointTokenResponse(token=token)
        answer.expires_at.FromDatetime(ends)
        answer.refresh_after.FromDatetime(ends - TOKEN_LASTS + REFRESH_AFTER)
        return answer

    async def _asked(self, request: Request, call: grpc.aio.ServicerContext[Any, Any]) -> tuple[endpoint_pb2.Endpoint, bool]:
        """The endpoint once the request is answered, and whether another one had been answered so before."""
        if why := asking.unanswerable(request) or asking.name_fault(request.endpoint):
            raise refuse(Code.INVALID_ARGUMENT, "UserError", why, "endpoint")
        event_id = await self._context.request(TOPIC, request.endpoint, request)
        answer = await self._answer(request.submission_id, call.time_remaining())
        if answer.failure is not None:
            raise Refused(_STATUS.get(answer.failure.code, Code.FAILED_PRECONDITION), answer.failure)
        endpoint = self._endpoint(answer.endpoint)
        self._keys.keep(endpoint)
        return self._shown(endpoint), answer.event_id != event_id

    def _asking_for(self, name: str, authentication: int, what: str) -> Endpoint:
        """The endpoint, which lets in by that. Raises Refused."""
        endpoint = self._endpoint(name)
        if endpoint.deleted:
            raise self._unknown(name)
        if endpoint.settings.authentication != authentication:
            why = f"Endpoint {name!r} asks for no {what}: it was deployed without, or asks for something else."
            raise refuse(Code.FAILED_PRECONDITION, "UserError", why, name)
        return endpoint

    async def _answer(self, submission_id: str, seconds: float | None) -> Answer:
        def given(documents: Documents) -> Answer | None:
            answer = Shelf(documents).answer(submission_id)
            return answer if answer is not None and answer.is_given else None

        found = await self._context.answer(given, seconds)
        if found is None:
            what = f"Submission {submission_id} is not decided yet. Ask again with the same submission id."
            raise refuse(Code.DEADLINE_EXCEEDED, "Unavailable", what, submission_id)
        return found

    def _shown(self, endpoint: Endpoint) -> endpoint_pb2.Endpoint:
        with self._context.store.reading() as documents:
            return shown(endpoint, self._door, Shelf(documents).versions(endpoint.latest))

    def _endpoint(self, name: str) -> Endpoint:
        with self._context.store.reading() as documents:
            found = Shelf(documents).endpoint(name)
        if found is None:
            raise self._unknown(name)
        return found

    def _unknown(self, name: str) -> Refused:
        with self._context.store.reading() as documents:
            names = [endpoint.name for endpoint in Shelf(documents).endpoints()]
        what = f"There is no endpoint {name[:100]!r}; there is: {told(close_to(name, names), names)}."
        return refuse(Code.NOT_FOUND, "EndpointNotFound", what, name)


def _last(lines: Sequence[str], room: int) -> list[str]:
    """As many from the end as there is room for, in bytes."""
    kept = []
    for line in reversed(lines):
        room -= len(line.encode()) + 8
        if room < 0:
            break
        kept.append(line)
    return kept[::-1]
