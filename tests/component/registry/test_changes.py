"""Aliases, stages, tags and deletions over gRPC, on a real broker; the tests speak for the serving service."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from tests.component.registry.test_service import MODELS, SECONDS, refusal, register, versions
from tests.component.registry.test_uploads import upload
from tests.component.service_process import ServiceProcess
from tests.component.topic_log import TopicLog
from tests.unit.registry.builders import an_upload
from trainyard._objects import MinioObjects
from trainyard.endpoint.v1 import endpoint_pb2 as endpoint
from trainyard.model.v1 import model_pb2 as pb
from trainyard.model.v1.model_pb2_grpc import ModelServiceStub

pytestmark = pytest.mark.component
ENDPOINTS = "trainyard.endpoints"


@pytest.fixture
def two(models: ModelServiceStub, objects: MinioObjects, request: pytest.FixtureRequest) -> str:
    """The name of a model with two versions."""
    name = str(request.node.name).removeprefix("test_")[:60]
    for number in (1, 2):
        contents = {"model/weights": f"{name} {number}".encode()}
        wanted = an_upload(contents, f"{name}-{number}", name)
        upload(objects, wanted, contents)
        register(models, wanted)
    return name


def get(models: ModelServiceStub, model: str, version: int = 0, alias: str = "") -> pb.ModelVersion:
    answer: pb.GetModelVersionResponse = models.GetModelVersion(
        pb.GetModelVersionRequest(model=model, version=version, alias=alias), timeout=SECONDS
    )
    return answer.version


def deletion(model: str, version: int, submission: str = "gone", **fields: Any) -> pb.DeleteModelVersion:
    return pb.DeleteModelVersion(submission_id=f"{model}-{submission}", model=model, version=version, **fields)


def test_an_alias_names_a_version_wherever_it_has_moved_to(models: ModelServiceStub, two: str) -> None:
    for number in (1, 2):
        asked = pb.SetAlias(submission_id=f"{two}-a{number}", model=two, alias="champion", version=number)
        first, again = models.SetAlias(asked, timeout=SECONDS), models.SetAlias(asked, timeout=SECONDS)
        assert (first.version.version, first.repeated_submission, again.repeated_submission) == (number, False, True)

    assert get(models, two, alias="champion").version == 2
    assert [list(get(models, two, number).aliases) for number in (1, 2)] == [[], ["champion"]]
    code, error = refusal(lambda: get(models, two, alias="champoin"))
    assert (code, error.code) == (grpc.StatusCode.NOT_FOUND, "ModelNotFound")
    assert "its aliases are: champion" in error.message


def test_what_is_said_changes_and_what_is_fixed_is_refused_with_both_values(models: ModelServiceStub, two: str) -> None:
    asked = pb.UpdateModelVersion(submission_id=f"{two}-u", model=two, version=1, tags={"a": "b"}, properties={"p": "1"}, description="d")
    changed = models.UpdateModelVersion(asked, timeout=SECONDS).version
    models.SetStage(pb.SetStage(submission_id=f"{two}-s", model=two, version=1, stage=pb.MODEL_STAGE_PRODUCTION), timeout=SECONDS)

    other = pb.UpdateModelVersion(submission_id=f"{two}-v", model=two, version=1, digest="e" * 64)
    code, error = refusal(lambda: models.UpdateModelVersion(other, timeout=SECONDS))

    assert (dict(changed.tags), dict(changed.properties), changed.description) == ({"a": "b"}, {"p": "1"}, "d")
    assert (code, error.code) == (grpc.StatusCode.FAILED_PRECONDITION, "ModelImmutable")
    assert changed.digest in error.message and "e" * 64 in error.message
    listed = models.ListModelVersions(pb.ListModelVersionsRequest(model=two, stage=pb.MODEL_STAGE_PRODUCTION), timeout=SECONDS).versions
    assert [it.version for it in listed] == [1]


def test_a_version_in_use_is_not_deleted_until_its_endpoint_is_gone(models: ModelServiceStub, topic_log: TopicLog, two: str) -> None:
    topic_log.publish(ENDPOINTS, "svc", endpoint.DeployEndpoint(submission_id=f"{two}-d", endpoint="svc", model=two, version=1))
    code, error = refusal(lambda: models.DeleteModelVersion(deletion(two, 1, "early"), timeout=SECONDS))
    assert (code, error.code) == (grpc.StatusCode.FAILED_PRECONDITION, "ModelInUse")
    assert "endpoint 'svc' is about to be deployed with it" in error.message

    started = endpoint.EndpointStarting(submission_id=f"{two}-d", endpoint="svc", model=two, version=1, deployment=1)
    topic_log.publish(ENDPOINTS, "svc", started, endpoint.EndpointLive(endpoint="svc", deployment=1))
    _, error = refusal(lambda: models.DeleteModelVersion(deletion(two, 1, "late"), timeout=SECONDS))
    assert "endpoint 'svc' has it (deployment 1)" in error.message

    topic_log.publish(ENDPOINTS, "svc", endpoint.EndpointDeleted(endpoint="svc"))
    assert not models.DeleteModelVersion(deletion(two, 1), timeout=SECONDS).repeated_submission
    assert models.DeleteModelVersion(deletion(two, 1), timeout=SECONDS).repeated_submission
    assert versions(models, two) == [2]
    code, error = refusal(lambda: get(models, two, 1))
    assert code is grpc.StatusCode.NOT_FOUND and "was deleted" in error.message


def test_numbers_are_never_given_again(models: ModelServiceStub, objects: MinioObjects, two: str) -> None:
    for number in (1, 2):
        models.DeleteModelVersion(deletion(two, number, str(number)), timeout=SECONDS)
    code, _ = refusal(lambda: get(models, two))
    assert code is grpc.StatusCode.NOT_FOUND

    contents = {"model/weights": b"another"}
    wanted = an_upload(contents, f"{two}-3", two)
    upload(objects, wanted, contents)
    assert register(models, wanted).version.version == 3


def test_files_go_with_the_last_version_that_has_them(
    models: ModelServiceStub, objects: MinioObjects, topic_log: TopicLog, two: str
) -> None:
    contents = {"model/weights": f"{two} 1".encode()}
    same = an_upload(contents, f"{two}-again", f"{two}-too")
    register(models, same)
    (key,) = [file.object_key for file in same.files.files]

    models.DeleteModelVersion(deletion(two, 1), timeout=SECONDS)
    assert objects.exists(key)
    models.DeleteModelVersion(deletion(f"{two}-too", 1), timeout=SECONDS)
    # Who registers them meanwhile is answered once they are gone.
    _, error = refusal(lambda: register(models, an_upload(contents, f"{two}-early", f"{two}-too")))
    assert (error.code, objects.exists(key)) == ("ArtifactMissing", False)
    told = [event.message for event in topic_log.events(MODELS) if event.key == f"{two}-too"]
    assert [(it.version, it.files) for it in told if isinstance(it, pb.ModelFilesRemoved)] == [(1, 1)]

    upload(objects, same, contents)
    assert register(models, an_upload(contents, f"{two}-anew", f"{two}-too")).version.version == 2


def test_of_many_that_delete_one_version_one_does(models: ModelServiceStub, two: str) -> None:
    def attempt(number: int) -> str:
        try:
            models.DeleteModelVersion(deletion(two, 1, str(number)), timeout=SECONDS)
        except grpc.RpcError as error:
            return str(error.code())
        return "deleted"

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(attempt, range(8)))

    assert found.count("deleted") == 1
    assert versions(models, two) == [2]


def test_killed_in_the_middle_of_a_deletion_it_ends_it_once(
    models: ModelServiceStub, topic_log: TopicLog, service: ServiceProcess, two: str
) -> None:
    arrives = topic_log.next_in(MODELS, two)
    call = models.DeleteModelVersion.future(deletion(two, 2), timeout=SECONDS)
    arrives()
    service.kill()
    call.code()
    service.start()

    models.DeleteModelVersion(deletion(two, 2), timeout=SECONDS)

    kinds = [type(event.message) for event in topic_log.events(MODELS) if event.key == two]
    assert kinds.count(pb.ModelVersionDeleted) == 1
    assert versions(models, two) == [1]
    assert service.stop() == 0
    before = service.documents()
    service.forget()
    service.start()
    assert service.documents() == before
