"""What serving needs to know of a registered model version."""

from __future__ import annotations

from dataclasses import dataclass

from trainyard.event.v1.artifact_pb2 import ArtifactSet

SAVED_MODEL = "saved_model.pb"


@dataclass(frozen=True)
class ModelVersion:
    """What serving needs to know of a registered version."""

    model: str
    version: int
    framework_version: str
    files: ArtifactSet
    operations: tuple[str, ...] = ()  # of its graphs, those that read or write files or run Python
    leaving: str = ""  # the request that takes it out of the registry; "" while nobody does

    @property
    def id(self) -> str:
        return f"{self.model}:{self.version}"


def folder_of(files: ArtifactSet) -> str:
    """The folder that is a SavedModel: the registered one. "" where its top has no saved_model.pb."""
    for file in files.files:
        folder, _, name = file.path.rpartition("/")
        if name == SAVED_MODEL and folder and "/" not in folder:
            return folder
    return ""
