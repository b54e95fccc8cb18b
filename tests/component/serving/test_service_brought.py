"""What a registered model brings to its endpoint: its form, the cores and memory that it asks for, how it batches, and an alias as a label."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import httpx
import pytest

from tests.component.service_process import ServiceProcess
from tests.component.serving.calls import FAILED, HEALTHY, a_name, a_request, answers, deployed, history, server_of, until, until_state
from tests.component.serving.conftest import WIRE, Registry, predict_request, tensor
from tests.component.serving.test_service import _Through
from tests.component.topic_log import TopicLog
from trainyard._model import Model
from trainyard._webservice import Webservice
from trainyard.endpoint.v1 import endpoint_pb2 as pb
from trainyard.endpoint.v1.endpoint_pb2_grpc import EndpointServiceStub
from trainyard.model.v1.model_pb2 import AliasMoved, Requirements

pytestmark = [pytest.mark.component, pytest.mark.timeout(240)]
ONE = {"instances": [1.0]}
_PREDICT = "/tensorflow.serving.PredictionService/Predict"
# A call waits for a second one for as long as any test lasts.
_BATCHING = "max_batch_size { value: 2 } batch_timeout_micros { value: 20000000 } num_batch_threads { value: 1 }"


@pytest.fixture(scope="module")
def stub(service: ServiceProcess) -> EndpointServiceStub:
    return EndpointServiceStub(service.channel)


@pytest.fixture(scope="module")
def space(service: ServiceProcess) -> Any:
    return SimpleNamespace(_clients=_Through(service.channel))


@pytest.fixture(scope="module")
def champion(
    stub: EndpointServiceStub, registry: Registry, topic_log: TopicLog, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> pb.Endpoint:
    """A model that asks for two cores and says how it batches, deployed by its alias and with no limits."""
    name, folder = a_name("brings"), tmp_path_factory.mktemp("brings") / "model"
    shutil.copytree(models / "half" / "model", folder)
    (folder / "batching_params.pbtxt").write_text(_BATCHING)
    registry.register(name, 1, folder, requirements=Requirements(cpus=2, memory_bytes=4 << 30))
    topic_log.publish("trainyard.models", name, AliasMoved(submission_id=a_name("move"), model=name, alias="champion", version=1))
    request = pb.DeployEndpoint(submission_id=a_name("s"), endpoint=a_name("champion"), model=name, alias="champion")
    stub.DeployEndpoint(request)
    return until_state(stub, request.endpoint, HEALTHY)


def test_a_tflite_file_is_deployed_by_the_sdk_and_answers_over_both_protocols(
    space: Any, stub: EndpointServiceStub, registry: Registry, models: Path, topic_log: TopicLog, tmp_path: Path
) -> None:
    name, file = a_name("lite"), tmp_path / "small"
    file.mkdir()
    shutil.copy(models / "lite" / "model" / "model.tflite", file / "half.tflite")
    registry.register(name, 1, file)

    Model.deploy(space, name, [f"{name}:1"])
    live = until_state(stub, name, HEALTHY)

    assert answers(live) == (2.5, 2.5)
    assert Webservice(space, name).run(ONE) == {"predictions": [2.5]}
    (loaded,) = [fact for fact in history(topic_log, name) if isinstance(fact, pb.VersionLoaded)]
    assert list(loaded.signatures) == ["serving_default"]


def test_the_models_own_cores_reach_its_server(champion: pb.Endpoint) -> None:
    server = server_of(champion)

    assert "--tensorflow-intra-op-parallelism=2" in server.cmdline()
    assert {server.environ()[it] for it in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")} == {"2"}
    assert (champion.bounds.cpu_cores, champion.bounds.memory_bytes, champion.limits) == (2, 4 << 30, pb.Limits())


def test_a_server_that_takes_more_than_its_model_asks_for_is_ended(stub: EndpointServiceStub, registry: Registry, models: Path) -> None:
    name = a_name("greedy")
    registry.register(name, 1, models / "half" / "model", requirements=Requirements(memory_bytes=64 << 20))

    stub.DeployEndpoint(a_request(name, name))

    assert "and 64 MiB is its bound" in until_state(stub, name, FAILED).failure.message


def test_a_model_that_says_how_it_batches_does_so_and_another_does_not(
    champion: pb.Endpoint, stub: EndpointServiceStub, registry: Registry, models: Path
) -> None:
    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(lambda _: httpx.post(champion.scoring_uri, json=ONE, timeout=60).json(), range(2)))

    assert got == [{"predictions": [2.5]}] * 2
    assert f'batches_total{{model_name="{champion.model}",version="1",size="2"}} 1' in metrics_of(champion)
    plain = a_name("plain")
    registry.register(plain, 1, models / "half" / "model")
    assert "--enable-batching=true" not in server_of(deployed(stub, plain, plain)).cmdline()


def test_an_alias_is_a_label_on_the_endpoint_and_through_the_door(champion: pb.Endpoint) -> None:
    door = champion.door_scoring_uri.partition("/endpoints/")[0]
    until(lambda: httpx.get(f"{door}/v1/models/{champion.model}").status_code == 200, "the door's knowledge of the endpoint")
    own = champion.scoring_uri.partition("/v1/")[0]

    two = {"instances": [1.0, 1.0]}  # a whole batch
    for base in (own, door):
        path = f"{base}/v1/models/{champion.model}/labels"
        assert httpx.post(f"{path}/champion:predict", json=two).json() == {"predictions": [2.5, 2.5]}
        assert httpx.post(f"{path}/challenger:predict", json=two).status_code == 400
    for address in (champion.grpc_address, champion.door_grpc_address):
        request = predict_request({"x": tensor(1, [2], float_val=[1.0, 1.0])}, model=champion.model)
        request.model_spec.version_label = "champion"
        with grpc.insecure_channel(address) as channel:
            answer = channel.unary_unary(_PREDICT, bytes, bytes)(request.SerializeToString(), timeout=30)
        found = WIRE.PredictResponse.FromString(answer)
        assert list(found.outputs["y"].float_val) == [2.5, 2.5]
        assert found.model_spec.version.value == 1


def metrics_of(endpoint: pb.Endpoint) -> str:
    return httpx.get(f"{endpoint.scoring_uri.partition('/v1/')[0]}/metrics", timeout=30).text
