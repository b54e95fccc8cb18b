"""The walk-through from examples/mnist, and what the event stream tells of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.system.platform import Platform
from trainyard import UserErrorException
from trainyard.endpoint.v1 import endpoint_pb2_grpc
from trainyard.endpoint.v1.endpoint_pb2 import GetEndpointRequest

REPO = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def demo(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the demo prints."""
    command = [sys.executable, str(REPO / "examples" / "mnist" / "demo.py"), "--config", str(platform.layout.home)]
    environment = {**os.environ, "TRAINYARD_DEMO_FOLDER": str(tmp_path_factory.mktemp("demo"))}
    result = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment, check=False)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-3000:]
    return result.stdout


def tail(platform: Platform, *options: str) -> list[str]:
    command = [
        sys.executable,
        "-m",
        "trainyard",
        "events",
        "tail",
        "--from",
        "beginning",
        "--no-follow",
        "--config",
        str(platform.layout.home),
    ]
    result = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_the_demos_model_says_what_may_be_asked_of_it(demo: str, platform: Platform) -> None:
    model = platform.workspace.models["tf-dnn-mnist"]

    assert model.signatures["serving_default"]["inputs"] == {"images": {"type": "float32", "shape": [None, 784]}}
    assert model.signatures["serving_default"]["outputs"] == {"probabilities": {"type": "float32", "shape": [None, 10]}}
    assert model.warnings == []
    with pytest.raises(UserErrorException, match="is in use: endpoint"):
        model.delete()


def test_the_demo_goes_from_nothing_to_the_same_prediction_over_grpc_and_rest(demo: str) -> None:
    accuracy = float(re.findall(r"final accuracy on 360 held-back digits: ([0-9.]+)", demo)[0])
    digits = re.findall(r"digit \d: true label (\d), over gRPC (\d), over REST (\d)", demo)

    assert accuracy >= 0.9
    assert len(digits) == 5
    assert all(by_grpc == by_rest for _, by_grpc, by_rest in digits)
    assert sum(label == by_grpc for label, by_grpc, _ in digits) >= 4


def test_the_demo_streams_the_scripts_output_and_tells_phases_with_durations(demo: str) -> None:
    assert re.search(r"Streaming azureml-logs/70_driver_log.txt\n=+\n.*images to learn from", demo)
    assert re.search(r"epoch 19: training accuracy", demo)
    for phase in ("queued", "preparing", "of which environment", "of which data", "running", "finalizing", "total"):
        assert re.search(rf"{phase} +[0-9.]+ s", demo), phase


def test_every_event_of_the_demo_is_told_in_order_with_what_caused_it(platform: Platform, demo: str) -> None:
    run_id = re.findall(r"RunId: (\S+)", demo)[0]

    # Other tests put garbage on the topics; it is told too, and is no event.
    events = [event for line in tail(platform, "--json") if "id" in (event := json.loads(line))]

    by_id = {event["id"]: index for index, event in enumerate(events)}
    assert all(by_id[event["causation"]] < index for index, event in enumerate(events) if event.get("causation") in by_id)
    kinds = [event["type"].rpartition(".")[2] for event in events if event["key"] == run_id]
    # What the scheduler says and what the agent says cross each other; each keeps its own order, and causes come first (above).
    scheduler = ["SubmitRun", "RunQueued", "RunPreparing", "GangFormed", "RunStarted", "RunFinalizing", "RunCompleted"]
    agent = ["LeaseAccepted", "TaskPrepared", "TaskStarted", "TaskExited", "OutputsUploaded"]
    for life in (scheduler, agent):
        assert [kind for kind in kinds if kind in life] == life
    told = {event["type"].rpartition(".")[2] for event in events}
    assert told >= {"DatasetVersionRegistered", "DatasetMaterialized", "PoolCreated", "PoolResized", "AgentRegistered", "MetricBatch", "LogChunk",
                    "ModelVersionRegistered", "EndpointStarting", "VersionLoaded", "EndpointLive"}  # fmt: skip
    facts = [
        event
        for event in events
        if event["type"].rpartition(".")[2] in ("RunQueued", "RunCompleted", "ModelVersionRegistered", "EndpointLive")
    ]
    assert all(event["causation"] for event in facts)


def test_the_same_story_can_be_read(platform: Platform, demo: str) -> None:
    run_id = re.findall(r"RunId: (\S+)", demo)[0]

    lines = tail(platform, "--run", run_id)

    (completed,) = [line for line in lines if "RunCompleted" in line]
    assert re.match(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  RunCompleted +\S+  .*\[trainyard/scheduler\] [0-9a-f]{8} <- [0-9a-f]{8}", completed
    )


def test_the_model_knows_where_it_came_from(platform: Platform, demo: str) -> None:
    run_id = re.findall(r"RunId: (\S+)", demo)[0]

    model = platform.workspace.models["tf-dnn-mnist"]

    lineage: dict[str, Any] = model.lineage
    assert lineage["run_id"] == run_id
    assert lineage["datasets"] == [f"mnist dataset:{platform.workspace.datasets['mnist dataset'].version}"]
    assert len(lineage["snapshot_id"]) == len(model.digest) == 64


def test_an_endpoint_is_back_after_its_service_was_killed(platform: Platform, demo: str) -> None:
    service = platform.workspace.webservices["tensorflow-web-service"]
    where = service.grpc_address
    request = json.dumps({"instances": [[0.0] * 784]})
    before = service.run(request)

    platform.kill_and_wait("serving")
    service.update_deployment_state()
    stub = endpoint_pb2_grpc.EndpointServiceStub(platform.workspace._clients.channel("serving"))
    platform.until(lambda: stub.GetEndpoint(GetEndpointRequest(endpoint=service.name)).endpoint.state == 2, "it is healthy")
    service.update_deployment_state()

    assert service.grpc_address == where
    assert service.run(request) == before
