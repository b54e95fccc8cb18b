"""One door for all models by name, and calls split between two versions: the serving service as a process."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import httpx
import psutil
import pytest

from tests.component.service_process import ServiceProcess
from tests.component.serving.calls import a_name, history, kinds, until
from tests.component.serving.conftest import WIRE, Registry, predict_request, tensor
from tests.component.serving.test_service import _Through
from tests.component.serving.test_service_code import calls_to, live
from tests.component.topic_log import TopicLog
from trainyard._deployment_configuration import DeploymentConfiguration
from trainyard._errors import WebserviceException
from trainyard._inference import predict
from trainyard._inference_config import InferenceConfig
from trainyard._model import Model
from trainyard._objects import MinioObjects
from trainyard._webservice import Webservice

pytestmark = [pytest.mark.component, pytest.mark.timeout(240)]
ONE = {"instances": [1.0]}


@pytest.fixture(scope="module")
def space(service: ServiceProcess, objects: MinioObjects) -> Any:
    return SimpleNamespace(_clients=_Through(service.channel), _objects=objects)


@pytest.fixture
def model(registry: Registry, models: Path) -> str:
    """A model of this test's own: version 1 adds 2, version 2 adds 3."""
    name = a_name("door")
    registry.register(name, 1, models / "half" / "model")
    registry.register(name, 2, models / "half-3" / "model")
    return name


def rest_door(service: Webservice) -> str:
    """http://host:port"""
    url = httpx.URL(service.door_scoring_uri)
    return f"http://{url.host}:{url.port}"


def by_rest(service: Webservice, **headers: str) -> float:
    got = httpx.post(service.door_scoring_uri, json=ONE, headers=headers, timeout=30)
    assert got.status_code == 200, got.text
    return float(got.json()["predictions"][0])


def test_a_model_answers_by_its_name_over_both_protocols_and_code_by_its_endpoint(space: Any, model: str, tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(data): return data.upper()\n")
    found = live(Model.deploy(space, a_name("by-name"), [f"{model}:1"]))
    code = live(Model.deploy(space, a_name("by-code"), [], InferenceConfig(str(tmp_path / "score.py"))))
    base = rest_door(found)
    until(lambda: httpx.get(f"{base}/v1/models/{model}").status_code == 200, "the door's knowledge of the endpoint")

    infer = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}]}
    assert httpx.post(f"{base}/v1/models/{model}:predict", json=ONE).json() == {"predictions": [2.5]}
    assert httpx.post(f"{base}/v2/models/{model}/infer", json=infer).json()["outputs"][0]["data"] == [2.5]
    assert by_rest(found) == 2.5
    assert predict(found.door_grpc_address, model, {"x": [1.0]}, "serving_default", 30)["y"].tolist() == [2.5]
    assert httpx.post(code.door_scoring_uri, content="x").json() == "X"
    lost = httpx.post(f"{base}/v1/models/nobody:predict", json=ONE)
    assert (lost.status_code, lost.json()["error"]) == (404, "no endpoint serves a model 'nobody'")
    with pytest.raises(WebserviceException, match="NOT_FOUND"):
        predict(found.door_grpc_address, "nobody", {"x": [1.0]}, "serving_default", 30)


def test_what_a_server_refuses_the_door_passes_on_with_its_code_and_keys_count(space: Any, model: str) -> None:
    found = live(Model.deploy(space, a_name("refused"), [f"{model}:1"], deployment_config=DeploymentConfiguration(auth_enabled=True)))
    key = {"authorization": f"Bearer {found.get_keys()[0]}"}
    until(lambda: httpx.post(found.door_scoring_uri, json=ONE).status_code == 401, "the door's knowledge of the endpoint")

    assert httpx.post(found.door_scoring_uri, json=ONE, headers=key).status_code == 200
    assert httpx.post(found.door_scoring_uri, json={"instances": "x"}, headers=key).status_code == 400
    with pytest.raises(WebserviceException, match="UNAUTHENTICATED"):
        predict(found.door_grpc_address, model, {"x": [1.0]}, "serving_default", 30)
    assert predict(found.door_grpc_address, model, {"x": [1.0]}, "serving_default", 30, key)["y"].tolist() == [2.5]
    with pytest.raises(WebserviceException, match="INVALID_ARGUMENT"):
        predict(found.door_grpc_address, model, {"wrong": [1.0]}, "serving_default", 30, key)
    with grpc.insecure_channel(found.door_grpc_address) as channel:
        for method in (
            "/tensorflow.serving.ModelService/HandleReloadConfigRequest",
            "/inference.GRPCInferenceService/RepositoryModelUnload",
        ):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(method, bytes, bytes)(b"", timeout=30)
            assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_calls_are_split_by_weight_and_the_same_key_has_the_same_version(space: Any, model: str, topic_log: TopicLog) -> None:
    name = a_name("split")
    found = live(Model.deploy(space, name, [f"{model}:1"]))

    found.split_traffic(30, version=2, sticky_by="X-User")
    until(lambda: 3.5 in [by_rest(found, **{"X-User": str(user)}) for user in range(20)], "calls to the second version")

    answers = {user: by_rest(found, **{"X-User": str(user)}) for user in range(60)}
    again = {user: by_rest(found, **{"X-User": str(user)}) for user in range(60)}
    by_grpc = {
        user: predict(found.door_grpc_address, model, {"x": [1.0]}, "serving_default", 30, {"x-user": str(user)})["y"].tolist()[0]
        for user in range(60)
    }
    assert answers == again == by_grpc
    assert 5 < Counter(answers.values())[3.5] < 35
    assert found.run(ONE) == {"predictions": [2.5]}  # its own port is the first version's
    assert found.traffic is not None
    assert (found.traffic["percent"], found.traffic["model"], found.state, found.model_id) == (30, f"{model}:2", "Healthy", f"{model}:1")
    found.split_traffic(0)
    until(lambda: {by_rest(found, **{"X-User": str(user)}) for user in range(20)} == {2.5}, "calls to the first version alone")
    assert found.traffic is None
    facts = kinds(history(topic_log, name))
    assert facts.count("TrafficShifted") == 2
    assert facts.index("UpdateTraffic") < facts.index("TrafficShifted")


def test_a_shadow_gets_copies_and_nobody_its_answers(space: Any, model: str, service: ServiceProcess) -> None:
    found = live(Model.deploy(space, a_name("shadow"), [f"{model}:1"]))
    found.split_traffic(0, version=2, shadow=True)
    second = until(lambda: json.loads((service.home / "door.json").read_text())[found.name].get("beside"), "the door's table")
    metrics = f"http://{second['rest']}/metrics"

    def copied() -> bool:
        return "request_count{" in httpx.get(metrics, timeout=30).text

    assert not copied()
    answers = [by_rest(found) for _ in range(20)]

    assert set(answers) == {2.5}
    until(copied, "copies of calls")


def test_versions_change_behind_the_door_and_no_call_fails(space: Any, model: str) -> None:
    found = live(Model.deploy(space, a_name("behind"), [f"{model}:1"]))
    by_rest_until(found, 2.5)
    with calls_to(found.door_scoring_uri) as answers, grpc_calls(found.door_grpc_address, model) as by_grpc:
        found.split_traffic(50, version=2)
        until(lambda: {2.5, 3.5} <= set(answers) and {2.5, 3.5} <= set(by_grpc), "answers of both versions")
        found.update(models=[f"{model}:2"])
        live(found)
        until(lambda: set(answers[-30:]) == {3.5} == set(by_grpc[-30:]), "answers of the second version alone")

    assert set(answers) == {2.5, 3.5} == set(by_grpc)


def by_rest_until(service: Webservice, answer: float) -> None:
    until(
        lambda: httpx.post(service.door_scoring_uri, json=ONE, timeout=30).text == f'{{"predictions": [{answer}]}}',
        f"an answer of {answer}",
    )


@contextmanager
def grpc_calls(address: str, model: str) -> Iterator[list[float | str]]:
    """What one caller was answered so far over gRPC, without any retry of its own."""
    answers: list[float | str] = []
    over = threading.Event()
    request = predict_request({"x": tensor(1, [1], float_val=[1.0])}, model=model)

    def call() -> None:
        with grpc.insecure_channel(address, options=[("grpc.enable_retries", 0)]) as channel:
            ask = channel.unary_unary("/tensorflow.serving.PredictionService/Predict", None, WIRE.PredictResponse.FromString)
            while not over.is_set():
                try:
                    answers.append(ask(request.SerializeToString(), timeout=30).outputs["y"].float_val[0])
                except grpc.RpcError as error:
                    answers.append(f"{error.code().name}: {error.details()}")

    caller = threading.Thread(target=call)
    caller.start()
    try:
        yield answers
    finally:
        over.set()
        caller.join()


def test_a_killed_door_is_back(space: Any, model: str) -> None:
    found = live(Model.deploy(space, a_name("killed-door"), [f"{model}:1"]))
    by_rest_until(found, 2.5)
    port = httpx.URL(found.door_scoring_uri).port
    (pid,) = {it.pid for it in psutil.net_connections("tcp") if it.status == psutil.CONN_LISTEN and it.laddr[1:] == (port,)}

    psutil.Process(pid).kill()

    def answers() -> bool:
        try:
            return httpx.post(found.door_scoring_uri, json=ONE, timeout=30).status_code == 200
        except httpx.HTTPError:
            return False

    until(answers, "the door's return")


def test_an_idle_endpoint_sleeps_without_a_process_and_the_first_call_through_the_door_wakes_it(
    space: Any, model: str, topic_log: TopicLog, tmp_path: Path
) -> None:
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(data): return data.upper()\n")
    name, code_name = a_name("idle"), a_name("idle-code")
    locked, opened = DeploymentConfiguration(idle_seconds=5, auth_enabled=True), DeploymentConfiguration(idle_seconds=5)
    found = live(Model.deploy(space, name, [f"{model}:1"], deployment_config=locked))
    code = live(Model.deploy(space, code_name, [], InferenceConfig(str(tmp_path / "score.py")), opened))
    key = {"authorization": f"Bearer {found.get_keys()[0]}"}

    until(lambda: "EndpointSlept" in kinds(history(topic_log, name)), "sleep")
    until(lambda: "EndpointSlept" in kinds(history(topic_log, code_name)), "sleep of the code")
    found.update_deployment_state()
    asleep = (found.asleep, found.state, found.scoring_uri)
    until(lambda: json.loads(httpx.get(f"{rest_door(found)}/healthz").text)["status"] == "ok", "the door")
    refused = [
        httpx.post(found.door_scoring_uri, json=ONE, headers=it, timeout=60).status_code for it in ({}, {"authorization": "Bearer no"})
    ]
    with pytest.raises(WebserviceException, match="UNAUTHENTICATED"):
        predict(found.door_grpc_address, model, {"x": [1.0]}, "serving_default", 60)
    sleeps_on = kinds(history(topic_log, name))[-1]
    answers = [
        found.run(ONE),
        predict(found.door_grpc_address, model, {"x": [1.0]}, "serving_default", 60, key)["y"].tolist(),
        code.run("x"),
    ]

    assert asleep == (True, "Healthy", "")
    assert (refused, sleeps_on) == ([401, 401], "EndpointSlept")
    assert answers == [{"predictions": [2.5]}, [2.5], "X"]
    facts = kinds(history(topic_log, name))
    assert facts[facts.index("EndpointSlept") :][:4] == ["EndpointSlept", "WakeEndpoint", "EndpointWoken", "EndpointLive"]
