"""Models that a client uploads, on a real broker and a real object store."""

from __future__ import annotations

import grpc
import pytest

from tests.component.registry.test_service import MODELS, answers, refusal, register, versions
from tests.component.topic_log import TopicLog
from tests.unit.registry.builders import an_upload
from trainyard._objects import MinioObjects
from trainyard.event.v1.dead_letter_pb2 import DeadLetter
from trainyard.model.v1.model_pb2 import DatasetRef, ModelVersionRejected, RegisterModelVersion
from trainyard.model.v1.model_pb2_grpc import ModelServiceStub

pytestmark = pytest.mark.component
CONTENTS = {"model/saved_model.pb": b"graph", "model/variables/-1 ünïcode.index": b"weights", "model/empty": b""}


def upload(objects: MinioObjects, request: RegisterModelVersion, contents: dict[str, bytes] = CONTENTS) -> None:
    for file in request.files.files:
        objects.put_bytes(file.object_key, contents[file.path])


def test_an_uploaded_folder_becomes_a_version_once_its_bytes_were_read(
    models: ModelServiceStub, objects: MinioObjects, topic_log: TopicLog
) -> None:
    request = an_upload(CONTENTS, "local-1", "local", datasets=[DatasetRef(name="mnist", version=2, purpose="training")], tags={"a": "b"})
    upload(objects, request)

    first, again = register(models, request), register(models, request)

    assert (first.version.version, first.version.artifacts, first.version.lineage.run_id) == (1, request.files, "")
    assert [(it.name, it.version, it.purpose) for it in first.version.lineage.datasets] == [("mnist", 2, "training")]
    assert (again.version, again.repeated_submission) == (first.version, True)
    assert len(answers(topic_log, "local")) == 1


def test_bytes_that_are_missing_or_others_register_nothing_and_an_upload_anew_does(models: ModelServiceStub, objects: MinioObjects) -> None:
    wrong = an_upload({"weights.bin": b"right"}, "poisoned-1", "poisoned")
    code, error = refusal(lambda: register(models, wrong))
    assert (code, error.code) == (grpc.StatusCode.FAILED_PRECONDITION, "ArtifactMissing")

    objects.put_bytes(wrong.files.files[0].object_key, b"wrong")
    _, error = refusal(lambda: register(models, an_upload({"weights.bin": b"right"}, "poisoned-2", "poisoned")))
    assert wrong.files.files[0].sha256 in error.message

    upload(objects, wrong, {"weights.bin": b"right"})
    assert register(models, an_upload({"weights.bin": b"right"}, "poisoned-3", "poisoned")).version.version == 1


def test_a_request_straight_on_the_topic_cannot_name_what_is_not_its_own(
    models: ModelServiceStub, objects: MinioObjects, topic_log: TopicLog
) -> None:
    objects.put_bytes("runs/another_1/1/outputs/secret", b"x")
    forged = an_upload({"model": b"x"}, "forged-1", "forged")
    forged.files.files[0].object_key = "runs/another_1/1/outputs/secret"

    topic_log.publish(MODELS, "forged", forged)
    # Its partition is read in order: once the honest one is answered, so is the forged one.
    honest = an_upload({"model": b"x"}, "forged-2", "forged")
    upload(objects, honest, {"model": b"x"})
    register(models, honest)

    (rejected, _) = answers(topic_log, "forged")
    assert isinstance(rejected, ModelVersionRejected)
    assert (rejected.failure.code, versions(models, "forged")) == ("UserError", [1])
    assert not [it for it in topic_log.events("trainyard.deadletters") if isinstance(it.message, DeadLetter) and it.key == "forged"]
