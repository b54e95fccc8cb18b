"""The registry as a process, on a real broker and a real object store; the tests speak for the scheduler."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from services.chassis.records import NewRecord
from tests.component.registry.stage import JOBS, Stage
from tests.component.service_process import ServiceProcess
from tests.component.topic_log import TopicLog
from trainyard._errors import TrainyardException, from_rpc
from trainyard._objects import MinioObjects
from trainyard.event.v1.dead_letter_pb2 import DeadLetter
from trainyard.job.v1 import job_pb2 as job
from trainyard.model.v1.model_pb2 import (
    GetModelVersionRequest,
    ListModelVersionsRequest,
    ModelVersionRegistered,
    ModelVersionRejected,
    RegisterModelVersion,
)
from trainyard.model.v1.model_pb2_grpc import ModelServiceStub

pytestmark = pytest.mark.component
MODELS = "trainyard.models"
SECONDS = 60.0
Refusal = tuple[grpc.StatusCode, TrainyardException]


@pytest.fixture
def stage(topic_log: TopicLog, objects: MinioObjects, service: ServiceProcess) -> Stage:
    return Stage(topic_log, objects)


def a_request(model: str, run_id: str, path: str = "outputs/model", submission_id: str = "", **fields: Any) -> RegisterModelVersion:
    return RegisterModelVersion(submission_id=submission_id or f"{model}-1", model=model, run_id=run_id, path=path, **fields)


def register(models: ModelServiceStub, request: RegisterModelVersion) -> Any:
    return models.RegisterModelVersion(request, timeout=SECONDS)


def refusal(call: Callable[[], Any]) -> Refusal:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value.code(), from_rpc(error.value)


def answers(topic_log: TopicLog, model: str) -> list[Any]:
    """The registry's facts on a model as they lie in the log."""
    found = [event.message for event in topic_log.events(MODELS) if event.key == model]
    return [message for message in found if isinstance(message, (ModelVersionRegistered, ModelVersionRejected))]


def versions(models: ModelServiceStub, model: str) -> list[int]:
    return [it.version for it in models.ListModelVersions(ListModelVersionsRequest(model=model), timeout=SECONDS).versions]


def test_a_folder_of_a_completed_run_becomes_a_version_that_tells_where_it_comes_from(models: ModelServiceStub, stage: Stage) -> None:
    stage.queue("run-a")
    outputs = stage.complete("run-a")

    answer = register(models, a_request("whole", "run-a", framework="TensorFlow", framework_version="2.15", tags={"a": "b"}))

    version = answer.version
    moved = {file.path: file for file in version.artifacts.files}
    lines = "".join(f"{path}\0{moved[path].sha256}\n" for path in sorted(moved))
    assert not answer.repeated_submission
    assert (version.model, version.version, version.framework, dict(version.tags)) == ("whole", 1, "TensorFlow", {"a": "b"})
    assert sorted(moved) == ["model/saved_model.pb", "model/variables/variables.index"]
    assert moved["model/saved_model.pb"].object_key == outputs.files[1].object_key == "runs/run-a/1/outputs/model/saved_model.pb"
    assert version.digest == hashlib.sha256(lines.encode()).hexdigest()
    assert (version.lineage.run_id, version.lineage.experiment, version.lineage.epoch) == ("run-a", "tf-mnist", 1)
    assert [(it.name, it.version) for it in version.lineage.datasets] == [("mnist", 2)]
    assert (version.lineage.snapshot_id, len(version.lineage.environment_id)) == ("5" * 64, 64)
    assert models.GetModelVersion(GetModelVersionRequest(model="whole"), timeout=SECONDS).version == version
    assert version in models.ListModelVersions(ListModelVersionsRequest(), timeout=SECONDS).versions


def test_one_file_and_a_folder_with_a_slash_may_be_registered_too(models: ModelServiceStub, stage: Stage) -> None:
    stage.queue("run-b")
    stage.complete("run-b")

    one = register(models, a_request("one-file", "run-b", "outputs/notes.txt")).version
    slash = register(models, a_request("slash", "run-b", "outputs/model/")).version

    assert [file.path for file in one.artifacts.files] == ["notes.txt"]
    assert [file.path for file in slash.artifacts.files] == ["model/saved_model.pb", "model/variables/variables.index"]


def test_a_path_that_the_run_does_not_have_is_told_with_what_it_has(models: ModelServiceStub, topic_log: TopicLog, stage: Stage) -> None:
    stage.queue("run-c")
    stage.complete("run-c")

    status, error = refusal(lambda: register(models, a_request("no-path", "run-c", "outputs/modle")))

    assert (status, error.code, error.target) == (grpc.StatusCode.NOT_FOUND, "ModelPathNotFound", "outputs/modle")
    assert "its files are: outputs/model/saved_model.pb, outputs/model/variables/variables.index, " in error.message
    assert [type(fact) for fact in answers(topic_log, "no-path")] == [ModelVersionRejected]
    assert versions(models, "no-path") == []


def test_an_unknown_run_and_one_that_goes_on_are_told_apart(models: ModelServiceStub, stage: Stage) -> None:
    stage.queue("run-d")
    stage.say("run-d", job.RunStarted(run_id="run-d", epoch=1))

    unknown = refusal(lambda: register(models, a_request("unknown", "run-nowhere")))
    going_on = refusal(lambda: register(models, a_request("going-on", "run-d")))

    assert (unknown[0], unknown[1].code, unknown[1].target) == (grpc.StatusCode.NOT_FOUND, "RunNotFound", "run-nowhere")
    assert (going_on[0], going_on[1].code) == (grpc.StatusCode.FAILED_PRECONDITION, "RunNotEnded")
    assert "run-d is Running" in going_on[1].message


def test_an_end_that_reaches_the_log_just_after_the_request_still_counts(
    models: ModelServiceStub, stage: Stage, service: ServiceProcess
) -> None:
    stage.queue("run-e")
    outputs = stage.upload("run-e")
    request = a_request("just-ended", "run-e")
    call = models.RegisterModelVersion.future(request, timeout=SECONDS)
    stage.say("run-e", job.RunCompleted(run_id="run-e", epoch=1, outputs=outputs))

    assert call.result().version.version == 1


def test_what_is_wrong_in_itself_is_refused_as_such(models: ModelServiceStub) -> None:
    bad_path = refusal(lambda: register(models, a_request("bad", "run-a", "../secret")))
    no_id = refusal(lambda: register(models, RegisterModelVersion(model="bad", run_id="run-a", path="outputs")))

    assert (bad_path[0], bad_path[1].code, bad_path[1].target) == (grpc.StatusCode.INVALID_ARGUMENT, "UserError", "path")
    assert (no_id[0], no_id[1].code) == (grpc.StatusCode.INVALID_ARGUMENT, "UserError")


def test_a_file_that_the_object_store_lost_is_told_and_nothing_is_registered(models: ModelServiceStub, stage: Stage) -> None:
    stage.queue("run-f")
    stage.complete("run-f")
    stage.objects.remove("runs/run-f/1/outputs/model/saved_model.pb")
    stage.objects.put_bytes("runs/run-f/1/outputs/notes.txt", b"grown")

    gone = refusal(lambda: register(models, a_request("gone", "run-f")))
    grown = refusal(lambda: register(models, a_request("grown", "run-f", "outputs/notes.txt")))

    assert (gone[0], gone[1].code) == (grpc.StatusCode.FAILED_PRECONDITION, "ArtifactMissing")
    assert "runs/run-f/1/outputs/model/saved_model.pb is missing" in gone[1].message
    assert "has 5 bytes, not 0" in grown[1].message
    assert versions(models, "gone") == versions(models, "grown") == []


def test_an_attempt_that_was_lost_cannot_say_which_files_count(models: ModelServiceStub, stage: Stage) -> None:
    stage.queue("run-g")
    late = stage.upload("run-g", epoch=1)
    stage.say("run-g", job.RunStarted(run_id="run-g", epoch=1), job.RunRequeued(run_id="run-g", lost_epoch=1))
    stage.say("run-g", job.RunCompleted(run_id="run-g", epoch=1, outputs=late))
    stage.complete("run-g", epoch=2)
    stage.say("run-g", job.RunFailed(run_id="run-g", epoch=1, outputs=late))

    version = register(models, a_request("fenced", "run-g")).version

    assert version.lineage.epoch == 2
    assert all(file.object_key.startswith("runs/run-g/2/") for file in version.artifacts.files)


@pytest.mark.parametrize("end", [job.RunFailed, job.RunCanceled])
def test_what_a_run_left_behind_may_be_registered_however_it_ended(models: ModelServiceStub, stage: Stage, end: Any) -> None:
    run_id = f"run-h-{end.DESCRIPTOR.name}"
    stage.queue(run_id)
    stage.say(run_id, end(run_id=run_id, epoch=1, outputs=stage.upload(run_id)))

    assert register(models, a_request(f"left-by-{end.DESCRIPTOR.name}", run_id)).version.version == 1


def test_one_submission_is_one_version_by_whatever_way_it_comes(models: ModelServiceStub, topic_log: TopicLog, stage: Stage) -> None:
    stage.queue("run-i")
    stage.complete("run-i")
    request = a_request("one-submission", "run-i")

    topic_log.publish(MODELS, request.model, request)
    first, second = register(models, request), register(models, request)
    topic_log.publish(MODELS, request.model, request)
    other = register(models, a_request("one-submission", "run-i", submission_id="another"))

    assert (first.version.version, first.repeated_submission) == (1, True)
    assert (second.version, second.repeated_submission) == (first.version, True)
    assert (other.version.version, other.repeated_submission) == (2, False)
    assert [fact.version for fact in answers(topic_log, "one-submission")] == [1, 2]


def test_requests_that_race_get_versions_without_holes_and_are_listed_newest_first(models: ModelServiceStub, stage: Stage) -> None:
    stage.queue("run-j")
    stage.complete("run-j")
    requests = [a_request("race", "run-j", submission_id=f"race-{number}") for number in range(8)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda request: register(models, request).version.version, requests))

    assert sorted(found) == list(range(1, 9))
    assert versions(models, "race") == list(range(8, 0, -1))


def test_an_unknown_model_is_told_with_what_there_is_the_closest_first(models: ModelServiceStub, stage: Stage) -> None:
    stage.queue("run-k")
    stage.complete("run-k")
    register(models, a_request("tf-dnn-mnist", "run-k"))

    no_model = refusal(lambda: models.GetModelVersion(GetModelVersionRequest(model="tf-dnn-mnits"), timeout=SECONDS))
    no_version = refusal(lambda: models.GetModelVersion(GetModelVersionRequest(model="tf-dnn-mnist", version=9), timeout=SECONDS))

    assert (no_model[0], no_model[1].code) == (grpc.StatusCode.NOT_FOUND, "ModelNotFound")
    assert "there is: tf-dnn-mnist" in no_model[1].message
    assert no_version[1].target == "tf-dnn-mnist:9"
    assert versions(models, "tf-dnn-mnits") == []


def test_garbled_bytes_become_a_dead_letter_and_the_service_lives_on(models: ModelServiceStub, topic_log: TopicLog, stage: Stage) -> None:
    stage.queue("run-l")
    stage.complete("run-l")
    headers = (("ce_id", b"garbled model"), ("ce_type", b"trainyard.model.v1.RegisterModelVersion"))
    placed = topic_log.publish_raw([NewRecord(MODELS, b"garbled", b"\xff\xfe\xfd", headers), NewRecord(MODELS, b"garbled", b"no headers")])
    topic_log.publish_raw([NewRecord(JOBS, b"run-l", b"not mine", ())])

    assert register(models, a_request("garbled", "run-l")).version.version == 1

    letters = [event.message for event in topic_log.events("trainyard.deadletters")]
    mine = [it for it in letters if isinstance(it, DeadLetter) and it.service == "registry"]
    assert {(it.topic, it.partition, it.offset) for it in mine} >= {(place.topic, place.partition, at) for place, at in placed}
    assert JOBS not in {it.topic for it in mine}


def test_killed_with_a_request_at_hand_it_registers_one_version_after_its_restart(
    models: ModelServiceStub, topic_log: TopicLog, stage: Stage, service: ServiceProcess
) -> None:
    stage.queue("run-m")
    outputs = stage.upload("run-m")
    request = a_request("killed", "run-m")
    arrives = topic_log.next_in(MODELS, "killed")
    call = models.RegisterModelVersion.future(request, timeout=SECONDS)
    arrives()
    service.kill()
    assert call.code() is grpc.StatusCode.UNAVAILABLE
    stage.say("run-m", job.RunCompleted(run_id="run-m", epoch=1, outputs=outputs))

    service.start()
    answer = register(models, request)

    assert answer.version.version == 1
    assert [type(fact) for fact in answers(topic_log, "killed")] == [ModelVersionRegistered]
    assert versions(models, "killed") == [1]


def test_a_lost_database_is_filled_again_by_replay(models: ModelServiceStub, stage: Stage, service: ServiceProcess) -> None:
    stage.queue("run-n")
    stage.complete("run-n")
    register(models, a_request("kept", "run-n"))
    refusal(lambda: register(models, a_request("kept", "run-n", "outputs/nothing", "kept-2")))
    assert service.stop() == 0
    before = service.documents()

    service.forget()
    service.start()

    assert {("version", "kept:1"), ("run", "run-n"), ("answer", "kept-2")} <= before.keys()
    assert service.documents() == before
