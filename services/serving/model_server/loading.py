"""From the folder of a version to a model that answers: checked, loaded, warmed up, with batching if that is wanted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.serving.model_server import lite_operators, operations, warmup
from services.serving.model_server.batching import BatchingParameters
from services.serving.model_server.config_files import read_batching
from services.serving.model_server.errors import INVALID_ARGUMENT, OUT_OF_RANGE, ServeError
from services.serving.model_server.options import BATCHING_FILE, TFLITE_FILE
from services.serving.model_server.saved_model import SavedModel, Threads
from services.serving.model_server.servable import Servable
from services.serving.model_server.tflite import TfLite
from services.serving.model_server.versions import ModelConfig
from services.serving.model_server.wire import Wire

# A SavedModel, as TensorFlow looks for it: the first of them that is there.
_BINARY, _TEXT = "saved_model.pb", "saved_model.pbtxt"
ANY_OPERATION = "any"


@dataclass(frozen=True)
class Manner:
    """How models are loaded."""

    tags: Sequence[str] = ("serve",)
    threads: Threads = Threads()
    prefer_tflite: bool = False
    interpreters: int = 1
    warm_up: bool = True
    warm_up_iterations: int = 1
    batching: BatchingParameters | None = None
    batching_of_models: bool = False
    """A file in the folder of a version says how that one batches."""
    allowed_operations: Sequence[str] = ()


class Loading:
    def __init__(self, wire: Wire, manner: Manner, held: Callable[[str], AbstractContextManager[Path]]) -> None:
        """`held`: where the version at a path lies on this machine, until it is closed."""
        self._wire = wire
        self._manner = manner
        self._held = held

    def __call__(self, config: ModelConfig, version: int, path: str) -> Servable:
        """Raises ServeError for a graph that is not allowed, and whatever TensorFlow does for a folder that it cannot load."""
        with ExitStack() as files:
            folder = files.enter_context(self._held(path))
            model = self._load(config.name, version, folder)
            model.files.push(files.pop_all())
        try:
            if self._manner.warm_up:
                self._warm_up(model, folder / warmup.FILE)
            parameters = self._batching(folder)
            if parameters is not None:
                model.batch(parameters)
        except BaseException:
            model.close()
            raise
        return model

    def _load(self, name: str, version: int, folder: Path) -> Servable:
        saved_model = next((it for it in (folder / _BINARY, folder / _TEXT) if it.is_file()), None)
        looked_at = ANY_OPERATION not in self._manner.allowed_operations
        file = folder / TFLITE_FILE
        if file.is_file() and (self._manner.prefer_tflite or saved_model is None):
            if looked_at:
                lite_operators.check(file.read_bytes(), self._manner.allowed_operations)
            return TfLite(name, version, str(file), self._manner.interpreters, max(self._manner.threads.intra, 1))
        if saved_model is not None and looked_at:
            self._check(saved_model)
        return SavedModel(name, version, str(folder), self._manner.tags, self._manner.threads)

    def _check(self, file: Path) -> None:
        from google.protobuf import text_format
        from tensorflow.core.protobuf import saved_model_pb2

        saved = saved_model_pb2.SavedModel()
        try:
            if file.name == _TEXT:
                text_format.Parse(file.read_bytes().decode(), saved)
            else:
                saved.ParseFromString(file.read_bytes())
        except Exception:  # TensorFlow reads it in the same way when it loads, and says it in its own words
            return
        is_stateful = _registered()
        for meta_graph in saved.meta_graphs:
            if set(meta_graph.meta_info_def.tags) == set(self._manner.tags):
                operations.check(meta_graph, is_stateful, self._manner.allowed_operations)

    def _warm_up(self, model: Servable, file: Path) -> None:
        if file.is_file():
            count = warmup.warm_up(model, file, self._wire, self._manner.warm_up_iterations)
            print(f"warmed {model.name} {model.version} up with {count} requests of its own", file=sys.stderr, flush=True)
            return
        try:
            model.warm_up()
        except ServeError as error:
            if error.code not in (INVALID_ARGUMENT, OUT_OF_RANGE):
                raise
            # Zeros may be no valid input (an empty image); that says nothing against the model.
            print(f"the first call, with zeros, was refused; serving all the same: {error.message}", file=sys.stderr, flush=True)

    def _batching(self, folder: Path) -> BatchingParameters | None:
        own = folder / BATCHING_FILE
        if self._manner.batching is not None and self._manner.batching_of_models and own.is_file():
            return read_batching(own, self._wire)
        return self._manner.batching


def _registered() -> Callable[[str], bool | None]:
    """What TensorFlow knows of its operations."""
    from tensorflow.python.framework import op_def_registry

    def is_stateful(name: str) -> bool | None:
        definition: Any = op_def_registry.get(name)
        return None if definition is None else bool(definition.is_stateful)

    return is_stateful
