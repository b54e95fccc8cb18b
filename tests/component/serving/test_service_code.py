"""Scripts that answer, settings that change, rollback and aliases: the serving service as a process, on real Kafka and MinIO."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import httpx
import pytest

from tests.component.service_process import ServiceProcess
from tests.component.serving.calls import HEALTHY, a_name, history, kinds, refusal, until, until_state
from tests.component.serving.conftest import WIRE, Registry, predict_request, tensor
from tests.component.serving.test_service import _Through
from tests.component.topic_log import TopicLog
from trainyard._deployment_configuration import DeploymentConfiguration
from trainyard._errors import WebserviceException
from trainyard._inference import predict
from trainyard._inference_config import InferenceConfig
from trainyard._model import Model
from trainyard._objects import MinioObjects
from trainyard._webservice import Webservice
from trainyard.endpoint.v1 import endpoint_pb2 as pb
from trainyard.endpoint.v1.endpoint_pb2_grpc import EndpointServiceStub
from trainyard.model.v1.model_pb2 import AliasMoved

pytestmark = [pytest.mark.component, pytest.mark.timeout(240)]
SCORE = """
import json, os
from azureml.core.model import Model
import helper
def init():
    global weights
    print('reading the weights')
    folder = os.environ['AZUREML_MODEL_DIR']
    weights = [(os.path.relpath(os.path.join(at, name), folder), open(os.path.join(at, name)).read())
               for at, _, names in os.walk(folder, followlinks=True) for name in sorted(names)]
def run(raw_data):
    path = Model.get_model_path(json.loads(raw_data)['model'])
    return {'weights': weights, 'path': os.path.basename(path), 'helper': helper.name, 'greeting': os.environ['GREETING']}
"""


@pytest.fixture(scope="module")
def stub(service: ServiceProcess) -> EndpointServiceStub:
    return EndpointServiceStub(service.channel)


@pytest.fixture(scope="module")
def space(service: ServiceProcess, objects: MinioObjects) -> Any:
    return SimpleNamespace(_clients=_Through(service.channel), _objects=objects)


@pytest.fixture(scope="module", autouse=True)
def registered(registry: Registry, models: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Versions of "half" add 2 and 3; "notes" and "words" are files that no server knows by itself."""
    registry.register("half", 1, models / "half" / "model")
    registry.register("half", 2, models / "half-3" / "model")
    for name in ("notes", "words"):
        folder = tmp_path_factory.mktemp(name) / "weights"
        folder.mkdir()
        (folder / "weights.txt").write_text(name)
        registry.register(name, 1, folder)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "score.py").write_text(SCORE)
    (folder / "helper.py").write_text("name = 'beside'\n")
    return folder


def code(folder: Path, **variables: str) -> InferenceConfig:
    from trainyard._environment import Environment

    environment = Environment("scoring")
    environment.environment_variables = {"GREETING": "hello", **variables}
    return InferenceConfig("score.py", source_directory=folder, environment=environment)


def answered_by(service: Webservice, answer: float) -> None:
    """Once the server before it has left the port, which it drains when its successor is there."""
    until(lambda: service.run({"instances": [1.0]}) == {"predictions": [answer]}, f"an answer of {answer}")


def live(service: Webservice) -> Webservice:
    service.wait_for_deployment(timeout_sec=90)
    return service


def test_a_script_answers_with_its_models_its_neighbours_and_its_environment(space: Any, source: Path, topic_log: TopicLog) -> None:
    one, many = a_name("code"), a_name("many")

    single = live(Model.deploy(space, one, ["notes:1"], code(source)))
    several = live(Model.deploy(space, many, ["notes:1", "words:1"], code(source)))

    assert (single.scoring_uri.endswith("/score"), single.grpc_address) == (True, "")
    assert single.run({"model": "notes"}) == {
        "weights": [["weights/weights.txt", "notes"]], "path": "weights", "helper": "beside", "greeting": "hello",
    }  # fmt: skip
    assert sorted(several.run({"model": "words"})["weights"]) == [
        ["notes/1/weights/weights.txt", "notes"],
        ["words/1/weights/weights.txt", "words"],
    ]
    assert several.model_ids == ["notes:1", "words:1"]
    assert "reading the weights" in single.get_logs()
    assert kinds(history(topic_log, one)) == ["DeployEndpoint", "EndpointStarting", "VersionLoaded", "EndpointLive"]


def test_an_init_that_raises_is_the_error_with_its_traceback_and_the_old_code_answers_on(space: Any, source: Path) -> None:
    name = a_name("init")
    service = live(Model.deploy(space, name, ["notes:1"], code(source)))
    (source / "score.py").write_text("def init():\n    raise OSError('no such weights')\ndef run(d): pass\n")

    service.update(inference_config=code(source))
    with pytest.raises(WebserviceException) as caught:
        service.wait_for_deployment(timeout_sec=90)

    assert caught.value.code == "ScoringScriptFailed"
    assert "score.py: init() raised OSError: no such weights" in caught.value.message
    assert "raise OSError('no such weights')" in "\n".join(caught.value.last_lines)
    assert (service.state, service.error is not None) == ("Failed", True)
    assert service.run({"model": "notes"})["helper"] == "beside"
    service.roll_back()
    assert live(service).state == "Healthy"
    assert service.run({"model": "notes"})["helper"] == "beside"


def test_a_model_asks_for_its_key_on_grpc_and_rest_and_both_protocols(space: Any) -> None:
    name = a_name("locked")
    found = live(Model.deploy(space, name, ["half:1"], deployment_config=DeploymentConfiguration(auth_enabled=True)))
    base = found.scoring_uri.removesuffix("/v1/models/half:predict")
    key, _ = found.get_keys()

    def rest(path: str, key: str = "") -> int:
        return httpx.get(f"{base}{path}", headers={"authorization": f"Bearer {key}"} if key else {}, timeout=30).status_code

    assert found.run({"instances": [1.0]}) == {"predictions": [2.5]}
    assert found.predict({"x": [1.0]})["y"].tolist() == [2.5]
    with pytest.raises(WebserviceException, match="UNAUTHENTICATED"):
        predict(found.grpc_address, "half", {"x": [1.0]}, "serving_default", 30)
    with pytest.raises(WebserviceException, match="UNAUTHENTICATED"):
        predict(found.grpc_address, "half", {"x": [1.0]}, "serving_default", 30, {"authorization": "Bearer guess"})
    assert [rest(path) for path in ("/v1/models/half", "/v2/models/half", "/v1/models/half/metadata")] == [401] * 3
    assert [rest(path, key) for path in ("/v1/models/half", "/v2/models/half")] == [200, 200]
    assert [rest(path) for path in ("/healthz", "/readyz", "/v2/health/ready")] == [200] * 3


def test_keys_open_an_endpoint_from_the_moment_they_are_asked_for_and_are_in_no_event(
    space: Any, source: Path, service: ServiceProcess, topic_log: TopicLog
) -> None:
    name = a_name("keys")
    found = live(Model.deploy(space, name, ["notes:1"], code(source), DeploymentConfiguration(auth_enabled=True, tags={"team": "a"})))

    def status(key: str) -> int:
        body = {"model": "notes"}
        return httpx.post(found.scoring_uri, json=body, headers={"authorization": f"Bearer {key}"} if key else {}, timeout=30).status_code

    first, second = found.get_keys()
    before = [status(it) for it in ("", first, second, "guess")]
    found.regen_key("Primary")
    after = [status(it) for it in (first, second, found.get_keys()[0])]
    by_sdk = found.run({"model": "notes"})["helper"]
    found.update(token_auth_enabled=True)
    token, _ = found.get_token()
    until(lambda: status(second) == 401, "the end of the keys")
    with_token = [status(it) for it in ("", token)]
    found.update(auth_enabled=False, tags={"team": "b"})
    until(lambda: status("") == 200, "an open door")

    assert before == [401, 200, 200, 401]
    assert after == [401, 200, 200]
    assert (by_sdk, with_token) == ("beside", [401, 200])
    assert (found.tags, found.auth_enabled, found._message.deployment) == ({"team": "b"}, False, 1)
    told = "".join(str(event) for event in history(topic_log, name)) + found.get_logs()
    assert not [secret for secret in (first, second, token) if secret in told]
    assert kinds(history(topic_log, name)).count("EndpointChanged") == 2
    assert [it.name for it in Webservice.list(space, tags={"team": "b"}) if it.name == name] == [name]
    with pytest.raises(WebserviceException, match="asks for no key"):
        found.get_keys()


def test_keys_are_the_same_after_the_service_has_lost_its_database(space: Any, source: Path, service: ServiceProcess) -> None:
    name = a_name("kept")
    found = live(Model.deploy(space, name, ["notes:1"], code(source), DeploymentConfiguration(auth_enabled=True)))
    found.regen_key("Secondary")
    keys = found.get_keys()

    assert service.stop() == 0
    service.forget()
    service.start()

    again = live(Webservice(space, name))
    assert again.get_keys() == keys
    assert again.run({"model": "notes"})["helper"] == "beside"


def test_versions_change_and_come_back_under_load_and_no_call_fails(space: Any, stub: EndpointServiceStub) -> None:
    name = a_name("roll")
    found = live(Model.deploy(space, name, ["half:1"]))
    with calls_to(found.scoring_uri, found.grpc_address) as answers:
        until(lambda: answers.count(2.5) > 20, "calls to the first version")
        found.update(models=["half:2"])
        live(found)
        until(lambda: answers.count(3.5) > 20, "calls to the second version")
        found.roll_back()
        live(found)
        # Who is connected over gRPC leaves the version before within its connection's age.
        until(lambda: len(answers) > 40 and set(answers[-40:]) == {2.5}, "calls to the first version alone")

    assert set(answers) == {2.5, 3.5}
    assert (found.model_id, [it["deployment"] for it in found.deployments]) == ("half:1", [1, 2, 3])
    with pytest.raises(WebserviceException) as caught:
        found.roll_back()
    assert caught.value.code == "NothingToRollBack"


@contextmanager
def calls_to(uri: str, grpc_address: str = "") -> Iterator[list[float | str]]:
    """What a few callers were answered so far, or what went wrong: over REST on kept connections and new ones, and over gRPC, by a
    channel as it comes."""
    answers: list[float | str] = []
    over = threading.Event()

    def call(keeps: bool) -> None:
        with httpx.Client(timeout=30) as client:
            while not over.is_set():
                try:
                    got = client.post(uri, json={"instances": [1.0]}, headers={} if keeps else {"connection": "close"})
                    answers.append(got.json()["predictions"][0] if got.status_code == 200 else got.text)
                except httpx.HTTPError as error:
                    answers.append(repr(error))

    def call_by_grpc() -> None:
        request = predict_request({"x": tensor(1, [1], float_val=[1.0])})
        with grpc.insecure_channel(grpc_address) as channel:
            ask = channel.unary_unary("/tensorflow.serving.PredictionService/Predict", None, WIRE.PredictResponse.FromString)
            while not over.is_set():
                try:
                    answers.append(ask(request.SerializeToString(), timeout=30).outputs["y"].float_val[0])
                except grpc.RpcError as error:
                    answers.append(f"{error.code().name}: {error.details()}")

    callers = [threading.Thread(target=call, args=(keeps,)) for keeps in (True, False)]
    if grpc_address:
        callers.append(threading.Thread(target=call_by_grpc))
    for caller in callers:
        caller.start()
    try:
        yield answers
    finally:
        over.set()
        for caller in callers:
            caller.join()


def test_an_endpoint_follows_its_alias(
    space: Any, stub: EndpointServiceStub, topic_log: TopicLog, registry: Registry, models: Path
) -> None:
    name, model = a_name("alias"), a_name("followed")
    registry.register(model, 1, models / "half" / "model")
    registry.register(model, 2, models / "half-3" / "model")

    def move(version: int) -> None:
        topic_log.publish(
            "trainyard.models", model, AliasMoved(submission_id=a_name("move"), model=model, alias="champion", version=version)
        )

    with pytest.raises(WebserviceException, match="has no alias 'champion'"):
        Model.deploy(space, name, [f"{model}@champion"])
    move(1)
    found = live(Model.deploy(space, name, [f"{model}@champion"]))
    assert found.run({"instances": [1.0]}) == {"predictions": [2.5]}
    move(2)
    until_state(stub, name, HEALTHY, 2)
    found.update_deployment_state()
    answered_by(found, 3.5)
    found.roll_back()
    answered_by(live(found), 2.5)
    assert (found._message.alias, found._message.deployment) == ("champion", 3)


def test_a_server_that_takes_more_memory_than_it_may_is_ended_with_both_figures(space: Any, source: Path) -> None:
    (source / "score.py").write_text(
        "def init():\n    global much\n    much = bytes([1]) * (300 << 20)\n    import time; time.sleep(30)\ndef run(d): pass\n"
    )

    service = Model.deploy(space, a_name("much"), ["notes:1"], code(source), DeploymentConfiguration(memory_gb=0.125))
    with pytest.raises(WebserviceException, match="MiB of memory, and 128 MiB is its bound"):
        service.wait_for_deployment(timeout_sec=90)


def test_what_cannot_be_asked_for_is_refused(space: Any, source: Path, stub: EndpointServiceStub) -> None:
    scoring = pb.Scoring(entry_script="../score.py")
    scoring.source.inline.files["score.py"] = b""

    def ask(**fields: Any) -> tuple[grpc.StatusCode, str]:
        fields = {"submission_id": a_name("s"), "endpoint": a_name("no"), "model": "half", "version": 1, **fields}
        status, failure = refusal(lambda: stub.DeployEndpoint(pb.DeployEndpoint(**fields)))
        return status, failure.target

    wrong = grpc.StatusCode.INVALID_ARGUMENT
    assert ask(more_models=[pb.ModelReference(model="notes", version=1)]) == (wrong, "models")
    assert ask(scoring=scoring) == (wrong, "entry_script")
    assert ask(limits=pb.Limits(cpu_cores=-1)) == (wrong, "cpu_cores")
    assert ask(limits=pb.Limits(memory_bytes=1)) == (wrong, "memory")
    assert ask(alias="champion") == (wrong, "alias")
    assert ask(description="x" * 1001) == (wrong, "description")
    assert refusal(lambda: stub.UpdateEndpoint(pb.UpdateEndpoint(submission_id="u", endpoint=a_name("gone"))))[1].code == "EndpointNotFound"
    assert (
        refusal(lambda: stub.RollBackEndpoint(pb.RollBackEndpoint(submission_id="r", endpoint=a_name("gone"))))[1].code
        == "EndpointNotFound"
    )
