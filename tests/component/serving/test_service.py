"""The serving service as a process, on real Kafka, MinIO and TensorFlow."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from tests.component.service_process import ServiceProcess
from tests.component.serving.calls import (
    DELETED,
    FAILED,
    HEALTHY,
    TOPIC,
    a_name,
    a_request,
    answers,
    deployed,
    has_ended,
    history,
    kinds,
    refusal,
    server_of,
    until,
    until_state,
)
from tests.component.serving.conftest import Registry
from tests.component.topic_log import TopicLog
from trainyard._errors import WebserviceException
from trainyard._grpc import Clients
from trainyard._model import Model
from trainyard._webservice import Webservice
from trainyard.endpoint.v1 import endpoint_pb2 as pb
from trainyard.endpoint.v1.endpoint_pb2_grpc import EndpointServiceStub
from trainyard.model.v1.model_pb2 import ModelVersion

pytestmark = [pytest.mark.component, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def stub(service: ServiceProcess) -> EndpointServiceStub:
    return EndpointServiceStub(service.channel)


@pytest.fixture(scope="module", autouse=True)
def registered(registry: Registry, models: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """half:1 adds 2, half:2 adds 3; weights:1 is no SavedModel, broken:1 looks like one."""
    registry.register("half", 1, models / "half" / "model")
    registry.register("half", 2, models / "half-3" / "model")
    weights, broken = tmp_path_factory.mktemp("weights") / "model", tmp_path_factory.mktemp("broken") / "model"
    weights.mkdir()
    (weights / "model.h5").write_bytes(b"weights")
    registry.register("weights", 1, weights)
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"\xff" * 100)
    registry.register("broken", 1, broken)


def test_a_deployed_version_answers_over_grpc_and_rest(stub: EndpointServiceStub, topic_log: TopicLog) -> None:
    name = a_name("plain")

    taken = stub.DeployEndpoint(a_request(name))
    live = until_state(stub, name, HEALTHY)

    assert (taken.endpoint.endpoint, taken.endpoint.deployment, taken.repeated_submission) == (name, 1, False)
    assert taken.endpoint.state == pb.ENDPOINT_STATE_TRANSITIONING
    assert answers(live) == (2.5, 2.5)
    assert live.scoring_uri.endswith("/v1/models/half:predict")
    facts = history(topic_log, name)
    assert kinds(facts) == ["DeployEndpoint", "EndpointStarting", "VersionLoaded", "EndpointLive"]
    assert "serving_default" in facts[-2].signatures
    told = [fact.why for fact in facts if isinstance(fact, pb.EndpointProgress)]
    assert any(why.startswith("fetching ") and why.endswith(" of half:1") for why in told)
    assert "loading half:1" in told


class _Through(Clients):
    """The SDK's clients on a channel that is there."""

    def __init__(self, channel: grpc.Channel) -> None:
        super().__init__({})
        self._given = channel

    def channel(self, service: str) -> grpc.Channel:
        return self._given


def test_the_sdk_deploys_calls_and_deletes(service: ServiceProcess, capsys: pytest.CaptureFixture[str]) -> None:
    workspace: Any = SimpleNamespace(_clients=_Through(service.channel))
    model = Model._from_message(workspace, ModelVersion(model="half", version=1))
    name = a_name("sdk")

    webservice = Model.deploy(workspace, name, [model])
    webservice.wait_for_deployment(show_output=True)

    assert webservice.state == "Healthy"
    assert "Transitioning: loading half:1" in capsys.readouterr().out
    assert webservice.predict({"x": [1.0]})["y"].tolist() == [2.5]
    assert webservice.run({"instances": [1.0]}) == {"predictions": [2.5]}
    assert "loading half:1" in webservice.get_logs()
    with pytest.raises(WebserviceException) as taken:
        Model.deploy(workspace, name, [model])
    assert taken.value.code == "AlreadyExists"
    webservice.delete()
    assert name not in [it.name for it in Webservice.list(workspace)]


def test_the_server_sees_no_key_of_the_platform(stub: EndpointServiceStub) -> None:
    live = deployed(stub, a_name("keys"))

    seen = server_of(live).environ()

    assert not [name for name in seen if name.startswith(("TRAINYARD_", "AWS_", "MINIO_"))]
    assert "trainyard-test" not in " ".join(seen.values())


def test_a_repeat_of_a_submission_is_answered_with_the_first_result(stub: EndpointServiceStub, topic_log: TopicLog) -> None:
    request = a_request(a_name("again"))
    first = stub.DeployEndpoint(request)

    second = stub.DeployEndpoint(request)

    assert second.repeated_submission
    assert second.endpoint.deployment == first.endpoint.deployment == 1
    until_state(stub, request.endpoint, HEALTHY)
    assert kinds(history(topic_log, request.endpoint)).count("EndpointStarting") == 1


def test_what_cannot_be_deployed_is_refused_with_what_there_is(stub: EndpointServiceStub) -> None:
    name = a_name("taken")
    stub.DeployEndpoint(a_request(name))

    taken = refusal(lambda: stub.DeployEndpoint(a_request(name)))
    unknown = refusal(lambda: stub.DeployEndpoint(a_request(a_name("none"), "nobody")))
    version = refusal(lambda: stub.DeployEndpoint(a_request(a_name("none"), "half", 9)))
    weights = refusal(lambda: stub.DeployEndpoint(a_request(a_name("none"), "weights")))
    badly_named = refusal(lambda: stub.DeployEndpoint(a_request("Not_A_Name")))
    nameless = refusal(lambda: stub.DeployEndpoint(pb.DeployEndpoint(endpoint=a_name("none"), model="half", version=1)))

    assert (taken[0], taken[1].code) == (grpc.StatusCode.ALREADY_EXISTS, "AlreadyExists")
    assert (unknown[0], unknown[1].code) == (grpc.StatusCode.NOT_FOUND, "ModelNotFound")
    assert (version[0], version[1].target) == (grpc.StatusCode.NOT_FOUND, "half:9")
    assert (weights[0], weights[1].code) == (grpc.StatusCode.FAILED_PRECONDITION, "NotASavedModel")
    assert "model/model.h5" in weights[1].message
    assert (badly_named[0], badly_named[1].code) == (grpc.StatusCode.INVALID_ARGUMENT, "UserError")
    assert (nameless[0], nameless[1].code) == (grpc.StatusCode.INVALID_ARGUMENT, "UserError")


def test_a_request_straight_to_kafka_right_after_the_models_registration_is_served(
    stub: EndpointServiceStub, registry: Registry, topic_log: TopicLog, models: Path
) -> None:
    name, model = a_name("kafka"), a_name("model")
    registry.register(model, 1, models / "half" / "model", framework="TensorFlow", framework_version="2.4")

    topic_log.publish(TOPIC, name, a_request(name, model))

    until(lambda: name in [it.endpoint for it in stub.ListEndpoints(pb.ListEndpointsRequest()).endpoints], "the endpoint")
    assert answers(until_state(stub, name, HEALTHY)) == (2.5, 2.5)


def test_a_killed_server_is_brought_back_under_the_same_addresses(stub: EndpointServiceStub, topic_log: TopicLog) -> None:
    before = deployed(stub, name := a_name("killed"))

    server_of(before).kill()

    until(lambda: kinds(history(topic_log, name))[-2:] == ["EndpointUnhealthy", "EndpointLive"], "the return")
    after = until_state(stub, name, HEALTHY)
    assert (after.grpc_address, after.scoring_uri, after.deployment) == (before.grpc_address, before.scoring_uri, 1)
    assert answers(after) == (2.5, 2.5)


def test_a_service_that_lost_its_database_knows_its_endpoints_by_the_log(stub: EndpointServiceStub, service: ServiceProcess) -> None:
    before = deployed(stub, name := a_name("replayed"))

    assert service.stop() == 0
    service.forget()
    service.start()

    after = until_state(stub, name, HEALTHY)
    assert answers(after) == (2.5, 2.5)
    assert (after.deployment, after.submission_id) == (1, before.submission_id)


def test_a_new_version_takes_over_the_address_and_the_old_server_ends(stub: EndpointServiceStub) -> None:
    before = deployed(stub, name := a_name("swap"))
    old = server_of(before)

    taken = stub.DeployEndpoint(a_request(name, "half", 2, overwrite=True)).endpoint
    assert (taken.deployment, taken.version, taken.scoring_uri) == (2, 2, before.scoring_uri)
    assert answers(taken) == (2.5, 2.5)  # the old one, meanwhile
    after = until_state(stub, name, HEALTHY, 2)

    until(lambda: has_ended(old), "the end of the old server")
    assert (after.grpc_address, after.scoring_uri) == (before.grpc_address, before.scoring_uri)
    assert answers(after) == (3.5, 3.5)


def test_a_changed_object_fails_the_deployment_by_name_and_the_old_one_answers_on(
    stub: EndpointServiceStub, registry: Registry, models: Path, tmp_path: Path
) -> None:
    before = deployed(stub, name := a_name("corrupt"))
    model = a_name("corrupt-model")
    # With a file more than any other version, or the node would have its files already.
    folder = shutil.copytree(models / "half-3" / "model", tmp_path / "model")
    (folder / "assets" / "note.txt").write_text("its own")
    files = registry.register(model, 1, folder)
    changed = next(file for file in files if file.path.endswith("saved_model.pb"))
    registry.objects.put_bytes(changed.object_key, b"x" * changed.size_bytes)

    stub.DeployEndpoint(a_request(name, model, 1, overwrite=True))
    after = until_state(stub, name, FAILED, 2)

    assert after.failure.code == "ArtifactCorrupt"
    assert after.failure.target == "model/saved_model.pb"
    assert "half:1 (deployment 1) answers meanwhile" in after.why
    assert (after.grpc_address, after.scoring_uri) == (before.grpc_address, before.scoring_uri)
    assert answers(after) == (2.5, 2.5)


def test_a_model_that_cannot_be_loaded_fails_with_the_servers_last_lines(stub: EndpointServiceStub) -> None:
    name = a_name("broken")
    stub.DeployEndpoint(a_request(name, "broken"))

    failed = until_state(stub, name, FAILED)

    assert failed.failure.code == "ModelLoadFailed"
    assert "cannot load" in failed.failure.message
    assert failed.failure.exit_code == 3
    assert failed.failure.last_lines[-1].startswith("cannot load ")
    lines = list(stub.GetEndpointLogs(pb.GetEndpointLogsRequest(endpoint=name)).lines)
    assert failed.failure.last_lines[-1] in lines
    assert list(stub.GetEndpointLogs(pb.GetEndpointLogsRequest(endpoint=name, last_lines=2)).lines) == lines[-2:]


def test_a_failed_endpoint_may_be_deployed_again_without_overwrite(stub: EndpointServiceStub) -> None:
    name = a_name("mended")
    stub.DeployEndpoint(a_request(name, "broken"))
    until_state(stub, name, FAILED)

    stub.DeployEndpoint(a_request(name, "half"))

    live = until(lambda: _if_healthy(stub, name, 2), "the second deployment")
    assert answers(live) == (2.5, 2.5)


def _if_healthy(stub: EndpointServiceStub, name: str, deployment: int) -> pb.Endpoint | None:
    shown = stub.GetEndpoint(pb.GetEndpointRequest(endpoint=name)).endpoint
    return shown if (shown.state, shown.deployment) == (HEALTHY, deployment) else None


def test_a_deleted_endpoint_answers_no_more_and_its_name_is_free(stub: EndpointServiceStub, topic_log: TopicLog) -> None:
    live = deployed(stub, name := a_name("deleted"))
    server = server_of(live)

    stub.DeleteEndpoint(pb.DeleteEndpoint(endpoint=name))

    until(lambda: has_ended(server), "the end of the server")
    shown = stub.GetEndpoint(pb.GetEndpointRequest(endpoint=name)).endpoint
    assert (shown.state, shown.scoring_uri) == (DELETED, "")
    assert name not in [it.endpoint for it in stub.ListEndpoints(pb.ListEndpointsRequest()).endpoints]
    assert refusal(lambda: stub.DeleteEndpoint(pb.DeleteEndpoint(endpoint=name)))[0] == grpc.StatusCode.NOT_FOUND
    again = stub.DeployEndpoint(a_request(name)).endpoint
    assert again.deployment == 2
    assert answers(until_state(stub, name, HEALTHY, 2)) == (2.5, 2.5)


def test_what_was_never_there_is_not_found_over_grpc_and_a_dead_letter_from_kafka(stub: EndpointServiceStub, topic_log: TopicLog) -> None:
    name = a_name("never")

    for call in (
        lambda: stub.GetEndpoint(pb.GetEndpointRequest(endpoint=name)),
        lambda: stub.DeleteEndpoint(pb.DeleteEndpoint(endpoint=name)),
        lambda: stub.GetEndpointLogs(pb.GetEndpointLogsRequest(endpoint=name)),
    ):
        status, failure = refusal(call)
        assert (status, failure.code) == (grpc.StatusCode.NOT_FOUND, "EndpointNotFound")
    topic_log.publish(TOPIC, name, pb.DeleteEndpoint(endpoint=name))

    def letters() -> list[str]:
        found: list[Any] = [event.message for event in topic_log.events("trainyard.deadletters")]
        return [letter.error for letter in found if letter.key == name.encode()]

    assert until(letters, "a dead letter") == [f"InvalidMessage: there is no endpoint '{name}'"]
