"""What every kind of loaded model has in common: TensorFlow Serving's checks on what comes in, batching, and counting."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from services.serving.model_server.batching import Batcher, BatchingParameters
from services.serving.model_server.errors import DEADLINE_EXCEEDED, FAILED_PRECONDITION, ServeError, invalid
from services.serving.model_server.meter import Meter
from services.serving.model_server.served import Statistics
from services.serving.model_server.signatures import DEFAULT_SIGNATURE, Signature
from services.serving.model_server.tensors import type_name

_PROMPT_NS = 1_000_000


class Servable(ABC):
    """Thread safe. Its methods raise only ServeError."""

    platform: str

    def __init__(self, name: str, version: int, signatures: Mapping[str, Signature], unserved: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.version = version
        self.signatures = signatures
        self.unserved = unserved or {}
        self.meter = Meter(version)
        self.files = ExitStack()  # what it may still read; it lets go of them when it is closed
        self._batcher: Batcher | None = None
        self._lately_ns = 0  # a mean in which the last runs count most; what two threads write at once is no great loss

    @property
    def prompt(self) -> bool:
        return self._batcher is None and self._lately_ns < _PROMPT_NS

    @abstractmethod
    def run(self, signature: Signature, wanted: tuple[str, ...], arrays: Sequence[Any]) -> list[Any]:
        """One run of the graph: arrays in the order of the signature's inputs, and of the outputs wanted."""

    @abstractmethod
    def signature_defs(self) -> Mapping[str, bytes]:
        """Every signature as tensorflow.SignatureDef, those too that cannot be served."""

    def close(self) -> None:
        if self._batcher is not None:
            self._batcher.close()
        self.files.close()

    def batch(self, parameters: BatchingParameters) -> None:
        """From now on calls share runs."""
        self._batcher = Batcher(parameters, self._run_counted)

    def statistics(self) -> Statistics:
        return self.meter.statistics()

    def signature(self, name: str) -> Signature:
        found = self.signatures.get(name or DEFAULT_SIGNATURE)
        if found is None:
            reason = self.unserved.get(name or DEFAULT_SIGNATURE)
            why = f"cannot be served: {reason}." if reason else "not found."
            raise ServeError(FAILED_PRECONDITION, f'Serving signature key "{name or DEFAULT_SIGNATURE}" {why}')
        return found

    def warm_up(self) -> None:
        """A call of the default signature with zeros, so that the first user does not pay for the preparation of the graph."""
        signature = self.signatures.get(DEFAULT_SIGNATURE) or next(iter(self.signatures.values()))
        self.run(signature, tuple(signature.outputs), [tensor.zeros() for tensor in signature.inputs.values()])

    def predict(
        self, signature: Signature, inputs: Mapping[str, Any], output_filter: Sequence[str] = (), deadline: float | None = None
    ) -> dict[str, Any]:
        begin = time.perf_counter_ns()
        try:
            _check_inputs(signature, inputs)
            wanted = _wanted(signature, output_filter)
            arrays = [inputs[alias] for alias in signature.inputs]
            if deadline is not None and time.monotonic() >= deadline:
                raise ServeError(DEADLINE_EXCEEDED, "the deadline of the call passed before its turn came")
            if self._batcher is None:
                results, took = self._timed(signature, wanted, arrays)
                self.meter.ran_alone(_rows(arrays), took)
            else:
                results, queue_ns, compute_ns = self._batcher.call(signature, wanted, arrays, deadline)
                self.meter.succeeded(_rows(arrays), queue_ns, compute_ns)
        except ServeError:
            self.meter.failed(time.perf_counter_ns() - begin)
            raise
        return dict(zip(wanted, results, strict=True))

    def _timed(self, signature: Signature, wanted: tuple[str, ...], arrays: Sequence[Any]) -> tuple[list[Any], int]:
        begin = time.perf_counter_ns()
        results = self.run(signature, wanted, arrays)
        took = time.perf_counter_ns() - begin
        self._lately_ns += (took - self._lately_ns) >> 3 if self._lately_ns else took
        return results, took

    def _run_counted(self, signature: Signature, wanted: tuple[str, ...], arrays: Sequence[Any]) -> list[Any]:
        results, took = self._timed(signature, wanted, arrays)
        self.meter.ran(_rows(arrays), took)
        return results


def _rows(arrays: Sequence[Any]) -> int:
    """A call counts as many rows as its first input has; one where that has no batch dimension."""
    return len(arrays[0]) if arrays and arrays[0].ndim else 1


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
    everything = tuple(signature.outputs)
    if not output_filter or tuple(output_filter) == everything:
        return everything
    chosen = set(output_filter)
    if len(chosen) != len(output_filter):
        twice = next(alias for alias in output_filter if list(output_filter).count(alias) > 1)
        raise invalid(f"duplicate output tensor alias: {twice}")
    for alias in output_filter:
        if alias not in signature.outputs:
            known = _listed(signature.outputs)
            raise invalid(f"output tensor alias not found in signature: {alias} Outputs expected to be in the set {known}.")
    return tuple(alias for alias in everything if alias in chosen)


def _listed(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
