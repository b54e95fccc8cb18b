"""Calls to the serving service and to what it serves, and looks at what became of them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import httpx
import psutil
import pytest

from tests.component.topic_log import TopicLog
from trainyard._errors import FAILURE_KEY
from trainyard._inference import predict
from trainyard.endpoint.v1 import endpoint_pb2 as pb
from trainyard.endpoint.v1.endpoint_pb2_grpc import EndpointServiceStub
from trainyard.event.v1.artifact_pb2 import Failure

TOPIC = "trainyard.endpoints"
HEALTHY, FAILED, DELETED = pb.ENDPOINT_STATE_HEALTHY, pb.ENDPOINT_STATE_FAILED, pb.ENDPOINT_STATE_DELETED
_PATIENCE_SECONDS = 90.0


def a_name(purpose: str) -> str:
    return f"{purpose}-{uuid.uuid4().hex[:6]}"


def a_request(endpoint: str, model: str = "half", version: int = 1, *, overwrite: bool = False) -> pb.DeployEndpoint:
    return pb.DeployEndpoint(submission_id=uuid.uuid4().hex, endpoint=endpoint, model=model, version=version, overwrite=overwrite)


def until(find: Callable[[], Any], what: str) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if found := find():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come about within {_PATIENCE_SECONDS:.0f} s")


def until_state(stub: EndpointServiceStub, name: str, state: int, deployment: int = 1) -> pb.Endpoint:
    def look() -> pb.Endpoint | None:
        shown = stub.GetEndpoint(pb.GetEndpointRequest(endpoint=name)).endpoint
        assert state == FAILED or shown.state != FAILED, shown.failure
        return shown if shown.state == state and shown.deployment == deployment else None

    found: pb.Endpoint = until(look, f"{name} in state {pb.EndpointState.Name(state)}")
    return found


def deployed(stub: EndpointServiceStub, name: str, model: str = "half", version: int = 1, *, overwrite: bool = False) -> pb.Endpoint:
    answer = stub.DeployEndpoint(a_request(name, model, version, overwrite=overwrite))
    return until_state(stub, name, HEALTHY, answer.endpoint.deployment)


def clear(stub: EndpointServiceStub) -> None:
    """Deletes what other tests have left in the log: a service of one's own brings it all up."""

    def nobody_left() -> bool:
        left = stub.ListEndpoints(pb.ListEndpointsRequest()).endpoints
        for endpoint in left:
            stub.DeleteEndpoint(pb.DeleteEndpoint(endpoint=endpoint.endpoint))
        return not left

    until(nobody_left, "an empty list of endpoints")


def answers(endpoint: pb.Endpoint) -> tuple[float, float]:
    """What it makes of 1, over gRPC and over REST."""
    served_as = endpoint.scoring_uri.rpartition("/models/")[2].partition(":")[0]
    by_grpc = predict(endpoint.grpc_address, served_as, {"x": [1.0]}, "serving_default", 30)
    by_rest = httpx.post(endpoint.scoring_uri, json={"instances": [1.0]}, timeout=30).json()
    return float(by_grpc["y"][0]), float(by_rest["predictions"][0])


def server_of(endpoint: pb.Endpoint) -> psutil.Process:
    """The process that listens where the endpoint is."""
    port = httpx.URL(endpoint.scoring_uri).port
    pids = {it.pid for it in psutil.net_connections("tcp") if it.status == psutil.CONN_LISTEN and it.laddr[1:] == (port,)}
    (pid,) = pids
    return psutil.Process(pid)


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, Failure]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    trailers: Any = caught.value
    (failure,) = [Failure.FromString(value) for key, value in trailers.trailing_metadata() if key == FAILURE_KEY]
    return trailers.code(), failure


def history(log: TopicLog, name: str) -> list[Any]:
    return [event.message for event in log.events(TOPIC) if event.key == name]


def kinds(messages: Sequence[Any]) -> list[str]:
    return [type(message).__name__ for message in messages if not isinstance(message, pb.EndpointProgress)]
