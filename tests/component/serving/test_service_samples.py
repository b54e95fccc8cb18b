"""The request log on the serving service as a process: sampled calls on real Kafka, what a kill costs, and a replay against another version."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.component.service_process import ServiceProcess
from tests.component.serving.calls import a_name, until
from tests.component.serving.conftest import Registry
from tests.component.serving.test_service import _Through
from tests.component.serving.test_service_code import live
from tests.component.topic_log import TopicLog
from trainyard._deployment_configuration import DeploymentConfiguration
from trainyard._kafka import Events
from trainyard._model import Model
from trainyard._objects import MinioObjects
from trainyard._replay.replaying import Report, replay
from trainyard._replay.samples import Range, samples
from trainyard._replay.target import Target, standing_in
from trainyard._webservice import Webservice
from trainyard.endpoint.v1 import inference_pb2 as pb

pytestmark = [pytest.mark.component, pytest.mark.timeout(240)]
ALL = DeploymentConfiguration(sample_rate=1.0)
INFER = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}]}


@pytest.fixture(scope="module")
def space(service: ServiceProcess, objects: MinioObjects, kafka_bootstrap: str) -> Any:
    return SimpleNamespace(_clients=_Through(service.channel), _objects=objects, _events=Events(kafka_bootstrap))


@pytest.fixture
def model(registry: Registry, models: Path) -> str:
    """A model of this test's own: version 1 adds 2, version 2 adds 3."""
    name = a_name("sampled")
    registry.register(name, 1, models / "half" / "model")
    registry.register(name, 2, models / "half-3" / "model")
    return name


@pytest.fixture
def sampled(topic_log: TopicLog) -> Callable[[str, int], list[Any]]:
    """The sampled calls of an endpoint, once there are so many."""

    def wait(endpoint: str, count: int) -> list[Any]:
        def found() -> list[Any]:
            return [it.message for it in topic_log.events("trainyard.inference") if it.key == endpoint]

        until(lambda: len(found()) >= count, f"{count} sampled calls of {endpoint}")
        return found()

    return wait


def asked(service: Webservice, count: int = 1) -> None:
    """Over REST, V2 and gRPC in turn, `count` rounds."""
    for number in range(count):
        service.run({"instances": [float(number)]})
        httpx.post(re.sub("/v1/(.*):predict", r"/v2/\1/infer", service.scoring_uri), json=INFER).raise_for_status()
        service.predict({"x": [float(number)]})


def replayed(space: Any, name: str, against: str) -> tuple[Report, str]:
    """And the endpoint that stood in."""
    with standing_in(space, name, against) as service:
        target = Target(service)
        try:
            return replay(samples(space._events, name, Range()), target, 1e-6), service.name
        finally:
            target.close()


def test_calls_of_every_protocol_come_to_kafka_and_no_more_once_the_rate_is_0(
    space: Any, model: str, sampled: Callable[[str, int], list[Any]], topic_log: TopicLog
) -> None:
    service = live(Model.deploy(space, a_name("log"), [f"{model}:1"], deployment_config=ALL))
    asked(service)
    found = {it.protocol: it for it in sampled(service.name, 3)}

    service.update(sample_rate=0)
    metrics = service.scoring_uri.partition("/v1/")[0] + "/metrics"

    def takes_none() -> bool:
        before = httpx.get(metrics).text
        asked(service)
        return _kept(before) == _kept(httpx.get(metrics).text)

    until(takes_none, "an end of sampling")

    rest, rpc, open_rest = (
        found[it] for it in (pb.INFERENCE_PROTOCOL_TENSORFLOW_REST, pb.INFERENCE_PROTOCOL_TENSORFLOW_GRPC, pb.INFERENCE_PROTOCOL_OPEN_REST)
    )
    assert (rest.endpoint, rest.deployment, rest.model, rest.version, rest.status) == (service.name, 1, model, 1, 200)
    assert (json.loads(rest.request.content), json.loads(rest.response.content)) == ({"instances": [0.0]}, {"predictions": [2.0]})
    assert (rpc.method, rpc.path, rpc.status) == ("/tensorflow.serving.PredictionService/Predict", "", 0)
    assert json.loads(open_rest.response.content)["outputs"][0]["data"] == [2.5]
    assert (service.deployments[-1]["deployment"], service.sample_rate) == (1, 0)


def _kept(metrics: str) -> str:
    return next(line for line in metrics.splitlines() if 'samples_total{outcome="kept"}' in line)


def test_a_replay_tells_the_version_that_differs_from_the_one_that_does_not_and_leaves_nothing_behind(
    space: Any, model: str, sampled: Callable[[str, int], list[Any]]
) -> None:
    service = live(Model.deploy(space, a_name("replay"), [f"{model}:1"], deployment_config=ALL))
    asked(service, 2)
    sampled(service.name, 6)

    same, stood_in = replayed(space, service.name, f"{model}:1")
    other, _ = replayed(space, service.name, f"{model}:2")

    assert (same.samples, same.same, same.is_clean) == (6, 6, True)
    assert (other.samples, other.differing, other.failed, other.is_clean) == (6, 6, 0, False)
    assert other.largest.size == pytest.approx(1 / 3.0)
    assert {it["where"] for it in other.examples} == {"predictions[0]", "outputs.y.values[0]", "y.values[0]"}
    assert stood_in not in [it.name for it in Webservice.list(space)]


def test_while_a_version_stands_in_callers_by_the_models_name_are_answered_as_before(
    space: Any, model: str, sampled: Callable[[str, int], list[Any]]
) -> None:
    service = live(Model.deploy(space, a_name("names"), [f"{model}:1"]))
    door = service.door_scoring_uri.partition("/endpoints/")[0]

    with standing_in(space, service.name, f"{model}:2") as other:
        by_name = httpx.post(f"{door}/v1/models/{model}:predict", json={"instances": [1.0]})
        without_key = httpx.post(other.scoring_uri, json={"instances": [1.0]})

        assert (by_name.json(), without_key.status_code) == ({"predictions": [2.5]}, 401)
        assert other.run({"instances": [1.0]}) == {"predictions": [3.5]}


def test_a_kill_between_the_spool_and_kafka_loses_no_sample_that_was_written_and_doubles_none(
    space: Any, model: str, service: ServiceProcess, sampled: Callable[[str, int], list[Any]]
) -> None:
    name = a_name("kill")
    endpoint = live(Model.deploy(space, name, [f"{model}:1"], deployment_config=ALL))
    endpoint.run({"instances": [7.0]})
    folder = service.home / "samples" / f"{name}-1"
    until(lambda: any(it.stat().st_size for it in folder.glob("*.samples")) or sampled(name, 1), "a sample in the spool")

    service.kill()
    service.start()

    found = sampled(name, 1)
    assert [json.loads(it.request.content) for it in found] == [{"instances": [7.0]}]
