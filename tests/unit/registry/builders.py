"""Facts of runs and requests for models, with what a test does not care for filled in."""

from __future__ import annotations

import hashlib
from typing import Any

from trainyard.dataset.v1.dataset_pb2 import SourceFile
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1.spec_pb2 import DatasetInput, EnvironmentSpec, RunSpec, Snapshot, Source
from trainyard.model.v1.model_pb2 import RegisterModelVersion

RUN = "tf-mnist_1"


def queued(run_id: str = RUN) -> job.RunQueued:
    spec = RunSpec(
        source=Source(snapshot=Snapshot(id="5" * 64)),
        environment=EnvironmentSpec(framework="tensorflow", framework_version="2.15", pip_packages=["pandas"]),
        inputs=[
            DatasetInput(name="train", dataset="mnist", version=2),
            DatasetInput(name="test", dataset="mnist", version=2),
            DatasetInput(name="unregistered", files=[SourceFile(url="http://h/a")]),
        ],
    )
    return job.RunQueued(run_id=run_id, experiment="tf-mnist", number=1, spec=spec)


def artifact(path: str, content: bytes = b"x", epoch: int = 1, run_id: str = RUN) -> Artifact:
    key = f"runs/{run_id}/{epoch}/{path}"
    return Artifact(path=path, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), object_key=key)


def artifacts(*paths: str, epoch: int = 1, run_id: str = RUN) -> ArtifactSet:
    return ArtifactSet(files=[artifact(path, epoch=epoch, run_id=run_id) for path in sorted(paths)])


def completed(*paths: str, epoch: int = 1, run_id: str = RUN) -> job.RunCompleted:
    return job.RunCompleted(run_id=run_id, epoch=epoch, outputs=artifacts(*paths, epoch=epoch, run_id=run_id))


def failed(*paths: str, epoch: int = 1, run_id: str = RUN) -> job.RunFailed:
    return job.RunFailed(run_id=run_id, epoch=epoch, outputs=artifacts(*paths, epoch=epoch, run_id=run_id))


def canceled(*paths: str, epoch: int = 1, run_id: str = RUN) -> job.RunCanceled:
    return job.RunCanceled(run_id=run_id, epoch=epoch, outputs=artifacts(*paths, epoch=epoch, run_id=run_id))


def a_request(submission_id: str = "s1", model: str = "tf-dnn-mnist", path: str = "outputs/model", **fields: Any) -> RegisterModelVersion:
    return RegisterModelVersion(**{"submission_id": submission_id, "model": model, "run_id": RUN, "path": path, **fields})


def an_upload(contents: dict[str, bytes], submission_id: str = "s1", model: str = "tf-dnn-mnist", **fields: Any) -> RegisterModelVersion:
    """As the SDK sends it: sorted, under the keys that the whole's digest gives."""
    found = {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
    whole = hashlib.sha256("".join(f"{path}\0{found[path]}\n" for path in sorted(found)).encode()).hexdigest()
    listed = [
        Artifact(path=path, size_bytes=len(contents[path]), sha256=found[path], object_key=f"uploads/models/{whole}/{path}")
        for path in sorted(contents)
    ]
    return RegisterModelVersion(**{"submission_id": submission_id, "model": model, "files": ArtifactSet(files=listed), **fields})
