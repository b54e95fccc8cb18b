"""A loaded SavedModel: signatures, and the session callables behind them."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Before TensorFlow loads: its own CPU allocator never gives memory back after an unload.
os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from services.serving.model_server.errors import ServeError, invalid  # noqa: E402
from services.serving.model_server.servable import Servable  # noqa: E402
from services.serving.model_server.signature_defs import read  # noqa: E402
from services.serving.model_server.signatures import Signature  # noqa: E402

tf.get_logger().setLevel("ERROR")  # it warns of our own use of its first API, which tells a user nothing
# A caller chooses the outputs of a call, and every choice has its callable: so many are kept.
_MAX_CALLABLES = 64


@dataclass(frozen=True)
class Threads:
    """Of TensorFlow, within one call and between operations; 0: as it chooses."""

    intra: int = 0
    inter: int = -1
    """-1 runs every operation in the calling thread: 25 us a call against 43 for a small model, and no pool to wait for."""


class SavedModel(Servable):
    platform = "tensorflow_savedmodel"

    def __init__(
        self, name: str, version: int, path: str, tags: Sequence[str] = (tf.saved_model.SERVING,), threads: Threads = Threads()
    ) -> None:  # noqa: B008 - frozen
        """Raises whatever TensorFlow does for a folder that it cannot load, and ValueError where nothing can be served."""
        self._graph = tf.Graph()
        config = tf.compat.v1.ConfigProto(
            inter_op_parallelism_threads=threads.inter,
            intra_op_parallelism_threads=threads.intra,
            use_per_session_threads=threads.intra > 0,
        )
        self._session = tf.compat.v1.Session(graph=self._graph, config=config)
        try:
            with self._graph.as_default():
                meta_graph = tf.compat.v1.saved_model.load(self._session, list(tags), path)
            signatures, unserved = read(meta_graph)
            for key, reason in unserved.items():
                print(f"{name} {version}: signature {key} is not served: {reason}", file=sys.stderr, flush=True)
            if not signatures:
                why = "; ".join(f"{key}: {reason}" for key, reason in unserved.items()) or "save it with `signatures=...`"
                raise ValueError(f"the SavedModel has no signature that can be served; {why}")
        except BaseException:
            self._session.close()
            raise
        super().__init__(name, version, signatures, unserved)
        self._defs = {key: definition.SerializeToString() for key, definition in meta_graph.signature_def.items()}
        self._callables: dict[tuple[str, tuple[str, ...]], Callable[..., Sequence[Any]]] = {}
        self._lock = threading.Lock()

    def signature_defs(self) -> Mapping[str, bytes]:
        return self._defs

    def run(self, signature: Signature, wanted: tuple[str, ...], arrays: Sequence[Any]) -> list[Any]:
        call = self._callables.get((signature.name, wanted)) or self._make(signature, wanted)
        try:
            results = call(*arrays)
        except tf.errors.OpError as error:
            raise ServeError(int(error.error_code), error.message) from error
        except (TypeError, ValueError) as error:  # an array that TensorFlow cannot take
            raise invalid(str(error)) from error
        # A scalar string comes as bytes, of which NumPy's own strings lose the zeros at the end.
        return [np.array(result, dtype=object) if isinstance(result, bytes) else np.asarray(result) for result in results]

    def close(self) -> None:
        super().close()
        self._callables.clear()
        self._session.close()
        del self._session, self._graph
        give_memory_back()

    def _make(self, signature: Signature, wanted: tuple[str, ...]) -> Callable[..., Sequence[Any]]:
        feeds = [tensor.name for tensor in signature.inputs.values()]
        fetches = [signature.outputs[alias].name for alias in wanted]
        with self._lock:
            made: Callable[..., Sequence[Any]]
            try:
                # A private name, stable from TensorFlow 2.15 to 2.21, and three times as fast as the public one.
                made = self._session._make_callable_from_options(_callable_options(feeds, fetches))
            except (AttributeError, TypeError, ImportError):
                graph = self._graph
                made = self._session.make_callable(
                    [graph.get_tensor_by_name(name) for name in fetches], [graph.get_tensor_by_name(name) for name in feeds]
                )
            if len(self._callables) < _MAX_CALLABLES:
                self._callables[(signature.name, wanted)] = made
        return made


def give_memory_back() -> None:
    """A graph has cycles of references, and the C library keeps what was freed for its own use."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _callable_options(feeds: Sequence[str], fetches: Sequence[str]) -> Any:
    from tensorflow.core.protobuf import config_pb2

    return config_pb2.CallableOptions(feed=list(feeds), fetch=list(fetches))
