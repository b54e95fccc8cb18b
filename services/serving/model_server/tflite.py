"""A loaded TFLite file: its signatures, and interpreters that take turns."""

from __future__ import annotations

import queue
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from services.serving.model_server.errors import INTERNAL, ServeError, invalid
from services.serving.model_server.saved_model import give_memory_back
from services.serving.model_server.servable import Servable
from services.serving.model_server.signatures import DEFAULT_SIGNATURE, Signature, Tensor
from services.serving.model_server.tensors import STRING, TYPES, type_name

_METHOD = "tensorflow/serving/predict"
_NUMBERS = {np.dtype(it.array): number for number, it in TYPES.items()}


class TfLite(Servable):
    platform = "tflite"

    def __init__(self, name: str, version: int, path: str, interpreters: int = 1, threads: int = 1) -> None:
        """Raises ValueError for a file that is none."""
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(max(interpreters, 1)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it moves to a package of its own
                interpreter = tf.lite.Interpreter(model_path=path, num_threads=max(threads, 1))
            interpreter.allocate_tensors()
            self._idle.put(interpreter)
        self._named = bool(interpreter.get_signature_list())
        super().__init__(name, version, _signatures(interpreter))
        self._defs: Mapping[str, bytes] = {}

    def signature_defs(self) -> Mapping[str, bytes]:
        return self._defs

    def run(self, signature: Signature, wanted: tuple[str, ...], arrays: Sequence[Any]) -> list[Any]:
        interpreter = self._idle.get()
        try:
            found = self._by_name(interpreter, signature, arrays) if self._named else self._by_place(interpreter, signature, arrays)
            return [np.array(found[alias], dtype=object if isinstance(found[alias], bytes) else None) for alias in wanted]
        except ValueError as error:
            raise invalid(str(error)) from error
        except RuntimeError as error:
            raise ServeError(INTERNAL, str(error)) from error
        finally:
            self._idle.put(interpreter)

    def _by_name(self, interpreter: Any, signature: Signature, arrays: Sequence[Any]) -> Mapping[str, Any]:
        runner = interpreter.get_signature_runner(signature.name)
        found: Mapping[str, Any] = runner(**dict(zip(signature.inputs, arrays, strict=True)))
        return found

    def _by_place(self, interpreter: Any, signature: Signature, arrays: Sequence[Any]) -> Mapping[str, Any]:
        """A file without signatures: the names of its tensors are the aliases."""
        details = interpreter.get_input_details()
        for detail, array in zip(details, arrays, strict=True):
            interpreter.resize_tensor_input(detail["index"], array.shape)
        interpreter.allocate_tensors()
        for detail, array in zip(details, arrays, strict=True):
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        return {detail["name"]: interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()}

    def close(self) -> None:
        super().close()
        del self._idle
        give_memory_back()


def _signatures(interpreter: Any) -> dict[str, Signature]:
    if not interpreter.get_signature_list():
        inputs = {detail["name"]: _tensor(detail["name"], detail) for detail in interpreter.get_input_details()}
        outputs = {detail["name"]: _tensor(detail["name"], detail) for detail in interpreter.get_output_details()}
        return {DEFAULT_SIGNATURE: Signature(DEFAULT_SIGNATURE, _METHOD, inputs, outputs)}
    found = {}
    for name in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(name)
        inputs = {alias: _tensor(detail["name"], detail) for alias, detail in runner.get_input_details().items()}
        outputs = {alias: _tensor(detail["name"], detail) for alias, detail in runner.get_output_details().items()}
        found[name] = Signature(name, _METHOD, inputs, outputs)
    return found


def _tensor(name: str, detail: Mapping[str, Any]) -> Tensor:
    dtype = np.dtype(detail["dtype"])
    number = STRING if dtype.kind in "SO" else _NUMBERS.get(dtype)
    if number is None:
        raise ValueError(f"tensor {name} of the TFLite file is of type {type_name(np.empty(0, dtype))}, which is not served")
    shape = detail.get("shape_signature")
    return Tensor(name, number, tuple(int(size) for size in (detail["shape"] if shape is None or not len(shape) else shape)))
