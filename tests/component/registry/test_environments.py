"""Named environments over gRPC, on a real broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tests.component.service_process import ServiceProcess
from trainyard._errors import TrainyardException, from_rpc
from trainyard.environment.v1.environment_pb2 import GetEnvironmentRequest, ListEnvironmentsRequest, RegisterEnvironment
from trainyard.environment.v1.environment_pb2_grpc import EnvironmentServiceStub
from trainyard.job.v1.spec_pb2 import EnvironmentSpec

pytestmark = pytest.mark.component
SECONDS = 60.0


@pytest.fixture(scope="module")
def environments(service: ServiceProcess) -> EnvironmentServiceStub:
    return EnvironmentServiceStub(service.channel)


def register(stub: EnvironmentServiceStub, submission_id: str, name: str, *packages: str) -> Any:
    definition = EnvironmentSpec(framework="none", pip_packages=packages)
    request = RegisterEnvironment(submission_id=submission_id, name=name, definition=definition)
    return stub.RegisterEnvironment(request, timeout=SECONDS)


def refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, TrainyardException]:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value.code(), from_rpc(error.value)


def test_versions_are_made_found_and_listed(environments: EnvironmentServiceStub) -> None:
    first = register(environments, "grpc-1", "env-a", "six")
    again = register(environments, "grpc-2", "env-a", "six")
    second = register(environments, "grpc-3", "env-a", "six", "rich")
    repeated = register(environments, "grpc-3", "env-a", "six", "rich")

    answers = (first, again, second, repeated)
    assert [(it.environment.version, it.repeated_submission) for it in answers] == [(1, False), (1, True), (2, False), (2, True)]
    latest = environments.GetEnvironment(GetEnvironmentRequest(name="env-a"), timeout=SECONDS).environment
    assert list(latest.definition.pip_packages) == ["six", "rich"]
    assert environments.GetEnvironment(GetEnvironmentRequest(name="env-a", version=1), timeout=SECONDS).environment == first.environment
    found = environments.ListEnvironments(ListEnvironmentsRequest(name="env-a"), timeout=SECONDS).environments
    assert [it.version for it in found] == [2, 1]
    assert latest in environments.ListEnvironments(ListEnvironmentsRequest(), timeout=SECONDS).environments


def test_what_is_not_there_is_told_with_what_is(environments: EnvironmentServiceStub) -> None:
    register(environments, "grpc-4", "env-b")

    absent = refusal(lambda: environments.GetEnvironment(GetEnvironmentRequest(name="env-bb"), timeout=SECONDS))
    no_version = refusal(lambda: environments.GetEnvironment(GetEnvironmentRequest(name="env-b", version=7), timeout=SECONDS))
    curated = refusal(lambda: register(environments, "grpc-5", "AzureML-Own"))
    nameless = refusal(lambda: register(environments, "", "env-b"))

    assert (absent[0], absent[1].code) == (grpc.StatusCode.NOT_FOUND, "EnvironmentNotFound")
    assert "there is: env-b" in absent[1].message
    assert (no_version[0], no_version[1].target) == (grpc.StatusCode.NOT_FOUND, "env-b:7")
    assert (curated[0], curated[1].code, curated[1].target) == (grpc.StatusCode.INVALID_ARGUMENT, "UserError", "name")
    assert nameless[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_a_lost_database_is_filled_again_with_the_same_versions(environments: EnvironmentServiceStub, service: ServiceProcess) -> None:
    register(environments, "grpc-6", "env-c", "six")
    register(environments, "grpc-7", "env-c", "six")
    assert service.stop() == 0
    before = service.documents()

    service.forget()
    service.start()

    assert {("environment-version", "env-c:1"), ("environment-answer", "grpc-7")} <= before.keys()
    assert service.documents() == before
