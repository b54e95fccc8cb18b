"""A loaded SavedModel: signatures, the session callables behind them, and TensorFlow Serving's checks on what comes in."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

# Before TensorFlow loads: its own CPU allocator never gives memory back after an unload.
os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from services.serving.model_server.errors import FAILED_PRECONDITION, NOT_FOUND, ServeError, invalid  # noqa: E402
from services.serving.model_server.signatures import DEFAULT_SIGNATURE, Signature, Tensor  # noqa: E402
from services.serving.model_server.tensors import TYPES, type_name  # noqa: E402

tf.get_logger().setLevel("ERROR")  # it warns of our own use of its first API, which tells a user nothing
_INIT_SIGNATURE = "__saved_model_init_op"
# A caller chooses the outputs of a call, and every choice has its callable: so many are kept.
_MAX_CALLABLES = 64


def _tensor(info: Any) -> Tensor:
    shape = None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)
    return Tensor(info.name, info.dtype, shape)


def _signatures(meta_graph: Any) -> dict[str, Signature]:
    found = {}
    for name, definition in meta_graph.signature_def.items():
        infos = [*definition.inputs.values(), *definition.outputs.values()]
        # Sparse and composite tensors, resources and the like have no place in a Predict request.
        if name == _INIT_SIGNATURE or any(info.WhichOneof("encoding") != "name" or info.dtype not in TYPES for info in infos):
            continue
        inputs = {alias: _tensor(info) for alias, info in definition.inputs.items()}
        outputs = {alias: _tensor(info) for alias, info in definition.outputs.items()}
        if outputs:
            found[name] = Signature(name, definition.method_name, inputs, outputs)
    return found


def _listed(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


class Model:
    """Thread safe. Its methods raise only ServeError."""

    def __init__(self, name: str, version: int, path: str) -> None:
        """Loads; raises whatever TensorFlow does for a folder that it cannot load, and ValueError where nothing can be served."""
        self.name = name
        self.version = version
        self._graph = tf.Graph()
        # -1 runs every operation in the calling thread: 25 us a call against 43 for a small model, and no pool to wait for.
        config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=-1)
        self._session = tf.compat.v1.Session(graph=self._graph, config=config)
        with self._graph.as_default():
            meta_graph = tf.compat.v1.saved_model.load(self._session, [tf.saved_model.SERVING], path)
        self.signatures = _signatures(meta_graph)
        if not self.signatures:
            raise ValueError("the SavedModel has no signature that can be served; save it with `signatures=...`")
        self._callables: dict[tuple[str, tuple[str, ...]], Callable[..., Sequence[Any]]] = {}
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """A call of the default signature with zeros, so that the first user does not pay for the preparation of the graph."""
        signature = self.signatures.get(DEFAULT_SIGNATURE) or next(iter(self.signatures.values()))
        self.predict(signature, {alias: tensor.zeros() for alias, tensor in signature.inputs.items()})

    def check(self, name: str, version: int | None, label: str = "") -> None:
        """Is this model meant?"""
        if not name:
            raise invalid("ModelSpec has no name specified.")
        if label:
            raise invalid(f"Unrecognized servable version label: {label}")
        if name != self.name or (version is not None and version != self.version):
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise ServeError(NOT_FOUND, f"Servable not found for request: {wanted}")

    def signature(self, name: str) -> Signature:
        found = self.signatures.get(name or DEFAULT_SIGNATURE)
        if found is None:
            raise ServeError(FAILED_PRECONDITION, f'Serving signature key "{name or DEFAULT_SIGNATURE}" not found.')
        return found

    def predict(self, signature: Signature, inputs: Mapping[str, Any], output_filter: Sequence[str] = ()) -> dict[str, Any]:
        """Arrays by output alias."""
        _check_inputs(signature, inputs)
        wanted = _wanted(signature, output_filter)
        call = self._callables.get((signature.name, wanted)) or self._make(signature, wanted)
        try:
            results = call(*(inputs[alias] for alias in signature.inputs))
        except tf.errors.OpError as error:
            raise ServeError(int(error.error_code), error.message) from error
        except (TypeError, ValueError) as error:  # an array that TensorFlow cannot take
            raise invalid(str(error)) from error
        return dict(zip(wanted, map(np.asarray, results), strict=True))

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


def _check_inputs(signature: Signature, inputs: Mapping[str, Any]) -> None:
    if inputs.keys() != signature.inputs.keys():
        extra, missing = inputs.keys() - signature.inputs.keys(), signature.inputs.keys() - inputs.keys()
        raise invalid(
            f"input size does not match signature: {len(inputs)}!={len(signature.inputs)} len({_listed(inputs)}) != "
            f"len({_listed(signature.inputs)}). Sent extra: {_listed(extra)}. Missing but required: {_listed(missing)}."
        )
    for alias, tensor in signature.inputs.items():
        if inputs[alias].dtype != tensor.array_dtype:
            raise invalid(f"Type mismatch: actual {type_name(inputs[alias])} vs. expect {tensor.type_name} (input {alias})")


def _wanted(signature: Signature, output_filter: Sequence[str]) -> tuple[str, ...]:
    """Output aliases in the signature's order, so that a choice has one callable in whatever order it comes."""
    chosen = set(output_filter)
    if len(chosen) != len(output_filter):
        twice = next(alias for alias in output_filter if list(output_filter).count(alias) > 1)
        raise invalid(f"duplicate output tensor alias: {twice}")
    for alias in output_filter:
        if alias not in signature.outputs:
            known = _listed(signature.outputs)
            raise invalid(f"output tensor alias not found in signature: {alias} Outputs expected to be in the set {known}.")
    return tuple(alias for alias in signature.outputs if alias in chosen) if chosen else tuple(signature.outputs)


def _callable_options(feeds: Sequence[str], fetches: Sequence[str]) -> Any:
    from tensorflow.core.protobuf import config_pb2

    return config_pb2.CallableOptions(feed=list(feeds), fetch=list(fetches))
