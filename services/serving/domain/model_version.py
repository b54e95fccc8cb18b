"""What serving needs to know of a registered model version."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainyard.endpoint.v1.endpoint_pb2 import Limits
from trainyard.event.v1.artifact_pb2 import ArtifactSet

SAVED_MODEL, TFLITE = "saved_model.pb", ".tflite"
_MOST_CORES, _MOST_MEMORY = 1024, 1 << 50


@dataclass(frozen=True)
class ModelVersion:
    """What serving needs to know of a registered version."""

    model: str
    version: int
    framework_version: str
    files: ArtifactSet
    operations: tuple[str, ...] = ()  # of its graphs, those that read or write files or run Python
    leaving: str = ""  # the request that takes it out of the registry; "" while nobody does
    cpu_cores: float = 0.0  # that its ResourceConfiguration asks for; 0: no wish
    memory_bytes: int = 0  # likewise

    @property
    def id(self) -> str:
        return f"{self.model}:{self.version}"


def served_file(files: ArtifactSet) -> str:
    """Path of what is served without code: the graph of the SavedModel that was registered, or the only TFLite file that was registered or
    lies at the top of the registered folder. "" where there is neither."""
    top = [file.path for file in files.files if file.path.count("/") <= 1]
    graphs = [path for path in top if path.rpartition("/")[2] == SAVED_MODEL and path.partition("/")[0] not in ("", path)]
    lites = [path for path in top if path.endswith(TFLITE)]
    return graphs[0] if graphs else lites[0] if len(lites) == 1 else ""


def folder_of(files: ArtifactSet) -> str:
    """The folder of what is served without code: the registered one. "" where that is a file, or nothing can be served."""
    return served_file(files).rpartition("/")[0]


def bounds(asked: Limits | None, versions: Sequence[ModelVersion]) -> Limits:
    """Of a server that has these versions: what was asked for counts, and of what was not the versions' own wishes, added up. Where one of
    them has no wish there is no bound: the others' would end it for what that one takes."""
    found = Limits()
    if asked is not None:
        found.CopyFrom(asked)
    cores, memory = [it.cpu_cores for it in versions], [it.memory_bytes for it in versions]
    # Anybody may write to the log: what is no number of cores is no wish.
    if not found.cpu_cores and cores and all(math.isfinite(it) and it > 0 for it in cores):
        found.cpu_cores = min(sum(cores), _MOST_CORES)
    if not found.memory_bytes and memory and all(memory):
        found.memory_bytes = min(sum(memory), _MOST_MEMORY)
    return found
