"""What the scheduler and the agents do, as far as the registry sees it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from tests.component.topic_log import TopicLog
from trainyard._objects import MinioObjects
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1.spec_pb2 import DatasetInput, EnvironmentSpec, RunSpec, Snapshot, Source

JOBS = "trainyard.jobs"
FILES = {
    "outputs/model/saved_model.pb": b"graph",
    "outputs/model/variables/variables.index": b"weights",
    "outputs/notes.txt": b"",
    "logs/0/stdout.txt": b"epoch 1",
}


@dataclass(frozen=True)
class Stage:
    """Every run leaves FILES behind, under the keys of its epoch."""

    topic_log: TopicLog
    objects: MinioObjects

    def queue(self, run_id: str) -> None:
        spec = RunSpec(
            source=Source(snapshot=Snapshot(id="5" * 64)),
            environment=EnvironmentSpec(framework="tensorflow", framework_version="2.15"),
            inputs=[DatasetInput(name="data", dataset="mnist", version=2)],
        )
        self.say(run_id, job.RunQueued(run_id=run_id, experiment="tf-mnist", number=1, spec=spec))

    def upload(self, run_id: str, epoch: int = 1) -> ArtifactSet:
        files = []
        for path, content in sorted(FILES.items()):
            key = f"runs/{run_id}/{epoch}/{path}"
            self.objects.put_bytes(key, content)
            files.append(Artifact(path=path, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), object_key=key))
        return ArtifactSet(files=files)

    def complete(self, run_id: str, epoch: int = 1) -> ArtifactSet:
        outputs = self.upload(run_id, epoch)
        self.say(run_id, job.RunStarted(run_id=run_id, epoch=epoch), job.RunCompleted(run_id=run_id, epoch=epoch, outputs=outputs))
        return outputs

    def say(self, run_id: str, *facts: Any) -> None:
        self.topic_log.publish(JOBS, run_id, *facts)
