"""Outputs whose list lies in the object store, as history tells of them."""

from __future__ import annotations

import hashlib

from services.history.domain.run import Story
from services.history.following import Following
from trainyard._artifacts import together
from trainyard._objects import MemoryObjects
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet
from trainyard.job.v1 import job_pb2 as job

LOG = "azureml-logs/70_driver_log.txt"


def listed(*paths: str) -> ArtifactSet:
    return ArtifactSet(files=[Artifact(path=path, object_key=f"runs/r/1/{path}") for path in paths])


def elsewhere(objects: MemoryObjects, *paths: str) -> ArtifactSet:
    content = listed(*paths).SerializeToString(deterministic=True)
    key = f"runs/r/1/manifests/{hashlib.sha256(content).hexdigest()}"
    objects.put_bytes(key, content)
    return ArtifactSet(manifest_key=key, manifest_sha256=key.rpartition("/")[2], count=len(paths))


def test_a_runs_files_are_those_that_the_facts_list_whether_or_not_others_are_named_beside_them() -> None:
    outputs = together(listed("outputs/a"), elsewhere(MemoryObjects(), "outputs/b"))

    story = Story(job.Run(status=job.RUN_STATUS_COMPLETED, outputs=outputs), 0, 0)

    assert [file.path for file in story.files] == ["outputs/a"]


def test_an_archived_log_is_found_in_a_list_that_lies_elsewhere_and_a_list_that_is_gone_has_none() -> None:
    objects = MemoryObjects()
    outputs = elsewhere(objects, LOG, "outputs/a")
    following = Following(None, None, objects)  # type: ignore[arg-type]

    found = following._find(outputs, "r", LOG)
    objects.kept.clear()

    assert found is not None and found.object_key == f"runs/r/1/{LOG}"
    assert following._find(outputs, "r", LOG) is None
