"""What answers calls outlives the service that started it, and the service that comes back takes it over as it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest

from services.serving.keeper import address
from tests.component.service_process import ServiceProcess
from tests.component.serving.calls import TOPIC, a_name, has_ended, history, kinds, server_of, until
from tests.component.serving.conftest import Registry
from tests.component.serving.test_service import _Through
from tests.component.serving.test_service_code import live
from tests.component.topic_log import TopicLog
from trainyard._inference import predict
from trainyard._inference_config import InferenceConfig
from trainyard._model import Model
from trainyard._objects import MinioObjects
from trainyard._webservice import Webservice
from trainyard.endpoint.v1 import endpoint_pb2 as pb

pytestmark = [pytest.mark.component, pytest.mark.timeout(240)]
LIVED = ["EndpointStarting", "VersionLoaded", "EndpointLive"]


@pytest.fixture(scope="module")
def space(service: ServiceProcess, objects: MinioObjects) -> Any:
    return SimpleNamespace(_clients=_Through(service.channel), _objects=objects)


@pytest.fixture(scope="module")
def model(registry: Registry, models: Path) -> str:
    """Version 1 adds 2, version 2 adds 3."""
    name = a_name("kept")
    registry.register(name, 1, models / "half" / "model")
    registry.register(name, 2, models / "half-3" / "model")
    return name


@pytest.fixture(scope="module")
def found(space: Any, model: str) -> Webservice:
    return live(Model.deploy(space, a_name("model"), [f"{model}:1"]))


@pytest.fixture(scope="module")
def scored(space: Any, tmp_path_factory: pytest.TempPathFactory) -> Webservice:
    folder = tmp_path_factory.mktemp("code")
    (folder / "score.py").write_text("def init(): print('begun')\ndef run(data): return data.upper()\n")
    return live(Model.deploy(space, a_name("code"), [], InferenceConfig(str(folder / "score.py"))))


def keeper_of(service: ServiceProcess) -> psutil.Process:
    with address.connect(service.home) as connection:
        return psutil.Process(address.pid_of(connection))


def of_model(uri: str) -> float:
    got = httpx.post(uri, json={"instances": [1.0]}, timeout=30)
    assert got.status_code == 200, got.text
    return float(got.json()["predictions"][0])


def by_grpc(address: str, model: str) -> float:
    return float(predict(address, model, {"x": [1.0]}, "serving_default", 30)["y"][0])


def of_code(uri: str) -> str:
    got = httpx.post(uri, content="x", timeout=30)
    assert got.status_code == 200, got.text
    return str(got.json())


def answers_by(uri: str) -> bool:
    try:
        return httpx.post(uri, content="x").status_code == 200
    except httpx.HTTPError:
        return False


@contextmanager
def calling(asks: Mapping[str, Callable[[], Any]]) -> Iterator[dict[str, list[Any]]]:
    """Each over and over: what was answered so far, or what went wrong."""
    answers: dict[str, list[Any]] = {name: [] for name in asks}
    over = threading.Event()

    def call(name: str) -> None:
        while not over.is_set():
            try:
                answers[name].append(asks[name]())
            except Exception as error:
                answers[name].append(repr(error))

    with ThreadPoolExecutor(len(asks)) as callers:
        callers.map(call, asks)
        try:
            yield answers
        finally:
            over.set()


def answered_on(answers: Mapping[str, list[Any]]) -> None:
    """Every caller got some more answers."""
    counts = {name: len(given) for name, given in answers.items()}
    until(lambda: all(len(answers[name]) > count + 5 for name, count in counts.items()), "more answers")


def test_a_killed_service_costs_no_call_and_the_next_one_goes_on_with_the_same_processes(
    space: Any, service: ServiceProcess, found: Webservice, scored: Webservice, model: str, tmp_path: Path, topic_log: TopicLog
) -> None:
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    unwanted = live(Model.deploy(space, a_name("unwanted"), [], InferenceConfig(str(tmp_path / "score.py"))))
    asks: dict[str, Callable[[], Any]] = {
        "REST": lambda: of_model(found.scoring_uri),
        "gRPC": lambda: by_grpc(found.grpc_address, model),
        "door REST": lambda: of_model(found.door_scoring_uri),
        "door gRPC": lambda: by_grpc(found.door_grpc_address, model),
        "code": lambda: of_code(scored.scoring_uri),
        "door code": lambda: of_code(scored.door_scoring_uri),
    }
    until(lambda: httpx.post(found.door_scoring_uri, json={"instances": [1.0]}).status_code == 200, "the door's knowledge")
    until(lambda: answers_by(scored.door_scoring_uri), "the door's knowledge")
    servers = [server_of(it._message) for it in (found, scored)]
    gone, keeper = server_of(unwanted._message), keeper_of(service)
    doors = [it.pid for it in keeper.children() if "services.serving.door" in it.cmdline()]

    with calling(asks) as answers:
        answered_on(answers)
        service.kill()
        topic_log.publish(TOPIC, unwanted.name, pb.DeleteEndpoint(endpoint=unwanted.name))
        answered_on(answers)
        service.start()
        until(lambda: has_ended(gone), "the end of what nobody wants any more")
        answered_on(answers)

    for name, given in answers.items():
        assert set(given) == {"X" if "code" in name else 2.5}, name
    assert [server_of(it._message) for it in (found, scored)] == servers
    assert len(doors) == 1
    assert [it.pid for it in keeper.children() if "services.serving.door" in it.cmdline()] == doors
    assert keeper_of(service) == keeper
    for it in (found, scored):
        assert kinds(history(topic_log, it.name))[1:] == LIVED


def test_after_a_takeover_a_new_version_has_the_same_address_and_the_old_server_ends(
    service: ServiceProcess, found: Webservice, model: str, topic_log: TopicLog
) -> None:
    old, uri = server_of(found._message), found.scoring_uri
    service.kill()
    service.start()

    with calling({"REST": lambda: of_model(uri)}) as answers:
        found.update(models=[f"{model}:2"])
        live(found)
        until(lambda: has_ended(old), "the end of the old server")
        answered_on(answers)

    assert found.scoring_uri == uri
    assert set(answers["REST"]) == {2.5, 3.5}
    assert answers["REST"][-1] == 3.5
    assert "EndpointUnhealthy" not in kinds(history(topic_log, found.name))


def test_a_server_that_dies_while_its_service_is_away_is_brought_back(
    service: ServiceProcess, scored: Webservice, topic_log: TopicLog
) -> None:
    server, uri = server_of(scored._message), scored.scoring_uri

    service.kill()
    server.kill()
    until(lambda: has_ended(server), "its end")
    service.start()

    until(lambda: kinds(history(topic_log, scored.name))[-2:] == ["EndpointUnhealthy", "EndpointLive"], "the return")
    assert live(scored).scoring_uri == uri
    assert of_code(uri) == "X"


def test_a_killed_keeper_takes_all_along_and_all_comes_back_under_the_same_addresses(
    service: ServiceProcess, scored: Webservice, topic_log: TopicLog
) -> None:
    server, keeper, uri = server_of(scored._message), keeper_of(service), scored.scoring_uri
    before = len(history(topic_log, scored.name))

    keeper.kill()

    until(lambda: has_ended(server), "the end of the server with its keeper")
    until(lambda: kinds(history(topic_log, scored.name)[before:]) == ["EndpointUnhealthy", "EndpointLive"], "the return")
    assert live(scored).scoring_uri == uri
    assert of_code(uri) == "X"
    until(lambda: answers_by(scored.door_scoring_uri), "the door")
    assert keeper_of(service) != keeper


def test_a_service_that_is_stopped_leaves_nothing_behind(service: ServiceProcess, scored: Webservice) -> None:
    keeper = keeper_of(service)
    left = [keeper, *keeper.children(recursive=True)]

    assert service.stop() == 0

    until(lambda: all(has_ended(it) for it in left), "the end of all")
    assert len(left) >= 3
    service.start()
    until(lambda: Webservice(scored.workspace, scored.name).state == "Healthy", "the return")


def test_a_service_that_is_stopped_before_it_has_taken_anything_over_leaves_nothing_behind_either(service: ServiceProcess) -> None:
    keeper = keeper_of(service)
    left = [keeper, *keeper.children(recursive=True)]
    service.kill()

    with service.without("127.0.0.1:1") as waiting:
        until(lambda: "waits for Kafka" in service.log(), "a service that waits")
        waiting.terminate()
        code = waiting.wait(30)

    assert code == 0
    until(lambda: all(has_ended(it) for it in left), "the end of all")
