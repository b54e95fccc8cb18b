"""What a caller sees: health, reflection, and errors that keep their Failure on the wire."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.chassis.grpc_server import Code, Refused, Server, as_refusal, refuse
from services.chassis.records import Unavailable
from trainyard._errors import FAILURE_KEY, PlatformUnavailableException, RunNotFoundException, UserErrorException
from trainyard.event.v1.artifact_pb2 import Failure
from trainyard.job.v1 import job_pb2_grpc
from trainyard.job.v1.job_pb2 import GetRunRequest, GetRunResponse, Run, WatchRunRequest, WatchRunResponse

NAME = "trainyard.job.v1.JobService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
A_FAILURE = Failure(code="RunNotFound", message="There is no run 'r9'.", target="r9", last_lines=["a", "b"], exit_code=-9)


class Jobs(job_pb2_grpc.JobServiceServicer):
    """Raises what it is given, if anything; a stream raises after its first answer."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    async def GetRun(self, request: GetRunRequest, context: Any) -> GetRunResponse:  # noqa: N802 - the wire's name
        if self._error:
            raise self._error
        return GetRunResponse(run=Run(run_id=request.run_id))

    async def WatchRun(self, request: WatchRunRequest, context: Any) -> AsyncIterator[WatchRunResponse]:  # noqa: N802 - the wire's name
        yield WatchRunResponse(run=Run(run_id=request.run_id))
        if self._error:
            raise self._error


class Aborting(job_pb2_grpc.JobServiceServicer):
    async def GetRun(self, request: GetRunRequest, context: Any) -> GetRunResponse:  # noqa: N802 - the wire's name
        await context.abort(Code.ALREADY_EXISTS, "by itself")
        raise AssertionError


@asynccontextmanager
async def serving(servicer: Any, port: int = 0) -> AsyncIterator[tuple[Server, grpc.aio.Channel]]:
    def register(server: grpc.aio.Server) -> None:
        job_pb2_grpc.add_JobServiceServicer_to_server(servicer, server)

    server = Server("127.0.0.1", port, [NAME], register)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield server, channel
    finally:
        await server.stop()


async def unary(channel: grpc.aio.Channel) -> Any:
    return await job_pb2_grpc.JobServiceStub(channel).GetRun(GetRunRequest(run_id="r1"), timeout=30)


async def streaming(channel: grpc.aio.Channel) -> list[Any]:
    return [answer async for answer in job_pb2_grpc.JobServiceStub(channel).WatchRun(WatchRunRequest(run_id="r1"), timeout=30)]


both_kinds = pytest.mark.parametrize("call", [unary, streaming])


def the_failure(error: grpc.aio.AioRpcError) -> Failure:
    trailers: Any = error.trailing_metadata()
    (value,) = [value for key, value in trailers if key == FAILURE_KEY]
    return Failure.FromString(value)


# -- what an exception becomes


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Refused(Code.NOT_FOUND, A_FAILURE), Code.NOT_FOUND, "RunNotFound"),
        (Unavailable("Kafka is away"), Code.UNAVAILABLE, "Unavailable"),
        (PlatformUnavailableException("the object store is away"), Code.UNAVAILABLE, "Unavailable"),
        (UserErrorException("no such path", target="../x"), Code.INVALID_ARGUMENT, "UserError"),
        (RunNotFoundException("no such run", target="r9"), Code.FAILED_PRECONDITION, "RunNotFound"),
        (ValueError("secret path /etc"), Code.INTERNAL, "InternalError"),
    ],
)
def test_every_kind_of_exception_has_its_status_and_code(error: Exception, status: grpc.StatusCode, code: str) -> None:
    refusal = as_refusal(error)

    assert (refusal.status, refusal.failure.code) == (status, code)


def test_a_refusal_keeps_its_target_and_is_cut_to_what_fits() -> None:
    refusal = refuse(Code.NOT_FOUND, "RunNotFound", "m" * 10_000, "t" * 10_000)

    assert refusal.failure.message == "m" * 3000
    assert refusal.failure.target == "t" * 1000


def test_a_refusal_with_lone_surrogates_is_told_without_them() -> None:
    refusal = refuse(Code.NOT_FOUND, "RunNotFound", "no file \udcff", "\ud800")

    assert (refusal.failure.message, refusal.failure.target) == ("no file ?", "?")


# -- on the wire


@both_kinds
async def test_an_answer_arrives(call: Callable[..., Any]) -> None:
    async with serving(Jobs()) as (_, channel):
        answer = await call(channel)

    first = answer[0] if isinstance(answer, list) else answer
    assert first.run.run_id == "r1"


@both_kinds
async def test_a_refusal_arrives_with_its_failure_in_the_trailer(call: Callable[..., Any]) -> None:
    async with serving(Jobs(Refused(Code.NOT_FOUND, A_FAILURE))) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel)

    assert caught.value.code() is Code.NOT_FOUND
    assert caught.value.details() == A_FAILURE.message
    assert the_failure(caught.value) == A_FAILURE


@both_kinds
async def test_the_longest_failure_arrives_as_well(call: Callable[..., Any]) -> None:
    """A trailer beyond a client's limit arrives as another error altogether."""
    longest = Failure(code="EnvironmentBuildFailed", message="ü" * 3000, target="ü" * 1000, last_lines=["ü" * 32_768] * 20)
    async with serving(Jobs(Refused(Code.INVALID_ARGUMENT, longest))) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel)

    assert caught.value.code() is Code.INVALID_ARGUMENT
    failure = the_failure(caught.value)
    assert failure.code == "EnvironmentBuildFailed"
    assert failure.message.startswith("ü" * 1000) and failure.message.endswith(" ...")


async def test_of_many_last_lines_the_last_ones_arrive() -> None:
    failure = Failure(code="RunFailed", message="It ended.", last_lines=[f"{number}: {'x' * 400}" for number in range(20)], rank=0)
    async with serving(Jobs(Refused(Code.ABORTED, failure))) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(channel)

    arrived = the_failure(caught.value)
    assert 5 < len(arrived.last_lines) < 20
    assert list(arrived.last_lines) == list(failure.last_lines)[-len(arrived.last_lines) :]
    assert arrived.HasField("rank")


@both_kinds
async def test_an_unexpected_exception_gives_a_reference_and_none_of_its_text(
    call: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(Jobs(RuntimeError("password of the database"))) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel)

    failure = the_failure(caught.value)
    told = capsys.readouterr().out
    assert caught.value.code() is Code.INTERNAL
    assert "password" not in str(caught.value) + str(failure)
    assert failure.target and failure.target in str(caught.value.details())
    assert failure.target in told and "password of the database" in told


async def test_a_method_may_abort_by_itself() -> None:
    async with serving(Aborting()) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(channel)

    assert (caught.value.code(), caught.value.details()) == (Code.ALREADY_EXISTS, "by itself")


async def test_an_unknown_method_is_unimplemented() -> None:
    async with serving(Jobs()) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"/{NAME}/Teleport", None, None)(b"", timeout=30)

    assert caught.value.code() is Code.UNIMPLEMENTED


async def test_health_says_not_serving_until_the_service_is_ready() -> None:
    async with serving(Jobs()) as (server, channel):
        health = health_pb2_grpc.HealthStub(channel)

        async def told() -> list[Any]:
            return [(await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=30)).status for name in (NAME, "")]

        before = await told()
        await server.say(ready=True)
        after = await told()

    assert before == [NOT_SERVING, NOT_SERVING]
    assert after == [SERVING, SERVING]


async def test_whoever_watches_health_is_told_when_the_service_is_ready_and_when_it_stops() -> None:
    async with serving(Jobs()) as (server, channel):
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=NAME), timeout=30)
        first = await watching.read()
        await server.say(ready=True)
        second = await watching.read()

        await server.stop()
        third = await watching.read()

    assert [first.status, second.status, third.status] == [NOT_SERVING, SERVING, NOT_SERVING]


async def test_reflection_lists_the_services_and_describes_them() -> None:
    async with serving(Jobs()) as (_, channel):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked: Sequence[Any] = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=NAME),
        ]
        listed, described = [answer async for answer in stub.ServerReflectionInfo(iter(asked), timeout=30)]

    names = {service.name for service in listed.list_services_response.service}
    assert {NAME, "grpc.health.v1.Health"} <= names
    assert described.file_descriptor_response.file_descriptor_proto


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(OSError, match=f"127.0.0.1:{port} is taken"):
            Server("127.0.0.1", port, [NAME], lambda server: None)


async def test_two_servers_never_share_a_port() -> None:
    async with serving(Jobs()) as (server, _):
        with pytest.raises(OSError, match=f"127.0.0.1:{server.port} is taken"):
            Server("127.0.0.1", server.port, [NAME], lambda server: None)
